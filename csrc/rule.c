#include "rule.h"

void fps_rule_prepare(const fps_arena *arena, const fps_rule *rule, uint64_t step, double *uniforms)
{
    double hyper[FPS_MAX_HYPER];
    if (!rule->prepare) return;
    fps_hyper_read(&arena->header->hyper[rule->number], hyper);
    rule->prepare(hyper, (double)step, uniforms);
    uniforms[FPS_MAX_UNIFORMS + 2] = (double)step;
}

void fps_rule_keep_hyper(const fps_arena *arena, const fps_rule *rule, double *uniforms)
{
    if (rule->prepare) fps_hyper_read(&arena->header->hyper[rule->number], &uniforms[FPS_MAX_UNIFORMS + 3]);
}

void fps_rule_prepare_array(const fps_rule *rule, uint64_t step, double *uniforms)
{
    double *of = &uniforms[FPS_MAX_UNIFORMS + 2];
    if (!rule->prepare || (fps_rule_has_step(uniforms) && *of >= (double)step && *of <= (double)step)) return;
    rule->prepare(&uniforms[FPS_MAX_UNIFORMS + 3], (double)step, uniforms);
    *of = (double)step;
}

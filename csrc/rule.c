#include "rule.h"

void fps_rule_begin_with_hyper(const fps_arena *arena, const fps_rule *rule, double limit, double scale,
                               double *uniforms)
{
    fps_rule_begin(uniforms, limit, scale);
    if (rule->prepare) fps_hyper_read(&arena->header->hyper[rule->number], &uniforms[FPS_MAX_UNIFORMS + 3]);
}

void fps_rule_prepare(const fps_rule *rule, uint64_t step, double *uniforms)
{
    double *of = &uniforms[FPS_MAX_UNIFORMS + 2];
    if (!rule->prepare || (fps_rule_has_step(uniforms) && *of >= (double)step && *of <= (double)step)) return;
    rule->prepare(&uniforms[FPS_MAX_UNIFORMS + 3], (double)step, uniforms);
    *of = (double)step;
}

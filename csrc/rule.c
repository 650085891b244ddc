#include "rule.h"

void fps_rule_prepare(const fps_arena *arena, const fps_rule *rule, uint64_t step, double *uniforms)
{
    double hyper[FPS_MAX_HYPER], *of = &uniforms[FPS_MAX_UNIFORMS + 2];
    if (!rule->prepare || (*of >= (double)step && *of <= (double)step)) return;
    fps_hyper_read(&arena->header->hyper[rule->number], hyper);
    rule->prepare(hyper, (double)step, uniforms);
    *of = (double)step;
}

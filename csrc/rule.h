/* A compiled update rule, and the values that it computes once for an array: its uniforms.
 *
 * A rule's `step` is the update count of the array, this update included. Pushes of all arrays count for each of them:
 * they are counted once, for the shard. Pushes of some arrays, partial ones, are counted for each array that they have.
 * So the step of an array is the shard's update count, less its partial pushes, plus those of the array. While a shard
 * has had no partial push, all arrays are at the same step. */
#ifndef FPS_RULE_H
#define FPS_RULE_H

#include <stdint.h>

#include "arena.h"
#include "hyper.h"

#define FPS_MAX_UNIFORMS 32u
/* With the limit and the scale of gradients, the step that they are of, 0: of none yet, and, where arrays are at
 * different steps, the hyper-parameters: a push uses one set of these for all arrays, whenever it comes to them. */
#define FPS_UNIFORMS (FPS_MAX_UNIFORMS + 3u + FPS_MAX_HYPER)

/* results[...][i] = rule(state[...][i], grad[i]) for i < n. `state` is the parameters, each slot and, if the rule uses
 * them, the parameters that the worker pulled; `results` the parameters and each slot. No two of the arrays overlap; n
 * may be 0; up to `ahead` elements after the n are prefetched, 0 for none. Returns 0: a kernel cannot fail. */
typedef int32_t (*fps_kernel)(const void *const *state, const void *grad, void *const *results, int64_t n,
                              int64_t ahead, const double *uniforms);

/* The uniforms: values for all elements of an array, computed from the hyper-parameters and the step. */
typedef int32_t (*fps_prepare)(const double *hyper, double step, double *uniforms);

/* A compiled rule for one dtype. */
typedef struct fps_rule {
    fps_kernel kernel; /* NULL: its parameters are carried, no push changes them */
    fps_prepare prepare;
    uint32_t n_slots;
    uint32_t number; /* index of its hyper-parameters in the arena */
} fps_rule;

/* The uniforms of rule `number` among those of a part. */
static inline double *fps_rule_uniforms(double *uniforms, uint32_t number)
{
    return uniforms + (uint64_t)number * FPS_UNIFORMS;
}

/* The uniforms of a push, whose step is not known yet. */
static inline void fps_rule_begin(double *uniforms, double limit, double scale)
{
    uniforms[FPS_MAX_UNIFORMS] = limit;
    uniforms[FPS_MAX_UNIFORMS + 1] = scale;
    uniforms[FPS_MAX_UNIFORMS + 2] = 0;
}

static inline bool fps_rule_has_step(const double *uniforms) { return uniforms[FPS_MAX_UNIFORMS + 2] > 0; }

/* Computes them for all arrays, which are at this step. */
void fps_rule_prepare(const fps_arena *arena, const fps_rule *rule, uint64_t step, double *uniforms);

/* Where arrays are at different steps: keeps the hyper-parameters of now, */
void fps_rule_keep_hyper(const fps_arena *arena, const fps_rule *rule, double *uniforms);

/* and computes the uniforms of an array with those, if they are not of its step already. */
void fps_rule_prepare_array(const fps_rule *rule, uint64_t step, double *uniforms);

#endif

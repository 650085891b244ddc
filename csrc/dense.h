/* Operations on the parameters of shards: pull, push, push_pull. Any process that has mapped the arena executes them.
 *
 * An operation walks the stripes of a shard hand over hand: it takes the next stripe's lock before it releases this
 * one's. So no operation overtakes another, each sees and leaves a whole number of pushes, and several operations
 * follow each other through one shard.
 *
 * A push works block by block. The kernel reads parameters and gradient and writes the new values to the session's redo
 * block, which stays in the first-level cache; the steps of redo.h copy them into place. So no block is ever half
 * updated, and the byte where a push stopped is known. */
#ifndef FPS_DENSE_H
#define FPS_DENSE_H

#include <stdbool.h>
#include <stdint.h>

#include "arena.h"
#include "hyper.h"
#include "lock.h"
#include "span.h"
#include "status.h"

#define FPS_MAX_UNIFORMS 32u
#define FPS_UNIFORMS (FPS_MAX_UNIFORMS + 2u) /* with the limit and the scale of gradients */

/* results[...][i] = rule(state[...][i], grad[i]) for i < n. `state` is the parameters, each slot and, if the rule uses
 * them, the parameters that the worker pulled; `results` the parameters and each slot. No two of the arrays overlap; n
 * may be 0; up to `ahead` elements after the n are prefetched, 0 for none. Returns 0: a kernel cannot fail. */
typedef int32_t (*fps_kernel)(const void *const *state, const void *grad, void *const *results, int64_t n,
                              int64_t ahead, const double *uniforms);

/* The uniforms: values for all elements of a push, computed from the hyper-parameters and the push's update count. */
typedef int32_t (*fps_prepare)(const double *hyper, double step, double *uniforms);

/* A compiled rule for one dtype. */
typedef struct fps_rule {
    fps_kernel kernel; /* NULL: its parameters are carried, no push changes them */
    fps_prepare prepare;
    uint32_t n_slots;
    uint32_t number; /* index of its hyper-parameters in the arena */
} fps_rule;

/* The stream of an operation: params, or one chosen for each rule. */
#define FPS_NO_STREAM UINT32_MAX

/* One shard's part of an operation. `applied`, `position` and `version` say how far it has come: an operation that was
 * not finished resumes there when it is run again with the same parts. With `seq` set to 0 it can resume in another
 * session, which assigns it a new number. */
typedef struct fps_part {
    fps_session *session;
    const fps_span *spans;
    uint32_t n_spans;
    bool done;
    bool applied;        /* everything is written; a push_pull may still have to read */
    bool prepared;       /* the uniforms belong to this push */
    uint64_t position;   /* bytes of params that are done */
    uint64_t seq;        /* sequence number of the push in its session; 0: to be assigned */
    uint64_t version;    /* update count of the state that was read or written */
    uint64_t pinned;     /* in rounds: `current` as a pull reads it */
    double *uniforms;    /* [rules][FPS_UNIFORMS] */
    uint32_t waited_for; /* the stripe whose lock was busy */
} fps_part;

typedef enum fps_kind {
    FPS_REACH = 0, /* only brings shards to a round, see rounds.h */
    FPS_PULL,
    FPS_PUSH,
    FPS_PUSH_PULL,
    FPS_GET, /* reads `streams` */
    FPS_SET, /* sets `streams` to `grads`, without the rule */
} fps_kind;

static inline bool fps_kind_reads(fps_kind kind)
{
    return kind == FPS_PULL || kind == FPS_PUSH_PULL || kind == FPS_GET;
}
static inline bool fps_kind_writes(fps_kind kind)
{
    return kind == FPS_PUSH || kind == FPS_PUSH_PULL || kind == FPS_SET;
}
static inline bool fps_kind_of_streams(fps_kind kind) { return kind == FPS_GET || kind == FPS_SET; }

/* An operation; fields that its kind does not use are ignored. It is on the stack of its one caller. */
typedef struct fps_call {
    fps_kind kind;
    const void *const *grads;  /* per buffer */
    void *const *outs;         /* per buffer */
    const void *const *pulled; /* per buffer, or NULL; for rules that use it */
    /* Per buffer FPS_BFLOAT16 or FPS_FLOAT16 where that is the type of its elements, for spans of floats; 0 where it is
     * that of the span. NULL: all 0. */
    const uint8_t *half_grads, *half_outs, *half_pulled;
    const uint32_t *streams; /* per rule; FPS_NO_STREAM skips its parameters */
    const fps_rule *rules;
    uint32_t n_rules;
    double limit, scale; /* of gradients, for kernels that clip */
    fps_part *parts;
    uint32_t n_parts;
    uint32_t first; /* the part to begin with; busy shards are skipped and done later */
    fps_wait wait;
} fps_call;

/* Size from which writes to `outs` bypass the caches: they would not stay there, and loading their lines first costs
 * as much again. */
#define FPS_STREAM_BYTES (UINT64_C(12) << 20)

/* Runs the parts that are not done. If it does not return FPS_OK, `*at` is the part that stopped; parts before and
 * after it may be done, and the contents of `outs` are undefined. */
fps_status fps_dense_run(fps_call *call, uint32_t *at);

/* Sets the parameters without a rule, in an arena that no other process has opened yet. */
void fps_dense_fill(const fps_arena *arena, const fps_span *spans, uint32_t n_spans, const void *const *values);

/* Sets a stream of one span to one value, in an arena that no other process has opened yet. */
void fps_dense_begin(const fps_arena *arena, const fps_span *span, uint32_t stream, double value);

/* Changes hyper-parameters of a rule atomically, for every push that enters from now on. Those whose bit in `which` is
 * 0 are kept. */
fps_status fps_dense_configure(const fps_arena *arena, uint32_t rule, uint32_t which, const double *values,
                               const fps_wait *wait);
static inline void fps_dense_hyper(const fps_arena *arena, uint32_t rule, double *values)
{
    fps_hyper_read(&arena->header->hyper[rule], values);
}

/* The uniforms of a rule for the push with this update count. */
void fps_dense_prepare(const fps_arena *arena, const fps_rule *rule, uint64_t step, double *uniforms);

/* Adds what a part did to its session's meters. */
void fps_dense_count(const fps_call *call, const fps_part *part);

#endif

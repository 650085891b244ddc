/* Operations on the parameters of shards: pull, push, push_pull. Whoever has the arena mapped executes them.
 *
 * An operation walks the stripes of a shard hand over hand: it takes the next stripe's lock before it lets go of this
 * one's, so nobody overtakes and everybody sees and leaves a whole number of pushes, while several operations follow
 * each other through one shard.
 *
 * A push works block by block. The kernel reads parameters and gradient and writes the new values to the session's redo
 * block, which stays in the first-level cache; from there they come into place by the steps of redo.h. So no block is
 * ever half updated, and where a push stopped is known to the byte. */
#ifndef FPS_DENSE_H
#define FPS_DENSE_H

#include <stdbool.h>
#include <stdint.h>

#include "arena.h"
#include "hyper.h"
#include "lock.h"
#include "status.h"

#define FPS_MAX_UNIFORMS 32u
#define FPS_UNIFORMS (FPS_MAX_UNIFORMS + 2u) /* and the limit and the scale of gradients */

/* results[...][i] = rule(state[...][i], grad[i]) for i < n. `state` is the parameters, each slot and, when the rule
 * wants them, the parameters that the worker had pulled; `results` the parameters and each slot. No two of the arrays
 * overlap; n may be 0; elements up to `ahead` behind the n are prefetched, 0 for none. Answers 0: a kernel cannot
 * fail. */
typedef int32_t (*fps_kernel)(const void *const *state, const void *grad, void *const *results, int64_t n,
                              int64_t ahead, const double *uniforms);

/* What is the same for all elements of a push, from the hyper-parameters and the push's number in the shard. */
typedef int32_t (*fps_prepare)(const double *hyper, double step, double *uniforms);

/* A compiled rule for one dtype. */
typedef struct fps_rule {
    fps_kernel kernel;
    fps_prepare prepare;
    uint32_t n_slots;
    uint32_t number; /* in the arena, which keeps hyper-parameters for each rule */
} fps_rule;

/* Which stream an operation is about: params, or one that each rule names. */
#define FPS_NO_STREAM UINT32_MAX

/* A run of elements of one dtype: where it lies in the shard, and where in which of the caller's buffers. */
typedef struct fps_span {
    uint64_t position; /* bytes from the start of params, a multiple of item_bytes; sorted, without overlap */
    uint64_t bytes;
    uint64_t buffer_offset; /* bytes from the start of the buffer */
    uint32_t buffer;
    uint32_t rule;
    uint32_t item_bytes; /* 4 or 8 */
} fps_span;

/* One shard's part of an operation. `applied`, `position` and `version` say how far it has come: an operation that
 * could not be finished goes on from there when it is run again with the same parts. So it does in another session,
 * when that gives it a number of its own: `seq` is 0 then. */
typedef struct fps_part {
    fps_session *session;
    const fps_span *spans;
    uint32_t n_spans;
    bool done;
    bool applied;        /* what it writes is whole in the shard; a push_pull may have to read yet */
    bool prepared;       /* the uniforms are those of this push */
    uint64_t position;   /* bytes of params behind the operation */
    uint64_t seq;        /* of the push in its session; 0: a number is given */
    uint64_t version;    /* pushes in the state that was read or written */
    uint64_t pinned;     /* of rounds: `current` as a pull reads it */
    double *uniforms;    /* [rules][FPS_UNIFORMS] */
    uint32_t waited_for; /* the stripe whose lock was not to be had */
} fps_part;

typedef enum fps_kind {
    FPS_REACH = 0, /* only brings about a round, see rounds.h */
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

/* An operation: what its kind does not use is not looked at. It belongs to one caller, on whose stack it lies. */
typedef struct fps_call {
    fps_kind kind;
    const void *const *grads;  /* per buffer */
    void *const *outs;         /* per buffer */
    const void *const *pulled; /* per buffer, or NULL: for rules that want it */
    const uint32_t *streams;   /* per rule; FPS_NO_STREAM passes its parameters over */
    const fps_rule *rules;
    uint32_t n_rules;
    double limit, scale; /* of gradients, for kernels that clip */
    fps_part *parts;
    uint32_t n_parts;
    uint32_t first; /* the part to begin with; busy shards are passed over and come later */
    fps_wait wait;
} fps_call;

/* Bytes from which `outs` are written past the caches: they would not stay there, and reading them in first costs as
 * much again. */
#define FPS_STREAM_BYTES (UINT64_C(12) << 20)

/* Runs the parts that are not done. On any other answer than FPS_OK `*at` is the part that could not go on; parts
 * before and behind it may be done. What `outs` hold is then undefined. */
fps_status fps_dense_run(fps_call *call, uint32_t *at);

/* Sets the parameters without a rule: for an arena that nobody else has opened yet. */
void fps_dense_fill(const fps_arena *arena, const fps_span *spans, uint32_t n_spans, const void *const *values);

/* Sets a stream of one span to one value: for an arena that nobody else has opened yet. */
void fps_dense_begin(const fps_arena *arena, const fps_span *span, uint32_t stream, double value);

/* Changes hyper-parameters of a rule for every push that enters from now on, all at once. Those whose bit in `which` is
 * 0 stay. */
fps_status fps_dense_configure(const fps_arena *arena, uint32_t rule, uint32_t which, const double *values,
                               const fps_wait *wait);
static inline void fps_dense_hyper(const fps_arena *arena, uint32_t rule, double *values)
{
    fps_hyper_read(&arena->header->hyper[rule], values);
}

/* The uniforms of a rule for the push of this number. */
void fps_dense_prepare(const fps_arena *arena, const fps_rule *rule, uint64_t step, double *uniforms);

/* Counts what a part did in its session's meters. */
void fps_dense_count(const fps_call *call, const fps_part *part);

#endif

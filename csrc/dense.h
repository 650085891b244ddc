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
#include "lock.h"
#include "rule.h"
#include "span.h"
#include "status.h"

/* The stream of an operation: params, or one chosen for each rule. */
#define FPS_NO_STREAM UINT32_MAX

/* One shard's part of an operation. `applied`, `position` and `version` say how far it has come: an operation that was
 * not finished resumes there when it is run again with the same parts. With `seq` set to 0 it can resume in another
 * session, which assigns it a new number. */
typedef struct fps_part {
    fps_session *session;
    const fps_span *spans; /* of all arrays */
    uint32_t n_spans;
    const fps_span *some; /* of those that a partial operation has; there may be none */
    uint32_t n_some;
    bool done;
    bool applied;        /* everything is written; a push_pull may still have to read */
    bool prepared;       /* the uniforms belong to this push */
    bool varies;         /* arrays are at different steps */
    uint64_t position;   /* bytes of params that are done */
    uint64_t seq;        /* sequence number of the push in its session; 0: to be assigned */
    uint64_t version;    /* update count of the state that was read or written */
    uint64_t wholes;     /* of these, pushes of all arrays */
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
    bool partial;              /* of `some` spans; no walk goes beyond them */
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

/* The spans of an operation, and their number. */
static inline const fps_span *fps_dense_spans(const fps_call *call, const fps_part *part, uint32_t *n)
{
    *n = call->partial ? part->n_some : part->n_spans;
    return call->partial ? part->some : part->spans;
}

/* The bytes of the spans. */
static inline uint64_t fps_dense_bytes(const fps_call *call, const fps_part *part)
{
    uint64_t bytes = 0;
    uint32_t n;
    const fps_span *spans = fps_dense_spans(call, part, &n);
    for (uint32_t i = 0; i < n; i++) bytes += spans[i].bytes;
    return bytes;
}

/* Size from which writes to `outs` bypass the caches: they would not stay there, and loading their lines first costs
 * as much again. */
#define FPS_STREAM_BYTES (UINT64_C(12) << 20)

/* Runs the parts that are not done. If it does not return FPS_OK, `*at` is the part that stopped; parts before and
 * after it may be done, and the contents of `outs` are undefined. */
fps_status fps_dense_run(fps_call *call, uint32_t *at);

/* Changes hyper-parameters of a rule atomically, for every push that enters from now on. Those whose bit in `which` is
 * 0 are kept. */
fps_status fps_dense_configure(const fps_arena *arena, uint32_t rule, uint32_t which, const double *values,
                               const fps_wait *wait);
static inline void fps_dense_hyper(const fps_arena *arena, uint32_t rule, double *values)
{
    fps_hyper_read(&arena->header->hyper[rule], values);
}

/* Adds what a part did to its session's meters. */
void fps_dense_count(const fps_call *call, const fps_part *part);

#endif

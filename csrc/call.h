/* One operation on the parameters of shards, as a value, and how far it has come. */
#ifndef FPS_CALL_H
#define FPS_CALL_H

#include <stdbool.h>
#include <stdint.h>

#include "arena.h"
#include "lock.h"
#include "rule.h"
#include "span.h"

/* In place of a stream, of a rule that has no such slot: its parameters are left out. */
#define FPS_NO_STREAM UINT32_MAX

/* Size from which writes to `outs` bypass the caches: they would not stay there, and loading their lines first costs
 * as much again. */
#define FPS_STREAM_BYTES (UINT64_C(12) << 20)

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
    uint64_t *steps;     /* NULL, or per span the update count of its array, which FPS_GET reads and FPS_SET sets */
    uint32_t waited_for; /* the stripe whose lock was busy */
    uint32_t span;       /* of a read of all shards at one moment: the first span that ends after the position */
} fps_part;

typedef enum fps_kind {
    FPS_REACH = 0, /* only brings shards to a round, see rounds.h */
    FPS_PULL,
    FPS_PUSH,
    FPS_PUSH_PULL,
    FPS_GET, /* reads `streams` into `outs` */
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
    /* Of kinds of streams: what is read or set, per stream and rule the stream in the arena or FPS_NO_STREAM. `grads`,
     * `outs` and their types are then per stream and buffer. */
    const uint32_t *streams;
    uint32_t n_streams, n_buffers;
    const fps_rule *rules;
    uint32_t n_rules;
    double limit, scale; /* of gradients, for kernels that clip */
    fps_part *parts;
    uint32_t n_parts;
    uint32_t first;   /* the part to begin with; busy shards are skipped and done later */
    bool together;    /* reads all arrays of all shards at one moment: cut.h */
    fps_seat *entry;  /* of a push of several shards: its seat in the first that it has entered, */
    uint32_t outside; /* and how many it has still to enter */
    fps_wait wait;
} fps_call;

/* Of kinds of streams: the stream in the arena of stream `k` of the operation, for a span. */
static inline uint32_t fps_call_stream(const fps_call *call, uint32_t k, const fps_span *span)
{
    return call->streams[k * call->n_rules + span->rule];
}

/* The types of the buffers of stream `k`: `half` is that of all. */
static inline const uint8_t *fps_call_half(const fps_call *call, uint32_t k, const uint8_t *half)
{
    return half ? half + k * call->n_buffers : NULL;
}

/* The spans of an operation, and their number. */
static inline const fps_span *fps_call_spans(const fps_call *call, const fps_part *part, uint32_t *n)
{
    *n = call->partial ? part->n_some : part->n_spans;
    return call->partial ? part->some : part->spans;
}

/* The bytes of the spans. */
static inline uint64_t fps_call_bytes(const fps_call *call, const fps_part *part)
{
    uint64_t bytes = 0;
    uint32_t n;
    const fps_span *spans = fps_call_spans(call, part, &n);
    for (uint32_t i = 0; i < n; i++) bytes += spans[i].bytes;
    return bytes;
}

/* Of a set with `steps`: the largest of them, */
uint64_t fps_call_most_steps(const fps_part *part, uint32_t n_spans);

/* and, before the first stripe is left, how many pushes of all arrays and partial ones the shard counts from now on;
 * each array's own count becomes its step less part->wholes, modulo 2^64, when the walk comes to it. A set of all
 * arrays lets them be at one step if that is so; a partial one counts as a partial push if there was none. */
void fps_call_begin_steps(const fps_call *call, fps_part *part);

/* Adds what a part did to its session's meters. */
void fps_call_count(const fps_call *call, const fps_part *part);

#endif

/* Operations on the parameters of shards: pull, push, push_pull. Whoever has the arena mapped executes them.
 *
 * An operation walks the stripes of a shard hand over hand: it takes the next stripe's lock before it lets go of this
 * one's, so nobody overtakes and everybody sees and leaves a whole number of pushes, while several operations follow
 * each other through one shard.
 *
 * A push works block by block. The kernel reads parameters and gradient and writes the new values to the session's redo
 * block, which stays in the first-level cache; `cursor` says that they are complete; then they are copied into place.
 * A process that dies before that word has changed nothing; one that dies after it has its copy finished by whoever
 * finds the lock abandoned. No block is ever half updated, and where the push stopped is known to the byte. */
#ifndef FPS_DENSE_H
#define FPS_DENSE_H

#include <stdint.h>

#include "arena.h"
#include "lock.h"
#include "session.h"
#include "status.h"

/* result[i] = rule(param[i], grad[i]) for i < n. No two of the arrays overlap; n may be 0. */
typedef void (*fps_kernel)(const void *param, const void *grad, void *result, int64_t n, const double *hyper);

/* A compiled rule for one dtype, with its hyper-parameters. */
typedef struct fps_rule {
    fps_kernel kernel;
    const double *hyper;
} fps_rule;

/* A run of elements of one dtype: where it lies in the shard, and where in which of the caller's buffers. */
typedef struct fps_span {
    uint64_t position; /* bytes from the start of params, a multiple of item_bytes; sorted, without overlap */
    uint64_t bytes;
    uint64_t buffer_offset; /* bytes from the start of the buffer */
    uint32_t buffer;
    uint32_t rule;
    uint32_t item_bytes; /* 4 or 8 */
} fps_span;

/* One shard's part of an operation. `position` and `version` say how far it has come: an operation that could not be
 * finished goes on from there when it is run again with the same parts. */
typedef struct fps_part {
    fps_session *session;
    const fps_span *spans;
    uint32_t n_spans;
    uint32_t done;       /* 0 or 1 */
    uint64_t position;   /* bytes of params behind the operation */
    uint64_t seq;        /* of the push; 0: not begun, a number is given */
    uint64_t version;    /* pushes in the state that was read or written */
    uint32_t waited_for; /* the stripe whose lock was not to be had */
} fps_part;

/* An operation. `grads` makes it a push, `outs` a pull, both a push_pull. */
typedef struct fps_call {
    const void *const *grads; /* per buffer, or NULL */
    void *const *outs;        /* per buffer, or NULL */
    const fps_rule *rules;
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

/* Sets the parameters from `grads` without a rule: for an arena that nobody else has opened yet. */
void fps_dense_fill(const fps_arena *arena, const fps_span *spans, uint32_t n_spans, const void *const *values);

#endif

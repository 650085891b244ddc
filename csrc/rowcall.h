/* An operation on rows as a value, and its caller's arrays: gradients and values come from them, rows go to them, in
 * half precision where the caller has that. */
#ifndef FPS_ROWCALL_H
#define FPS_ROWCALL_H

#include <stdbool.h>
#include <stdint.h>

#include "arena.h"
#include "batch.h"
#include "call.h"
#include "lock.h"

/* One shard's part of an operation. `position` says how far it has come: an operation that was not finished resumes
 * there when it is run again with the same part; with `seq` set to 0, also in another session. */
typedef struct fps_sparse_part {
    fps_session *session;
    const uint64_t *keys;
    const uint32_t *places; /* index of key i in the caller's arrays; NULL: i */
    uint32_t n;
    fps_batch *batch;  /* used only by this part until it is done */
    uint32_t position; /* distinct keys that are done */
    bool done;
    bool applied;     /* everything is written; a push_pull may still have to read */
    bool ready;       /* the batch has this part's keys and their rows */
    bool begun;       /* the push is counted, and has its uniforms */
    uint64_t seq;     /* sequence number of the push in its session; 0: to be assigned */
    uint64_t version; /* update count of the table on this shard, this push included */
    double uniforms[FPS_UNIFORMS];
} fps_sparse_part;

/* An operation on one table: FPS_PULL, FPS_PUSH, FPS_PUSH_PULL, or FPS_SET for the streams of rows. Fields that its
 * kind does not use are ignored. All arrays are [n, bytes of the stream]; of a table of floats, gradients and outs may
 * be of half precision. */
typedef struct fps_sparse_call {
    fps_kind kind;
    uint32_t table;
    const uint8_t *grads;
    uint8_t *outs;
    uint32_t half_grads, half_outs; /* FPS_BFLOAT16, FPS_FLOAT16, or 0 */
    const uint8_t *const *set;      /* per stream; NULL: not changed */
    const fps_rule *rule;
    double limit, scale; /* of gradients, for kernels that clip */
    bool create;         /* a pull creates missing rows */
    fps_sparse_part *parts;
    uint32_t n_parts;
    fps_wait wait;
} fps_sparse_call;

/* The index in the caller's arrays of key i of the part. */
static inline uint32_t fps_rowcall_place(const fps_sparse_part *part, uint32_t i)
{
    return part->places ? part->places[i] : i;
}

/* Scratch of a batch, of t->bytes[0] each, behind the gradient: a gradient, or a row, that was widened; the values of a
 * row that holds them in half precision, and the new ones. */
#define FPS_ROWCALL_WIDE 1u
#define FPS_ROWCALL_VALUES 2u
#define FPS_ROWCALL_RESULTS 3u

static inline uint8_t *fps_rowcall_scratch(const fps_sparse_part *part, const fps_table *t, uint32_t which)
{
    return part->batch->sum + (uint64_t)which * t->bytes[0];
}

/* Bytes that the batch of a part must have room for, see fps_batch_reserve. */
uint32_t fps_rowcall_room(const fps_sparse_call *call, const fps_table *t);

/* Gives the caller the values of key i, which a row holds like this. */
void fps_rowcall_deliver(const fps_sparse_call *call, const fps_sparse_part *part, const fps_table *t, uint32_t i,
                         const uint8_t *held);

/* Where the row of key i is to be read to; then fps_rowcall_landed. */
static inline uint8_t *fps_rowcall_landing(const fps_sparse_call *call, const fps_sparse_part *part, const fps_table *t,
                                           uint32_t i)
{
    if (call->half_outs != t->layout.stored) return part->batch->sum;
    return call->outs + (uint64_t)fps_rowcall_place(part, i) * t->held[0];
}

static inline void fps_rowcall_landed(const fps_sparse_call *call, const fps_sparse_part *part, const fps_table *t,
                                      uint32_t i)
{
    if (call->half_outs != t->layout.stored) fps_rowcall_deliver(call, part, t, i, part->batch->sum);
}

/* The gradient of distinct key u, which comes several times or is of half precision: the sum over its places, in
 * order. */
const uint8_t *fps_rowcall_sum(const fps_sparse_call *call, const fps_sparse_part *part, const fps_table *t,
                               uint32_t u);

/* The same of any key. */
static inline const uint8_t *fps_rowcall_gradient(const fps_sparse_call *call, const fps_sparse_part *part,
                                                  const fps_table *t, uint32_t u)
{
    const uint32_t i = part->batch->first[u];
    if (call->half_grads || part->batch->next[i] != FPS_BATCH_END) return fps_rowcall_sum(call, part, t, u);
    return call->grads + (uint64_t)fps_rowcall_place(part, i) * t->bytes[0];
}

#endif

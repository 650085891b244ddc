/* Operations on the rows of tables: pull, push, push_pull, set. Whoever has the arena mapped executes them.
 *
 * The row is the unit: it is read and written whole, and a batch of rows is not. Only where rows are created do
 * they come all at once, before anything is applied. Batches are worked on in small blocks: the index's cache lines of
 * the block after the next are on their way while the rows of the next one are asked for and those of this one are
 * read. */
#ifndef FPS_SPARSE_H
#define FPS_SPARSE_H

#include <stdbool.h>
#include <stdint.h>

#include "arena.h"
#include "batch.h"
#include "dense.h"
#include "lock.h"
#include "status.h"

/* One shard's part of an operation. `position` says how far it has come: one that could not be finished goes on from
 * there when it is run again with the same part, in another session when `seq` is 0 then. */
typedef struct fps_sparse_part {
    fps_session *session;
    const uint64_t *keys;
    const uint32_t *places; /* where in the caller's arrays the row of key i belongs; NULL: i */
    uint32_t n;
    fps_batch *batch;  /* of this part alone, until it is done */
    uint32_t position; /* distinct keys behind a push */
    bool done;
    bool applied;     /* what it writes is in all rows; a push_pull may have to read yet */
    bool ready;       /* the batch holds this part's keys and their rows */
    bool begun;       /* the push is counted, and has its uniforms */
    uint64_t seq;     /* of the push in its session; 0: a number is given */
    uint64_t version; /* pushes to the table in this shard, this one included */
    double uniforms[FPS_UNIFORMS];
} fps_sparse_part;

/* An operation on one table: FPS_PULL, FPS_PUSH, FPS_PUSH_PULL, or FPS_SET for the streams of rows. What its kind does
 * not use is not looked at. All arrays are [n, bytes of the stream]. */
typedef struct fps_sparse_call {
    fps_kind kind;
    uint32_t table;
    const uint8_t *grads;
    uint8_t *outs;
    const uint8_t *const *set; /* per stream, NULL: stays as it is */
    const fps_rule *rule;
    double limit, scale; /* of gradients, for kernels that clip */
    bool create;         /* a pull: rows that are missing are created */
    fps_sparse_part *parts;
    uint32_t n_parts;
    fps_wait wait;
} fps_sparse_call;

/* Runs the parts that are not done. On any other answer than FPS_OK `*at` is the part that could not go on. Where there
 * is no room for the new rows of a push (FPS_TABLE_FULL, FPS_NO_MEMORY) nothing is applied on any of the parts; unless
 * it had begun, and others removed rows of it meanwhile: then `position` and `done` say how far it has come. */
fps_status fps_sparse_run(fps_sparse_call *call, uint32_t *at);

#endif

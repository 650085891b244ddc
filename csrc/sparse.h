/* Operations on the rows of tables: pull, push, push_pull, set. Any process that has mapped the arena executes them.
 *
 * Each row is read and written atomically; a batch is not. Only the creation of missing rows is done for all at once,
 * before anything is applied. Batches are processed in small blocks, as a pipeline: while the rows of one block are
 * read, those of the next one and the index's cache lines of the one after that are prefetched. */
#ifndef FPS_SPARSE_H
#define FPS_SPARSE_H

#include <stdbool.h>
#include <stdint.h>

#include "arena.h"
#include "batch.h"
#include "dense.h"
#include "lock.h"
#include "status.h"

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
 * kind does not use are ignored. All arrays are [n, bytes of the stream]. */
typedef struct fps_sparse_call {
    fps_kind kind;
    uint32_t table;
    const uint8_t *grads;
    uint8_t *outs;
    const uint8_t *const *set; /* per stream; NULL: not changed */
    const fps_rule *rule;
    double limit, scale; /* of gradients, for kernels that clip */
    bool create;         /* a pull creates missing rows */
    fps_sparse_part *parts;
    uint32_t n_parts;
    fps_wait wait;
} fps_sparse_call;

/* Runs the parts that are not done. If it does not return FPS_OK, `*at` is the part that stopped. If there is no room
 * for the new rows of a push (FPS_TABLE_FULL, FPS_NO_MEMORY), nothing is applied on any part; unless the push had begun
 * and others removed some of its rows: then `position` and `done` say how far it has come. */
fps_status fps_sparse_run(fps_sparse_call *call, uint32_t *at);

#endif

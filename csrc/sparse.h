/* Operations on the rows of tables: pull, push, push_pull, set. Any process that has mapped the arena executes them.
 *
 * Each row is read and written atomically; a batch is not. Only the creation of missing rows is done for all at once,
 * before anything is applied. Batches are processed in small blocks, as a pipeline: while the rows of one block are
 * read, those of the next one and the index's cache lines of the one after that are prefetched. */
#ifndef FPS_SPARSE_H
#define FPS_SPARSE_H

#include <stdint.h>

#include "rowcall.h"
#include "status.h"

/* Runs the parts that are not done. If it does not return FPS_OK, `*at` is the part that stopped. If there is no room
 * for the new rows of a push (FPS_TABLE_FULL, FPS_NO_MEMORY), nothing is applied on any part; unless the push had begun
 * and others removed some of its rows: then `position` and `done` say how far it has come. */
fps_status fps_sparse_run(fps_sparse_call *call, uint32_t *at);

#endif

/* The rows of a table as a set: which there are, their birth and their end, and the memory that they take.
 *
 * Whoever adds or removes rows holds the table's births lock; nobody else does. Its changes are made in an order that
 * leaves the index right at every moment: a row is complete before the index names it, and nobody's only when the index
 * does not. What else a death leaves (counts, the list of free rows) is made anew from the index. */
#ifndef FPS_TABLE_H
#define FPS_TABLE_H

#include <stdint.h>

#include "arena.h"
#include "lock.h"
#include "status.h"

/* Rows for distinct keys: where rows[i] is FPS_NO_ROW the key's row is found, or born. All of them or none:
 * FPS_TABLE_FULL, FPS_NO_MEMORY, FPS_CLOSED and the like leave the table as it was. */
fps_status fps_table_births(const fps_arena *arena, const fps_table *t, const uint64_t *keys, const uint64_t *hashes,
                            uint32_t n, uint32_t *rows, const fps_wait *wait);

/* Removes the rows of keys; what they held goes to values[k][i] for stream k, NULL for streams that nobody wants.
 * `removed[i]` says whether there was one. `*done` counts keys, from 0. Of a tracked table rows stay that somebody has
 * asked for since tick `since` (fps_row_now), or writes now; with UINT32_MAX all go, when their writers are done. */
fps_status fps_table_remove(const fps_session *session, const fps_table *t, const uint64_t *keys, uint32_t n,
                            uint32_t since, uint8_t *const *values, uint8_t *removed, uint32_t *done,
                            const fps_wait *wait);

/* Changes hyper-parameters, as fps_dense_configure does for the parameters. */
fps_status fps_table_configure(const fps_arena *arena, const fps_table *t, uint32_t which, const double *values,
                               const fps_wait *wait);
void fps_table_hyper(const fps_table *t, double *values);

#endif

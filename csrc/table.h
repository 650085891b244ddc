/* Creation and removal of a table's rows, with the memory that they take, and its hyper-parameters. */
#ifndef FPS_TABLE_H
#define FPS_TABLE_H

#include <stdint.h>

#include "arena.h"
#include "lock.h"
#include "status.h"

/* Rows for distinct keys: where rows[i] is FPS_NO_ROW the key's row is found, or created. All of them or none:
 * FPS_TABLE_FULL, FPS_NO_MEMORY, FPS_CLOSED and the like leave the table as it was. */
fps_status fps_table_create_rows(const fps_arena *arena, const fps_table *t, const uint64_t *keys,
                                 const uint64_t *hashes, uint32_t n, uint32_t *rows, const fps_wait *wait);

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

/* Creation and removal of a table's rows, with their memory; its hyper-parameters, and its state when it continues
 * another one. */
#ifndef FPS_TABLE_H
#define FPS_TABLE_H

#include <stdint.h>

#include "arena.h"
#include "lock.h"
#include "status.h"

/* Finds or creates rows for the distinct keys whose rows[i] is FPS_NO_ROW. All or none: FPS_TABLE_FULL, FPS_NO_MEMORY,
 * FPS_CLOSED and other errors leave the table as it was. */
fps_status fps_table_create_rows(const fps_arena *arena, const fps_table *t, const uint64_t *keys,
                                 const uint64_t *hashes, uint32_t n, uint32_t *rows, const fps_wait *wait);

/* Removes the rows of keys. What they held goes to values[k][i] for stream k, which may be NULL; `removed[i]` says
 * whether there was a row. `*done` counts keys, from 0. In a tracked table, rows that were used after tick `since`
 * (fps_row_now) or are being written stay; with UINT32_MAX all are removed, once their writers are done. */
fps_status fps_table_remove(const fps_session *session, const fps_table *t, const uint64_t *keys, uint32_t n,
                            uint32_t since, uint8_t *const *values, uint8_t *removed, uint32_t *done,
                            const fps_wait *wait);

/* Continues a table that was saved: its update count, and the time in its ticks (fps_row_now). */
fps_status fps_table_resume(const fps_arena *arena, const fps_table *t, uint64_t version, uint32_t now,
                            const fps_wait *wait);

/* Records the use of the rows of keys in a tracked table, two words per key: how many ticks ago, and how often. */
void fps_table_use(const fps_table *t, const uint64_t *keys, uint32_t n, const uint32_t *uses);

/* Changes hyper-parameters, as fps_dense_configure does for the parameters. */
fps_status fps_table_configure(const fps_arena *arena, const fps_table *t, uint32_t which, const double *values,
                               const fps_wait *wait);
void fps_table_hyper(const fps_table *t, double *values);

#endif

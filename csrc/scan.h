/* Looking at the rows of tables: which keys have one, which rows there are, and what is known of them. Changes nothing,
 * and does not count as asking for a row. */
#ifndef FPS_SCAN_H
#define FPS_SCAN_H

#include <stdint.h>

#include "arena.h"
#include "lock.h"
#include "status.h"

/* Which keys have a row: rows[i], or FPS_NO_ROW. It may be another's as soon as this returns. */
void fps_scan_find(const fps_table *t, const uint64_t *keys, uint32_t n, uint32_t *rows);

/* When and how often each key's row was asked for, two words a key: ticks (fps_row_now) and times. 0 without a row, or
 * where nobody keeps account. */
void fps_scan_seen(const fps_table *t, const uint64_t *keys, uint32_t n, uint32_t *seen);

/* Up to `most` rows from row `*cursor` on, which moves behind them: the end of the table when fewer come. streams[k]
 * may be NULL, as may `seen` (two words a row: when, how often). Rows that are created or removed meanwhile may come or
 * not.
 */
fps_status fps_scan_rows(const fps_arena *arena, const fps_table *t, uint64_t *cursor, uint32_t most, uint64_t *keys,
                         uint8_t *const *streams, uint32_t *seen, const fps_wait *wait, uint32_t *n);

#endif

/* Reading the rows of tables without using them: which keys have a row, iteration, what has changed since an earlier
 * one, and when rows were used. Does not count as a use. */
#ifndef FPS_SCAN_H
#define FPS_SCAN_H

#include <stdint.h>

#include "arena.h"
#include "lock.h"
#include "status.h"

/* Which keys have a row: rows[i], or FPS_NO_ROW. It may be another key's as soon as this returns. */
void fps_scan_find(const fps_table *t, const uint64_t *keys, uint32_t n, uint32_t *rows);

/* When and how often each key's row was used, two words per key: ticks (fps_row_now) and times. 0 without a row, or
 * if the table is not tracked. */
void fps_scan_seen(const fps_table *t, const uint64_t *keys, uint32_t n, uint32_t *seen);

/* What a scan asks for: rows that were written, created or, in a tracked table, used since. */
typedef struct fps_since {
    uint32_t epoch; /* of an earlier scan */
    uint32_t tick;  /* when that began */
} fps_since;
#define FPS_SCAN_ALL ((fps_since){0, 0})

/* A table when a scan begins. Every row that is written or created from then on, and is not read by the scan in that
 * state, has this epoch or a later one; the last possible one says nothing more, but remains true. */
typedef struct fps_scan_start {
    uint64_t version; /* the update count */
    uint64_t removed; /* rows, so far */
    uint32_t epoch;
    uint32_t now; /* in ticks */
} fps_scan_start;

fps_status fps_scan_begin(const fps_arena *arena, const fps_table *t, const fps_wait *wait, fps_scan_start *start);

/* The keys of rows that a scan does not ask for. */
typedef struct fps_others {
    uint64_t *keys; /* room for `most` */
    uint32_t n;
} fps_others;

/* Up to `most` rows from row `*cursor` on, which is moved after them; fewer at the end of the table, or when there are
 * `most` others, if these are wanted (not NULL). streams[k] may be
 * NULL, as may `seen` (two words per row: when, how often). Rows that are created or removed meanwhile may be included
 * or not. */
fps_status fps_scan_rows(const fps_arena *arena, const fps_table *t, uint64_t *cursor, uint32_t most, fps_since since,
                         uint64_t *keys, uint8_t *const *streams, uint32_t *seen, fps_others *others,
                         const fps_wait *wait, uint32_t *n);

#endif

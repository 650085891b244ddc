/* The rows of a table that are in use: the lock for adding and removing rows, the search for a key's row, and the list
 * of free rows.
 *
 * The order of changes keeps the index correct at every moment: a row is complete before the index names it, and free
 * only after the index no longer does. After a death, the next holder of the lock rebuilds everything else (counts, the
 * list of free rows) from the index. */
#ifndef FPS_ROWSET_H
#define FPS_ROWSET_H

#include <stdint.h>

#include "arena.h"
#include "lock.h"
#include "status.h"

/* Takes the table's lock. If its holder died, repairs the table first. */
fps_status fps_rowset_enter(const fps_arena *arena, const fps_table *t, const fps_wait *wait);
void fps_rowset_leave(const fps_table *t);

/* The row of a key, or FPS_NO_ROW. With the table's lock held. */
uint32_t fps_rowset_find(const fps_table *t, uint64_t key, uint64_t hash);

/* The same without the lock, during concurrent changes. The row may be another key's as soon as this returns. */
uint32_t fps_rowset_search(const fps_table *t, uint64_t key, uint64_t hash);

/* For the following functions the caller holds the table's lock. */

/* Rows [0, this) have been used. */
uint64_t fps_rowset_used(const fps_table *t);

/* Adds a row that the index does not name to the list of free rows. */
void fps_rowset_free(const fps_table *t, uint32_t row);

/* Clears the free mark of a row that the index names. The mark stays until then: otherwise a process that knows the row
 * from an earlier life of the same key might write to it, and lose that when the row's creator dies. */
void fps_rowset_use(const fps_table *t, uint32_t row);

#endif

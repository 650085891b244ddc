/* Which rows of a table are in use: the lock that whoever adds or removes some holds, the search for a key's row, and
 * the list of free rows.
 *
 * Changes are made in an order that leaves the index right at every moment: a row is complete before the index names
 * it, and free only when the index does not. What else a death leaves behind (counts, the list of free rows) is made
 * anew from the index by whoever takes the lock next. */
#ifndef FPS_ROWSET_H
#define FPS_ROWSET_H

#include <stdint.h>

#include "arena.h"
#include "lock.h"
#include "status.h"

/* Takes the table's lock. If its holder died, what it left is put right first. */
fps_status fps_rowset_enter(const fps_arena *arena, const fps_table *t, const fps_wait *wait);
void fps_rowset_leave(const fps_table *t);

/* The row of a key, FPS_NO_ROW when there is none. With the table's lock held. */
uint32_t fps_rowset_find(const fps_table *t, uint64_t key, uint64_t hash);

/* The same without the lock, whoever adds and removes rows meanwhile. It may be another key's as soon as this returns.
 */
uint32_t fps_rowset_search(const fps_table *t, uint64_t key, uint64_t hash);

/* What follows is for holders of the table's lock. */

/* Rows [0, this) were used at some time. */
uint64_t fps_rowset_used(const fps_table *t);

/* Puts a row that the index does not name on top of the list of free ones. */
void fps_rowset_free(const fps_table *t, uint32_t row);

/* A row that the index names is no longer marked as free. It is so marked until then: whoever knows it from before,
 * when it was the same key's, might else write to a row that the death of its creator takes away again. */
void fps_rowset_use(const fps_table *t, uint32_t row);

#endif

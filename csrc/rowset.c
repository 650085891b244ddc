#include "rowset.h"

#include <stdbool.h>
#include <stdlib.h>

#include "hash.h"
#include "index.h"

uint64_t fps_rowset_used(const fps_table *t)
{
    uint64_t high = fps_load_relaxed(&t->control->high);
    return high < t->layout.max_rows ? high : t->layout.max_rows;
}

void fps_rowset_free(const fps_table *t, uint32_t row)
{
    uint8_t *at = fps_row_at(t, row);
    uint64_t word = fps_load_relaxed(fps_row_word(at));
    fps_store_release(fps_row_word(at), fps_row_next(t, word | FPS_ROW_FREE)); /* SYNC row-sequence */
    atomic_thread_fence(memory_order_release);                                 /* free before it has another key */
    fps_store_relaxed(fps_row_key(at), fps_load_relaxed(&t->control->free));
    fps_store_relaxed(&t->control->free, row + UINT64_C(1));
}

void fps_rowset_use(const fps_table *t, uint32_t row)
{
    fps_word *word = fps_row_word(fps_row_at(t, row));
    const uint64_t found = fps_load_relaxed(word);
    if ((found & FPS_ROW_FREE) != 0)
        fps_store_release(word, fps_row_next(t, found & ~FPS_ROW_FREE)); /* SYNC row-sequence */
}

/* Whether the index names the row: used if there is no memory for a bit per row. */
static bool named(const fps_table *t, uint32_t row)
{
    const uint64_t key = fps_load_relaxed(fps_row_key(fps_row_at(t, row)));
    return fps_rowset_find(t, key, fps_hash(key)) == row;
}

/* Rebuilds what follows from the index: which rows are in use, how many, which are free. */
static void settle(const fps_table *t)
{
    fps_control *control = t->control;
    const uint64_t first = fps_load_relaxed(&control->free); /* or in use, if its creator died between the two */
    if (first != 0 && first <= fps_rowset_used(t) && named(t, (uint32_t)first - 1))
        fps_rowset_use(t, (uint32_t)first - 1);
    const fps_index index = fps_index_of(t, fps_load_relaxed(&control->index));
    const uint64_t room = fps_load_relaxed(&control->rows_backed) / t->layout.row_bytes;
    uint8_t *known = calloc(room / 8 + 1, 1);
    uint64_t live = 0, tombstones = 0, high = fps_rowset_used(t);
    for (uint64_t i = 0; i < (uint64_t)index.n_buckets * FPS_BUCKET_SLOTS; i++) {
        uint64_t slot = fps_load_relaxed(&index.slots[i]);
        tombstones += slot == FPS_SLOT_TOMBSTONE;
        if (slot == FPS_SLOT_EMPTY || slot == FPS_SLOT_TOMBSTONE) continue;
        const uint32_t row = FPS_SLOT_ROW(slot);
        if (row >= room) continue;
        live++;
        if (known) known[row / 8] = (uint8_t)(known[row / 8] | 1u << row % 8);
        if (row >= high) high = row + UINT64_C(1);
    }
    const uint64_t created = fps_load_relaxed(&control->rows_created),
                   removed = fps_load_relaxed(&control->rows_removed);
    if (created - removed < live)
        fps_store_relaxed(&control->rows_created, removed + live); /* it died before it counted them */
    if (created - removed > live) fps_store_relaxed(&control->rows_removed, created - live);
    fps_store_relaxed(&control->live, live);
    fps_store_relaxed(&control->tombstones, tombstones);
    fps_store_release(&control->high, high); /* SYNC row-created */
    fps_store_relaxed(&control->free, 0);
    for (uint64_t row = high; row-- > 0;) {
        if (row < room && !(known ? known[row / 8] >> row % 8 & 1 : named(t, (uint32_t)row)))
            fps_rowset_free(t, (uint32_t)row);
    }
    free(known);
}

fps_status fps_rowset_enter(const fps_arena *arena, const fps_table *t, const fps_wait *wait)
{
    bool abandoned;
    fps_status status = fps_arena_lock(arena, &t->control->lock, wait, &abandoned);
    if (status == FPS_OK && abandoned) {
        atomic_fetch_add_explicit(&arena->header->recovered_locks, 1, memory_order_relaxed);
        if (fps_arena_state(arena) != FPS_CLOSED) settle(t); /* if closed, its memory was freed */
        fps_lock_repaired(&t->control->lock);
    }
    return status;
}

void fps_rowset_leave(const fps_table *t) { fps_lock_release(&t->control->lock); }

uint32_t fps_rowset_find(const fps_table *t, uint64_t key, uint64_t hash)
{
    const fps_index index = fps_index_of(t, fps_load_relaxed(&t->control->index));
    fps_search search;
    for (uint32_t row = fps_index_first(&index, fps_hash_tag(hash), &search); row != FPS_NO_ROW;
         row = fps_index_next(&index, &search)) {
        if (row < t->layout.max_rows && fps_load_relaxed(fps_row_key(fps_row_at(t, row))) == key) return row;
    }
    return FPS_NO_ROW;
}

uint32_t fps_rowset_search(const fps_table *t, uint64_t key, uint64_t hash)
{
    for (;;) {
        const uint64_t word = fps_load_acquire(&t->control->index); /* SYNC index-swap */
        const fps_index index = fps_index_of(t, word);
        fps_search search;
        for (uint32_t row = fps_index_first(&index, fps_hash_tag(hash), &search); row != FPS_NO_ROW;
             row = fps_index_next(&index, &search)) {
            uint8_t *at = fps_row_at(t, row);
            if (row < t->layout.max_rows && fps_load_relaxed(fps_row_key(at)) == key &&
                (fps_load_relaxed(fps_row_word(at)) & FPS_ROW_FREE) == 0)
                return row;
        }
        atomic_thread_fence(memory_order_acquire);
        if (fps_load_relaxed(&t->control->index) == word) return FPS_NO_ROW; /* SYNC index-swap */
    }
}

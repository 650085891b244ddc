#define _GNU_SOURCE
#include "table.h"

#include <stdlib.h>
#include <string.h>

#include "hash.h"
#include "hyper.h"
#include "index.h"
#include "initial.h"
#include "row.h"

#define AHEAD 16u /* keys whose bucket is asked for before it is needed */

static uint64_t used(const fps_table *t)
{
    uint64_t high = fps_load_relaxed(&t->control->high);
    return high < t->layout.max_rows ? high : t->layout.max_rows;
}

/* The row becomes nobody's: the first of those that wait for a key. */
static void bury(const fps_table *t, uint32_t row)
{
    uint8_t *at = fps_row_at(t, row);
    uint64_t word = fps_load_relaxed(fps_row_word(at));
    fps_store_release(fps_row_word(at),
                      ((word & ~UINT64_C(0xfff)) | FPS_ROW_DEAD) + FPS_ROW_ONCE); /* SYNC row-sequence */
    atomic_thread_fence(memory_order_release);                                    /* dead before it has another key */
    fps_store_relaxed(fps_row_key(at), fps_load_relaxed(&t->control->free));
    fps_store_relaxed(&t->control->free, row + UINT64_C(1));
}

/* Does the index name the row? For when there is no memory to remember them all. */
static bool named(const fps_table *t, uint32_t row)
{
    const uint64_t key = fps_load_relaxed(fps_row_key(fps_row_at(t, row)));
    return fps_table_find(t, key, fps_hash(key)) == row;
}

/* The row is its key's. It is dead until the index names it: else whoever knows it from before, when it was the same
 * key's, might write to a row that the death of its maker takes away again. */
static void revive(const fps_table *t, uint32_t row)
{
    fps_word *word = fps_row_word(fps_row_at(t, row));
    const uint64_t found = fps_load_relaxed(word);
    if ((found & FPS_ROW_DEAD) != 0) fps_store_release(word, found & ~FPS_ROW_DEAD); /* SYNC row-sequence */
}

/* What follows from the index: which rows are in use, how many, which are free. */
static void settle(const fps_table *t)
{
    fps_control *control = t->control;
    const uint64_t first = fps_load_relaxed(&control->free); /* or about to be born, when its maker died */
    if (first != 0 && first <= used(t) && named(t, (uint32_t)first - 1)) revive(t, (uint32_t)first - 1);
    const fps_index index = fps_index_of(t, fps_load_relaxed(&control->index));
    const uint64_t room = fps_load_relaxed(&control->rows_backed) / t->layout.row_bytes;
    uint8_t *known = calloc(room / 8 + 1, 1);
    uint64_t live = 0, graves = 0, high = used(t);
    for (uint64_t i = 0; i < (uint64_t)index.n_buckets * FPS_BUCKET_SLOTS; i++) {
        uint64_t slot = fps_load_relaxed(&index.slots[i]);
        graves += slot == FPS_SLOT_GRAVE;
        if (slot == FPS_SLOT_EMPTY || slot == FPS_SLOT_GRAVE) continue;
        const uint32_t row = FPS_SLOT_ROW(slot);
        if (row >= room) continue;
        live++;
        if (known) known[row / 8] = (uint8_t)(known[row / 8] | 1u << row % 8);
        if (row >= high) high = row + UINT64_C(1);
    }
    const uint64_t born = fps_load_relaxed(&control->born), evicted = fps_load_relaxed(&control->evicted);
    if (born - evicted < live) fps_store_relaxed(&control->born, evicted + live); /* it died before it was counted */
    if (born - evicted > live) fps_store_relaxed(&control->evicted, born - live);
    fps_store_relaxed(&control->live, live);
    fps_store_relaxed(&control->graves, graves);
    fps_store_release(&control->high, high); /* SYNC row-born */
    fps_store_relaxed(&control->free, 0);
    for (uint64_t row = high; row-- > 0;) {
        if (row < room && !(known ? known[row / 8] >> row % 8 & 1 : named(t, (uint32_t)row))) bury(t, (uint32_t)row);
    }
    free(known);
}

fps_status fps_table_enter(const fps_arena *arena, const fps_table *t, const fps_wait *wait)
{
    bool abandoned;
    fps_status status = fps_arena_lock(arena, &t->control->births, wait, &abandoned);
    if (status == FPS_OK && abandoned) {
        atomic_fetch_add_explicit(&arena->header->recovered_locks, 1, memory_order_relaxed);
        if (fps_arena_state(arena) != FPS_CLOSED) settle(t); /* its memory was given back */
        fps_lock_repaired(&t->control->births);
    }
    return status;
}

void fps_table_leave(const fps_table *t) { fps_lock_release(&t->control->births); }

uint32_t fps_table_find(const fps_table *t, uint64_t key, uint64_t hash)
{
    const fps_index index = fps_index_of(t, fps_load_relaxed(&t->control->index));
    fps_search search;
    for (uint32_t row = fps_index_first(&index, fps_hash_tag(hash), &search); row != FPS_NO_ROW;
         row = fps_index_next(&index, &search)) {
        if (row < t->layout.max_rows && fps_load_relaxed(fps_row_key(fps_row_at(t, row))) == key) return row;
    }
    return FPS_NO_ROW;
}

uint32_t fps_table_search(const fps_table *t, uint64_t key, uint64_t hash)
{
    for (;;) {
        const uint64_t word = fps_load_acquire(&t->control->index); /* SYNC index-swap */
        const fps_index index = fps_index_of(t, word);
        fps_search search;
        for (uint32_t row = fps_index_first(&index, fps_hash_tag(hash), &search); row != FPS_NO_ROW;
             row = fps_index_next(&index, &search)) {
            uint8_t *at = fps_row_at(t, row);
            if (row < t->layout.max_rows && fps_load_relaxed(fps_row_key(at)) == key &&
                (fps_load_relaxed(fps_row_word(at)) & FPS_ROW_DEAD) == 0)
                return row;
        }
        atomic_thread_fence(memory_order_acquire);
        if (fps_load_relaxed(&t->control->index) == word) return FPS_NO_ROW; /* SYNC index-swap */
    }
}

/* Finds what others have added meanwhile; answers how many are missing. */
static uint64_t find_all(const fps_table *t, const uint64_t *keys, const uint64_t *hashes, uint32_t n, uint32_t *rows)
{
    const fps_index index = fps_index_of(t, fps_load_relaxed(&t->control->index));
    uint64_t missing = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (i + AHEAD < n && index.n_buckets > 0 && rows[i + AHEAD] == FPS_NO_ROW)
            fps_index_prefetch(&index, fps_hash_tag(hashes[i + AHEAD]));
        if (rows[i] == FPS_NO_ROW) rows[i] = fps_table_find(t, keys[i], hashes[i]);
        missing += rows[i] == FPS_NO_ROW;
    }
    return missing;
}

/* The row as a key finds it at first, before anybody knows of it. */
static void begin(const fps_table *t, uint32_t row, uint64_t key)
{
    uint8_t *at = fps_row_at(t, row);
    fps_store_relaxed(fps_row_key(at), key);
    fps_initial_fill(&t->layout, key, at + t->at[0]);
    for (uint32_t k = 1; k <= t->layout.n_slots; k++) {
        const double value = t->layout.slots[k - 1];
        const float narrow = (float)value;
        for (uint32_t i = 0; i < t->bytes[k]; i += t->layout.item_bytes) {
            if (t->layout.item_bytes == sizeof value)
                memcpy(at + t->at[k] + i, &value, sizeof value);
            else
                memcpy(at + t->at[k] + i, &narrow, sizeof narrow);
        }
    }
    if (t->layout.tracked) {
        fps_store32_relaxed(fps_row_seen(at), fps_row_now(t));
        fps_store32_relaxed(fps_row_count(at), 0);
    }
}

static uint32_t birth(const fps_table *t, uint64_t key, uint64_t hash)
{
    fps_control *control = t->control;
    const uint64_t first_free = fps_load_relaxed(&control->free), high = fps_load_relaxed(&control->high);
    const uint32_t row = (uint32_t)(first_free != 0 ? first_free - 1 : high);
    const uint64_t next_free = first_free != 0 ? fps_load_relaxed(fps_row_key(fps_row_at(t, row))) : 0;
    begin(t, row, key);
    fps_index_insert(t, fps_hash_tag(hash), row);
    atomic_signal_fence(memory_order_seq_cst); /* a death behind this line is put right by settle */
    revive(t, row);
    atomic_signal_fence(memory_order_seq_cst); /* which looks for the row where it was */
    if (first_free != 0)
        fps_store_relaxed(&control->free, next_free);
    else
        fps_store_release(&control->high, high + 1); /* SYNC row-born */
    fps_count(&control->live, 1);
    fps_count(&control->born, 1);
    return row;
}

/* What `more` rows need, of which some may be free ones. */
static uint64_t bytes_for(const fps_table *t, uint64_t more)
{
    const uint64_t high = used(t), live = fps_load_relaxed(&t->control->live), idle = high > live ? high - live : 0;
    return more <= idle ? 0 : (high + more - idle) * t->layout.row_bytes;
}

static bool backed_for(const fps_table *t, uint64_t more)
{
    return fps_index_has_room(t, more) && bytes_for(t, more) <= fps_load_relaxed(&t->control->rows_backed);
}

static fps_status reserve_rows(const fps_arena *arena, const fps_table *t, uint64_t more)
{
    fps_control *control = t->control;
    uint64_t backed = fps_load_relaxed(&control->rows_backed);
    fps_status status = fps_arena_extend(arena, t->rows, bytes_for(t, more), &backed);
    fps_store_relaxed(&control->rows_backed, backed);
    return status;
}

static bool room_for(const fps_table *t, uint64_t more)
{
    const uint64_t live = fps_load_relaxed(&t->control->live);
    return more <= t->layout.max_rows && live <= t->layout.max_rows - more;
}

/* Finds or makes the rows that are missing, for which there is room. */
static void bear_all(const fps_table *t, const uint64_t *keys, const uint64_t *hashes, uint32_t n, uint32_t *rows,
                     bool looked)
{
    const fps_index index = fps_index_of(t, fps_load_relaxed(&t->control->index));
    for (uint32_t i = 0; i < n; i++) {
        if (i + AHEAD < n && rows[i + AHEAD] == FPS_NO_ROW) fps_index_prefetch(&index, fps_hash_tag(hashes[i + AHEAD]));
        if (rows[i] != FPS_NO_ROW) continue;
        if (!looked) rows[i] = fps_table_find(t, keys[i], hashes[i]);
        if (rows[i] == FPS_NO_ROW) rows[i] = birth(t, keys[i], hashes[i]);
    }
}

fps_status fps_table_births(const fps_arena *arena, const fps_table *t, const uint64_t *keys, const uint64_t *hashes,
                            uint32_t n, uint32_t *rows, const fps_wait *wait)
{
    fps_status status = fps_table_enter(arena, t, wait);
    if (status != FPS_OK) return status;
    status = fps_arena_state(arena); /* closed while we waited: its memory was given back */
    uint64_t missing = 0;
    for (uint32_t i = 0; i < n; i++) missing += rows[i] == FPS_NO_ROW;
    /* Others may have added some of them: that matters where room or memory is short. */
    const bool looked = status == FPS_OK && !(room_for(t, missing) && backed_for(t, missing));
    if (looked) missing = find_all(t, keys, hashes, n, rows);
    if (looked && !room_for(t, missing)) status = FPS_TABLE_FULL;
    if (status == FPS_OK) status = fps_index_reserve(arena, t, missing);
    if (status == FPS_OK) status = reserve_rows(arena, t, missing);
    if (status == FPS_OK) bear_all(t, keys, hashes, n, rows, looked);
    fps_table_leave(t);
    return status;
}

/* Takes the row's lock and the row out of the index. With the births lock held, its key cannot change. The row stays
 * when somebody has asked for it since (FPS_ALREADY), or writes it (FPS_BUSY). */
static fps_status remove_row(const fps_session *session, const fps_table *t, uint64_t key, uint64_t hash, uint32_t row,
                             uint32_t since, uint8_t *const *values, uint32_t i)
{
    uint64_t word;
    fps_status status = fps_row_try(session, t, row, key, &word);
    if (status != FPS_OK) return status;
    if (since != UINT32_MAX && t->layout.tracked && fps_load32_relaxed(fps_row_seen(fps_row_at(t, row))) > since) {
        fps_row_leave(t, row, word);
        return FPS_ALREADY;
    }
    for (uint32_t k = 0; k <= t->layout.n_slots; k++) {
        if (values && values[k])
            memcpy(values[k] + (uint64_t)i * t->bytes[k], fps_row_at(t, row) + t->at[k], t->bytes[k]);
    }
    fps_index_remove(t, fps_hash_tag(hash), row);
    atomic_signal_fence(memory_order_seq_cst); /* a death behind this line is put right by settle */
    bury(t, row);
    fps_store_relaxed(&t->control->live, fps_load_relaxed(&t->control->live) - 1);
    fps_count(&t->control->evicted, 1);
    return FPS_OK;
}

/* Up to the first row that somebody writes: FPS_BUSY, and `*busy` is that row. */
static fps_status remove_some(const fps_session *session, const fps_table *t, const uint64_t *keys, uint32_t n,
                              uint32_t since, uint8_t *const *values, uint8_t *removed, uint32_t *done, uint32_t *busy)
{
    for (; *done < n; ++*done) {
        const uint64_t hash = fps_hash(keys[*done]);
        *busy = fps_table_find(t, keys[*done], hash);
        removed[*done] = 0;
        if (*busy == FPS_NO_ROW) continue;
        fps_status status = remove_row(session, t, keys[*done], hash, *busy, since, values, *done);
        if (status == FPS_BUSY && since != UINT32_MAX) status = FPS_ALREADY; /* it is asked for now */
        if (status != FPS_OK && status != FPS_ALREADY) return status;
        removed[*done] = status == FPS_OK;
    }
    return FPS_OK;
}

/* Births go on while it waits for a writer. */
fps_status fps_table_remove(const fps_session *session, const fps_table *t, const uint64_t *keys, uint32_t n,
                            uint32_t since, uint8_t *const *values, uint8_t *removed, uint32_t *done,
                            const fps_wait *wait)
{
    const fps_header *header = session->arena->header;
    for (fps_waiting w = fps_waiting_for(FPS_WAIT_ROW, wait, header);;) {
        const uint32_t before = *done;
        uint32_t row = FPS_NO_ROW;
        fps_status status = fps_table_enter(session->arena, t, wait);
        if (status != FPS_OK) return status;
        status = fps_arena_state(session->arena);
        if (status == FPS_OK) status = remove_some(session, t, keys, n, since, values, removed, done, &row);
        fps_table_leave(t);
        if (status != FPS_BUSY) return status;
        if (*done != before) w = fps_waiting_for(FPS_WAIT_ROW, wait, header);
        status = fps_row_wait(session->arena, t, row, &w);
        if (status != FPS_OK) return status;
    }
}

void fps_table_hyper(const fps_table *t, double *values) { fps_hyper_read(&t->control->hyper, values); }

fps_status fps_table_configure(const fps_arena *arena, const fps_table *t, uint32_t which, const double *values,
                               const fps_wait *wait)
{
    fps_status status = fps_table_enter(arena, t, wait);
    if (status != FPS_OK) return status;
    status = fps_arena_state(arena);
    if (status == FPS_OK) fps_hyper_change(&t->control->hyper, which, values);
    fps_table_leave(t);
    return status;
}

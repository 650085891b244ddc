#define _GNU_SOURCE
#include "table.h"

#include <stdlib.h>
#include <string.h>

#include "hash.h"
#include "hyper.h"
#include "index.h"
#include "initial.h"
#include "row.h"
#include "rowset.h"

#define AHEAD 16u /* keys whose buckets are prefetched */

/* Finds rows that others have added meanwhile; returns how many are missing. */
static uint64_t find_all(const fps_table *t, const uint64_t *keys, const uint64_t *hashes, uint32_t n, uint32_t *rows)
{
    const fps_index index = fps_index_of(t, fps_load_relaxed(&t->control->index));
    uint64_t missing = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (i + AHEAD < n && index.n_buckets > 0 && rows[i + AHEAD] == FPS_NO_ROW)
            fps_index_prefetch(&index, fps_hash_tag(hashes[i + AHEAD]));
        if (rows[i] == FPS_NO_ROW) rows[i] = fps_rowset_find(t, keys[i], hashes[i]);
        missing += rows[i] == FPS_NO_ROW;
    }
    return missing;
}

/* Writes the initial state of a row, before it is in the index. */
static void initialise(const fps_table *t, uint32_t row, uint64_t key)
{
    uint8_t *at = fps_row_at(t, row);
    fps_store_relaxed(fps_row_key(at), key);
    if ((fps_load_relaxed(fps_row_word(at)) & FPS_ROW_FREE) == 0) /* it never had a key */
        fps_store_relaxed(fps_row_word(at), fps_row_next(t, 0));
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

/* FPS_NO_ROW: the counters are damaged, and name none. */
static uint32_t create(const fps_table *t, uint64_t key, uint64_t hash)
{
    fps_control *control = t->control;
    const uint64_t first_free = fps_load_relaxed(&control->free), high = fps_load_relaxed(&control->high);
    const uint64_t next = first_free != 0 ? first_free - 1 : high;
    if (next >= t->layout.max_rows) return FPS_NO_ROW;
    const uint32_t row = (uint32_t)next;
    const uint64_t next_free = first_free != 0 ? fps_load_relaxed(fps_row_key(fps_row_at(t, row))) : 0;
    initialise(t, row, key);
    fps_index_insert(t, fps_hash_tag(hash), row);
    atomic_signal_fence(memory_order_seq_cst); /* a death after this line is repaired by settle */
    fps_rowset_use(t, row);
    atomic_signal_fence(memory_order_seq_cst); /* which looks for the row at `free` */
    if (first_free != 0)
        fps_store_relaxed(&control->free, next_free);
    else
        fps_store_release(&control->high, high + 1); /* SYNC row-created */
    fps_count(&control->live, 1);
    fps_count(&control->rows_created, 1);
    return row;
}

/* The memory for `more` rows, some of which may be free ones. */
static uint64_t bytes_for(const fps_table *t, uint64_t more)
{
    const uint64_t high = fps_rowset_used(t), live = fps_load_relaxed(&t->control->live),
                   idle = high > live ? high - live : 0;
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

/* Finds or creates the missing rows, for which there is room. */
static fps_status create_all(const fps_table *t, const uint64_t *keys, const uint64_t *hashes, uint32_t n,
                             uint32_t *rows, bool looked)
{
    const fps_index index = fps_index_of(t, fps_load_relaxed(&t->control->index));
    for (uint32_t i = 0; i < n; i++) {
        if (i + AHEAD < n && rows[i + AHEAD] == FPS_NO_ROW) fps_index_prefetch(&index, fps_hash_tag(hashes[i + AHEAD]));
        if (rows[i] != FPS_NO_ROW) continue;
        if (!looked) rows[i] = fps_rowset_find(t, keys[i], hashes[i]);
        if (rows[i] == FPS_NO_ROW) rows[i] = create(t, keys[i], hashes[i]);
        if (rows[i] == FPS_NO_ROW) return FPS_BROKEN_LOCK;
    }
    return FPS_OK;
}

fps_status fps_table_create_rows(const fps_arena *arena, const fps_table *t, const uint64_t *keys,
                                 const uint64_t *hashes, uint32_t n, uint32_t *rows, const fps_wait *wait)
{
    fps_status status = fps_rowset_enter(arena, t, wait);
    if (status != FPS_OK) return status;
    status = fps_arena_state(arena); /* closed during the wait: its memory was freed */
    uint64_t missing = 0;
    for (uint32_t i = 0; i < n; i++) missing += rows[i] == FPS_NO_ROW;
    /* Others may have added some of them, which matters if room or memory is short. */
    const bool looked = status == FPS_OK && !(room_for(t, missing) && backed_for(t, missing));
    if (looked) missing = find_all(t, keys, hashes, n, rows);
    if (looked && !room_for(t, missing)) status = FPS_TABLE_FULL;
    if (status == FPS_OK) status = fps_index_reserve(arena, t, missing);
    if (status == FPS_OK) status = reserve_rows(arena, t, missing);
    if (status == FPS_OK) status = create_all(t, keys, hashes, n, rows, looked);
    fps_rowset_leave(t);
    return status;
}

/* Takes the row's lock and removes the row from the index. With the table's lock held, its key cannot change. The row
 * stays if it was used since (FPS_ALREADY), or is being written (FPS_BUSY). */
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
    atomic_signal_fence(memory_order_seq_cst); /* a death after this line is repaired by settle */
    fps_rowset_free(t, row);
    fps_store_relaxed(&t->control->live, fps_load_relaxed(&t->control->live) - 1);
    fps_count(&t->control->rows_removed, 1);
    return FPS_OK;
}

/* Stops at the first row that is being written: FPS_BUSY, and `*busy` is that row. */
static fps_status remove_some(const fps_session *session, const fps_table *t, const uint64_t *keys, uint32_t n,
                              uint32_t since, uint8_t *const *values, uint8_t *removed, uint32_t *done, uint32_t *busy)
{
    for (; *done < n; ++*done) {
        const uint64_t hash = fps_hash(keys[*done]);
        *busy = fps_rowset_find(t, keys[*done], hash);
        removed[*done] = 0;
        if (*busy == FPS_NO_ROW) continue;
        fps_status status = remove_row(session, t, keys[*done], hash, *busy, since, values, *done);
        if (status == FPS_BUSY && since != UINT32_MAX) status = FPS_ALREADY; /* it is being used */
        if (status != FPS_OK && status != FPS_ALREADY) return status;
        removed[*done] = status == FPS_OK;
    }
    return FPS_OK;
}

/* Does not hold the table's lock while it waits for a writer. */
fps_status fps_table_remove(const fps_session *session, const fps_table *t, const uint64_t *keys, uint32_t n,
                            uint32_t since, uint8_t *const *values, uint8_t *removed, uint32_t *done,
                            const fps_wait *wait)
{
    const fps_header *header = session->arena->header;
    for (fps_waiting w = fps_waiting_for(FPS_WAIT_ROW, wait, header);;) {
        const uint32_t before = *done;
        uint32_t row = FPS_NO_ROW;
        fps_status status = fps_rowset_enter(session->arena, t, wait);
        if (status != FPS_OK) return status;
        status = fps_arena_state(session->arena);
        if (status == FPS_OK) status = remove_some(session, t, keys, n, since, values, removed, done, &row);
        fps_rowset_leave(t);
        if (status != FPS_BUSY) return status;
        if (*done != before) w = fps_waiting_for(FPS_WAIT_ROW, wait, header);
        status = fps_row_wait(session->arena, t, row, &w);
        if (status != FPS_OK) return status;
    }
}

fps_status fps_table_resume(const fps_arena *arena, const fps_table *t, uint64_t version, uint32_t now,
                            const fps_wait *wait)
{
    fps_status status = fps_rowset_enter(arena, t, wait);
    if (status != FPS_OK) return status;
    status = fps_arena_state(arena);
    if (status == FPS_OK) {
        fps_store_relaxed(&t->control->version, version);
        fps_store_relaxed(&t->control->created_ns, (uint64_t)(fps_now_ns() - (int64_t)(now - 1) * FPS_TICK_NS));
    }
    fps_rowset_leave(t);
    return status;
}

/* A row that is removed meanwhile may be another key's: then that one counts as used at another time. */
void fps_table_use(const fps_table *t, const uint64_t *keys, uint32_t n, const uint32_t *uses)
{
    const uint32_t now = fps_row_now(t);
    for (uint32_t i = 0; i < n && t->layout.tracked; i++) {
        const uint32_t row = fps_rowset_search(t, keys[i], fps_hash(keys[i]));
        if (row == FPS_NO_ROW) continue;
        fps_store32_relaxed(fps_row_seen(fps_row_at(t, row)), uses[2 * i] < now ? now - uses[2 * i] : 1);
        fps_store32_relaxed(fps_row_count(fps_row_at(t, row)), uses[2 * i + 1]);
    }
}

void fps_table_hyper(const fps_table *t, double *values) { fps_hyper_read(&t->control->hyper, values); }

fps_status fps_table_configure(const fps_arena *arena, const fps_table *t, uint32_t which, const double *values,
                               const fps_wait *wait)
{
    fps_status status = fps_rowset_enter(arena, t, wait);
    if (status != FPS_OK) return status;
    status = fps_arena_state(arena);
    if (status == FPS_OK) fps_hyper_change(&t->control->hyper, which, values);
    fps_rowset_leave(t);
    return status;
}

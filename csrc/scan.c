#include "scan.h"

#include "hash.h"
#include "index.h"
#include "row.h"
#include "rowset.h"
#include "stored.h"

void fps_scan_find(const fps_table *t, const uint64_t *keys, uint32_t n, uint32_t *rows)
{
    for (uint32_t i = 0; i < n; i++) rows[i] = fps_rowset_search(t, keys[i], fps_hash(keys[i]));
}

void fps_scan_seen(const fps_table *t, const uint64_t *keys, uint32_t n, uint32_t *seen)
{
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t row = t->layout.tracked ? fps_rowset_search(t, keys[i], fps_hash(keys[i])) : FPS_NO_ROW;
        seen[2 * i] = row == FPS_NO_ROW ? 0 : fps_load32_relaxed(fps_row_seen(fps_row_at(t, row)));
        seen[2 * i + 1] = row == FPS_NO_ROW ? 0 : fps_load32_relaxed(fps_row_count(fps_row_at(t, row)));
    }
}

/* Under the lock: a row is created before, and then found, or afterwards. */
fps_status fps_scan_begin(const fps_arena *arena, const fps_table *t, const fps_wait *wait, fps_scan_start *start)
{
    fps_control *control = t->control;
    fps_status status = fps_rowset_enter(arena, t, wait);
    if (status != FPS_OK) return status;
    status = fps_arena_state(arena);
    if (status == FPS_OK) {
        if (fps_load_relaxed(&control->epoch) < FPS_ROW_LAST_EPOCH)
            atomic_fetch_add_explicit(&control->epoch, 1, memory_order_seq_cst); /* SYNC row-epoch */
        *start = (fps_scan_start){
            .version = fps_load_relaxed(&control->version),
            .removed = fps_load_relaxed(&control->rows_removed),
            .epoch = (uint32_t)fps_load_relaxed(&control->epoch),
            .now = fps_row_now(t),
        };
    }
    fps_rowset_leave(t);
    return status;
}

/* Whether a row that nobody writes, with this word, is asked for. */
static bool asked_for(const fps_table *t, uint8_t *at, uint64_t word, fps_since since)
{
    if (FPS_ROW_EPOCH(word) >= since.epoch) return true;
    return t->layout.tracked && fps_load32_relaxed(fps_row_seen(at)) >= since.tick;
}

/* Reads the key of a row whose word is `before`; false if it is not any more. */
static bool is_still(uint8_t *at, uint64_t before, uint64_t *key)
{
    *key = fps_load_relaxed(fps_row_key(at));
    atomic_thread_fence(memory_order_acquire);
    return fps_load_relaxed(fps_row_word(at)) == before; /* SYNC row-sequence */
}

static uint8_t *landing(const fps_table *t, uint32_t stream, uint8_t *const *streams, uint32_t n)
{
    return fps_stored_landing(t, stream, streams[stream] + (uint64_t)n * t->bytes[stream]);
}

/* One row with everything that was requested. */
static fps_status scan_row(const fps_arena *arena, const fps_table *t, uint32_t row, uint32_t n, fps_since since,
                           uint64_t *keys, uint8_t *const *streams, uint32_t *seen, fps_others *others,
                           const fps_wait *wait)
{
    uint8_t *at = fps_row_at(t, row);
    bool whole = false; /* the key and its use can be read while the row is written */
    for (uint32_t k = 0; k <= t->layout.n_slots; k++) whole |= streams[k] != NULL;
    for (fps_waiting w = fps_waiting_for(FPS_WAIT_ROW, wait, arena->header);;) {
        const uint64_t before =
            atomic_load_explicit(fps_row_word(at), memory_order_seq_cst); /* SYNC row-sequence, row-epoch */
        if ((before & FPS_ROW_FREE) != 0) return FPS_ALREADY;
        if (FPS_ROW_WRITER(before) == 0 && !asked_for(t, at, before, since)) {
            if (!others || is_still(at, before, others->keys + others->n)) {
                if (others) others->n++;
                return FPS_ALREADY;
            }
            continue; /* it has been written meanwhile */
        }
        fps_read got = whole && FPS_ROW_WRITER(before) != 0 ? FPS_READ_BUSY : FPS_READ_DONE;
        keys[n] = fps_load_relaxed(fps_row_key(at));
        for (uint32_t k = 0; k <= t->layout.n_slots && got == FPS_READ_DONE; k++)
            if (streams[k]) got = fps_row_read(t, row, keys[n], landing(t, k, streams, n), t->at[k], t->held[k], false);
        if (seen && t->layout.tracked) {
            seen[2 * n] = fps_load32_relaxed(fps_row_seen(at));
            seen[2 * n + 1] = fps_load32_relaxed(fps_row_count(at));
        }
        atomic_thread_fence(memory_order_acquire);
        const uint64_t behind = fps_load_relaxed(fps_row_word(at)); /* SYNC row-sequence */
        if (!whole && (behind & FPS_ROW_FREE) == 0 && fps_load_relaxed(fps_row_key(at)) == keys[n]) return FPS_OK;
        if (whole && got == FPS_READ_DONE && behind == before) {
            for (uint32_t k = 0; k <= t->layout.n_slots; k++)
                if (streams[k]) fps_stored_landed(t, k, streams[k] + (uint64_t)n * t->bytes[k]);
            return FPS_OK;
        }
        fps_status status = fps_row_wait(arena, t, row, &w);
        if (status != FPS_OK) return status;
    }
}

fps_status fps_scan_rows(const fps_arena *arena, const fps_table *t, uint64_t *cursor, uint32_t most, fps_since since,
                         uint64_t *keys, uint8_t *const *streams, uint32_t *seen, fps_others *others,
                         const fps_wait *wait, uint32_t *n)
{
    fps_status status = fps_arena_state(arena);
    uint64_t high = fps_load_acquire(&t->control->high); /* SYNC row-created */
    if (high > t->layout.max_rows) high = t->layout.max_rows;
    *n = 0;
    if (others) others->n = 0;
    for (; status == FPS_OK && *cursor < high && *n < most && !(others && others->n == most); ++*cursor) {
        status = scan_row(arena, t, (uint32_t)*cursor, *n, since, keys, streams, seen, others, wait);
        if (status == FPS_OK)
            ++*n;
        else if (status == FPS_ALREADY)
            status = FPS_OK;
        if (status != FPS_OK) break;
    }
    atomic_thread_fence(memory_order_acquire);
    return status == FPS_OK ? fps_arena_state(arena) : status;
}

#include "row.h"

#include "life.h"
#include "rowset.h"

/* Repairs a row whose writer died. The caller holds the table's lock, so no other process repairs it. The writer's mark
 * stays until the row is complete, so a repair that dies is repeated. */
static void finish(const fps_arena *arena, const fps_table *t, uint32_t row, uint32_t seat, uint64_t seen)
{
    fps_word *word = fps_row_word(fps_row_at(t, row));
    if (fps_load_acquire(word) != seen) return; /* SYNC row-handover: released before the seat's owner ended */
    fps_redo_finish_row(arena, seat, t, row);
    atomic_fetch_add_explicit(&arena->header->recovered_locks, 1, memory_order_relaxed);
    fps_store_release(word, fps_row_next(t, seen)); /* SYNC repaired, row-handover, row-sequence */
}

/* Nobody can own the seat while its life lock is blocked, so a lock of the seat on the row is then that of an owner
 * that has ended. */
static void finish_if_deserted(const fps_arena *arena, const fps_table *t, uint32_t row, uint32_t seat)
{
    pthread_mutex_t *life = &arena->seats[seat].life;
    const uint64_t seen = fps_load_acquire(fps_row_word(fps_row_at(t, row))); /* SYNC row-handover */
    if (FPS_ROW_WRITER(seen) != seat + 1 || !fps_life_block(life)) return;
    finish(arena, t, row, seat, seen);
    fps_life_unblock(life);
}

static fps_status repair(const fps_arena *arena, const fps_table *t, uint32_t row, uint32_t seat, const fps_wait *wait)
{
    fps_status status = fps_rowset_enter(arena, t, wait);
    if (status != FPS_OK) return status;
    finish_if_deserted(arena, t, row, seat);
    fps_rowset_leave(t);
    return FPS_OK;
}

fps_status fps_row_wait(const fps_arena *arena, const fps_table *t, uint32_t row, fps_waiting *w)
{
    const uint32_t writer = FPS_ROW_WRITER(fps_load_relaxed(fps_row_word(fps_row_at(t, row))));
    if (writer == 0) return FPS_OK;
    if (writer > arena->layout.n_sessions) return FPS_BROKEN_LOCK;
    if (fps_life_ended(&arena->seats[writer - 1].life)) return repair(arena, t, row, writer - 1, w->wait);
    return fps_waiting_step(w);
}

fps_status fps_row_read_surely(const fps_arena *arena, const fps_table *t, uint32_t row, uint64_t key, uint8_t *to,
                               uint32_t from, uint32_t bytes, const fps_wait *wait)
{
    for (fps_waiting w = fps_waiting_for(FPS_WAIT_ROW, wait, arena->header);;) {
        const fps_read got = fps_row_read(t, row, key, to, from, bytes, false);
        if (got != FPS_READ_BUSY) return got == FPS_READ_DONE ? FPS_OK : FPS_ALREADY;
        fps_status status = fps_row_wait(arena, t, row, &w);
        if (status != FPS_OK) return status;
    }
}

/* The row that a session's record names, if the session holds it, and its table; NULL if there is none. */
static const fps_table *written(const fps_arena *arena, uint32_t seat, uint32_t *row)
{
    const fps_table *t = fps_redo_named_row(arena, seat, row);
    if (!t) return NULL;
    const uint64_t found = fps_load_acquire(fps_row_word(fps_row_at(t, *row))); /* SYNC repaired */
    return FPS_ROW_WRITER(found) == seat + 1 ? t : NULL;
}

const fps_table *fps_row_written(const fps_arena *arena, uint32_t seat)
{
    uint32_t row;
    return written(arena, seat, &row);
}

fps_status fps_row_repair(const fps_arena *arena, uint32_t seat, const fps_wait *wait)
{
    uint32_t row;
    const fps_table *t = written(arena, seat, &row);
    return t ? repair(arena, t, row, seat, wait) : FPS_OK;
}

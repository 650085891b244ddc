#include "row.h"

#include "life.h"
#include "table.h"

/* The repair of a row of the dead, with the births lock held so that nobody else is at it: the writer's mark stays
 * until the row is whole, so a repair that dies is begun again. */
static void finish(const fps_arena *arena, const fps_table *t, uint32_t row, uint32_t seat)
{
    fps_seat *dead = &arena->seats[seat];
    fps_word *word = fps_row_word(fps_row_at(t, row));
    uint64_t found = fps_load_acquire(word), record = fps_load_acquire(&dead->writes); /* SYNC row-committed */
    if (FPS_ROW_WRITER(found) != seat + 1) return;
    if (record == (FPS_WRITES(t->number, row) | FPS_WRITES_COMMITTED)) {
        memcpy(fps_row_at(t, row) + t->head_bytes, fps_row_redo(arena, seat), t->layout.row_bytes - t->head_bytes);
        fps_store_release(&dead->writes, FPS_WRITES(t->number, row));
        fps_count(&dead->rows_done, 1);
    }
    atomic_fetch_add_explicit(&arena->header->recovered_locks, 1, memory_order_relaxed);
    fps_store_release(word, (found & ~UINT64_C(0xfff)) + FPS_ROW_ONCE); /* SYNC burial, row-handover, row-sequence */
}

/* With the births lock held, the mark of the dead stays: and as long as it does, nobody keeps their seat. A mark that
 * is found before the seat is found to be theirs is no later owner's. */
static void finish_if_deserted(const fps_arena *arena, const fps_table *t, uint32_t row, uint32_t seat)
{
    pthread_mutex_t *life = &arena->seats[seat].life;
    if (FPS_ROW_WRITER(fps_load_acquire(fps_row_word(fps_row_at(t, row)))) != seat + 1) return; /* SYNC row-handover */
    if (fps_life_died(life)) {
        finish(arena, t, row, seat);
        return;
    }
    if (!fps_life_block(life)) return; /* not marked as that of the dead: others could open it meanwhile */
    finish(arena, t, row, seat);
    fps_life_unblock(life);
}

static fps_status repair(const fps_arena *arena, const fps_table *t, uint32_t row, uint32_t seat, const fps_wait *wait)
{
    fps_status status = fps_table_enter(arena, t, wait);
    if (status != FPS_OK) return status;
    finish_if_deserted(arena, t, row, seat);
    fps_table_leave(t);
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

/* The row that a session says it writes, and whether it does; with its table's number + 1, 0 when there is none. */
static uint32_t written(const fps_arena *arena, uint32_t seat, uint32_t *row)
{
    const uint64_t record = fps_load_relaxed(&arena->seats[seat].writes);
    const uint32_t table = FPS_WRITES_TABLE(record);
    *row = FPS_WRITES_ROW(record);
    if (table == 0 || table > arena->layout.n_tables || *row >= arena->tables[table - 1].layout.max_rows) return 0;
    const fps_table *t = &arena->tables[table - 1];
    return FPS_ROW_WRITER(fps_load_acquire(fps_row_word(fps_row_at(t, *row)))) == seat + 1 ? table
                                                                                           : 0; /* SYNC burial */
}

uint32_t fps_row_written(const fps_arena *arena, uint32_t seat)
{
    uint32_t row;
    return written(arena, seat, &row);
}

fps_status fps_row_bury(const fps_arena *arena, uint32_t seat, const fps_wait *wait)
{
    uint32_t row;
    const uint32_t table = written(arena, seat, &row);
    return table == 0 ? FPS_OK : repair(arena, &arena->tables[table - 1], row, seat, wait);
}

#define _GNU_SOURCE
#include "row.h"

#include <errno.h>
#include <time.h>

#include "rowset.h"

#define SPINS 64u
#define NAP_NS 50000
#define ASK_NAPS 1000u

/* The repair of a row whose writer died, with the table's lock held so that nobody else is at it: the writer's mark
 * stays until the row is whole, so a repair that dies is begun again. */
static void finish(const fps_arena *arena, const fps_table *t, uint32_t row, uint32_t seat)
{
    fps_word *word = fps_row_word(fps_row_at(t, row));
    const uint64_t found = fps_load_acquire(word); /* SYNC row-handover */
    if (FPS_ROW_WRITER(found) != seat + 1) return;
    fps_redo_finish_row(arena, seat, t, row);
    atomic_fetch_add_explicit(&arena->header->recovered_locks, 1, memory_order_relaxed);
    fps_store_release(word, (found & ~UINT64_C(0xfff)) + FPS_ROW_ONCE); /* SYNC repaired, row-handover, row-sequence */
}

/* Nobody has the seat: its owner died, or whoever took it over after that gave it back. */
static bool deserted(const fps_seat *seat)
{
    return fps_lock_abandoned(&seat->life) || fps_lock_holder(&seat->life) == 0;
}

/* With the table's lock held the dead writer's mark stays, and as long as it does nobody keeps its seat. A mark that is
 * found before the seat is found deserted is no later owner's. */
static void finish_if_deserted(const fps_arena *arena, const fps_table *t, uint32_t row, uint32_t seat)
{
    pthread_mutex_t *life = &arena->seats[seat].life;
    if (FPS_ROW_WRITER(fps_load_acquire(fps_row_word(fps_row_at(t, row)))) != seat + 1) return; /* SYNC row-handover */
    if (fps_lock_abandoned(life)) {
        finish(arena, t, row, seat);
        return;
    }
    /* Its life lock no longer says that it died: taking it keeps others from opening the seat meanwhile. */
    const int error = deserted(&arena->seats[seat]) ? pthread_mutex_trylock(life) : EBUSY;
    if (error == EOWNERDEAD) pthread_mutex_consistent(life);
    if (error != 0 && error != EOWNERDEAD) return;
    finish(arena, t, row, seat);
    pthread_mutex_unlock(life);
}

static fps_status repair(const fps_arena *arena, const fps_table *t, uint32_t row, uint32_t seat, const fps_wait *wait)
{
    fps_status status = fps_rowset_enter(arena, t, wait);
    if (status != FPS_OK) return status;
    finish_if_deserted(arena, t, row, seat);
    fps_rowset_leave(t);
    return FPS_OK;
}

fps_status fps_row_wait(const fps_arena *arena, const fps_table *t, uint32_t row, const fps_wait *wait, uint32_t *tries)
{
    if (++*tries < SPINS) {
        fps_pause();
        return FPS_OK;
    }
    const uint32_t writer = FPS_ROW_WRITER(fps_load_relaxed(fps_row_word(fps_row_at(t, row))));
    if (writer == 0) return FPS_OK;
    if (writer > arena->layout.n_sessions) return FPS_BROKEN_LOCK;
    if (deserted(&arena->seats[writer - 1])) return repair(arena, t, row, writer - 1, wait);
    fps_status status = fps_arena_state(arena); /* closed: the word will never change */
    if (status != FPS_OK) return status;
    if (wait->deadline_ns == FPS_NO_WAIT) return FPS_BUSY;
    if (fps_now_ns() >= wait->deadline_ns) return FPS_TIMEOUT;
    if (wait->interrupted && *tries % ASK_NAPS == 0 && wait->interrupted(wait->state)) return FPS_INTERRUPTED;
    clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){.tv_nsec = NAP_NS}, NULL);
    return FPS_OK;
}

fps_status fps_row_read_surely(const fps_arena *arena, const fps_table *t, uint32_t row, uint64_t key, uint8_t *to,
                               uint32_t from, uint32_t bytes, const fps_wait *wait)
{
    for (uint32_t tries = 0;;) {
        const fps_read got = fps_row_read(t, row, key, to, from, bytes, false);
        if (got != FPS_READ_BUSY) return got == FPS_READ_DONE ? FPS_OK : FPS_ALREADY;
        fps_status status = fps_row_wait(arena, t, row, wait, &tries);
        if (status != FPS_OK) return status;
    }
}

/* The row that a session's record names, if it holds that row; with its table, NULL when there is none. */
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

#define _GNU_SOURCE
#include "session.h"

#include <stdbool.h>
#include <unistd.h>

#include "life.h"
#include "redo.h"
#include "row.h"
#include "stripe.h"

/* The seat has no owner, though it is not free: its owner died. */
static bool is_deserted(const fps_seat *seat)
{
    return fps_load32_relaxed(&seat->state) == FPS_SEAT_LIVE && fps_life_ended(&seat->life);
}

/* The next stripe that has the mark of the seat's owner; n_stripes if there is none. */
static uint32_t next_marked(const fps_arena *arena, uint32_t index, uint32_t from)
{
    while (from < arena->layout.n_stripes && fps_load32_acquire(&arena->stripes[from].writer) != index + 1) from++;
    return from; /* SYNC repaired */
}

static bool is_repaired(const fps_arena *arena, uint32_t index)
{
    return next_marked(arena, index, 0) == arena->layout.n_stripes && !fps_row_written(arena, index);
}

/* Repairs every stripe that still has the mark of the dead owner of this seat, and the row that it was writing, so that
 * the redo block and the record can be reused. Any process may do that. Such a stripe's lock is abandoned, too: if it
 * is busy, another process repairs it, and this returns FPS_BUSY. */
static fps_status repair_all(const fps_arena *arena, uint32_t index)
{
    const fps_wait no_wait = {.deadline_ns = FPS_NO_WAIT};
    for (uint32_t i = 0; (i = next_marked(arena, index, i)) < arena->layout.n_stripes; i++) {
        fps_status status = fps_stripe_enter(arena, i, &no_wait);
        if (status != FPS_OK) return status;
        fps_stripe_leave(arena, i);
    }
    return fps_row_repair(arena, index, &no_wait);
}

/* Ends the turn of a former owner of this seat. */
static void drop_turn(const fps_arena *arena, uint32_t index)
{
    uint32_t seat = index + 1;
    atomic_compare_exchange_strong_explicit(&arena->header->turn, &seat, 0, memory_order_relaxed, memory_order_relaxed);
}

/* Tries to take a seat that is free, or whose owner died. FPS_BUSY: another process takes or repairs it. What the dead
 * owner left is repaired before the seat is taken, so that nobody has to wait for the new owner to do that. */
static fps_status claim(const fps_arena *arena, uint32_t index, bool free)
{
    fps_seat *seat = &arena->seats[index];
    fps_status status = free ? FPS_OK : repair_all(arena, index);
    if (status == FPS_OK) status = fps_life_take(&seat->life, FPS_LIFE_SESSION);
    if (status != FPS_OK) return status;
    const bool freed = fps_load32_relaxed(&seat->state) == FPS_SEAT_FREE;
    if (freed == free && (freed || is_repaired(arena, index))) return FPS_OK;
    fps_life_give(&seat->life); /* it had another owner meanwhile */
    return FPS_BUSY;
}

static void settle_in(const fps_arena *arena, uint32_t index, fps_session *out)
{
    fps_seat *seat = &arena->seats[index];
    fps_store32_relaxed(&seat->pid, (uint32_t)getpid());
    fps_store32_relaxed(&seat->elsewhere, 0);
    fps_store_relaxed(&seat->pins, 0);
    fps_store_relaxed(&seat->redo, FPS_REDO_NOTHING);
    drop_turn(arena, index);
    fps_store32_relaxed(&seat->state, FPS_SEAT_LIVE);
    *out = (fps_session){.arena = arena, .seat = seat, .index = index, .seq = fps_load_relaxed(&seat->begun_seq)};
}

/* Tries all seats once, free ones first; `*index` is that of the seat taken. */
static fps_status claim_any(const fps_arena *arena, uint32_t *index)
{
    fps_status all = FPS_FULL;
    for (int of_the_dead = 0; of_the_dead < 2; of_the_dead++) {
        for (uint32_t i = 0; i < arena->layout.n_sessions; i++) {
            const fps_seat *seat = &arena->seats[i];
            const bool free = fps_load32_acquire(&seat->state) == FPS_SEAT_FREE; /* SYNC seat-free */
            if (of_the_dead ? !is_deserted(seat) : !free) continue;
            fps_status status = claim(arena, i, free);
            *index = i;
            if (status != FPS_BUSY) return status;
            all = FPS_BUSY;
        }
    }
    return all;
}

fps_status fps_session_open(const fps_arena *arena, const fps_wait *wait, fps_session *out)
{
    for (fps_waiting w = fps_waiting_for(FPS_WAIT_SEAT, wait, arena->header);;) {
        uint32_t index;
        fps_status status = claim_any(arena, &index);
        if (status == FPS_OK) settle_in(arena, index, out);
        if (status != FPS_BUSY) return status;
        status = fps_waiting_step(&w);
        if (status != FPS_OK) return status;
    }
}

/* The record is kept: the retry resumes from it. */
fps_status fps_session_adopt(const fps_arena *arena, uint32_t index, const fps_wait *wait, fps_session *out)
{
    for (fps_waiting w = fps_waiting_for(FPS_WAIT_SEAT, wait, arena->header);;) {
        if (index >= arena->layout.n_sessions || !is_deserted(&arena->seats[index])) return FPS_NOT_ABANDONED;
        fps_status status = claim(arena, index, false);
        if (status == FPS_OK) settle_in(arena, index, out);
        if (status != FPS_BUSY) return status;
        status = fps_waiting_step(&w);
        if (status != FPS_OK) return status;
    }
}

void fps_session_close(fps_session *session)
{
    fps_seat *seat = session->seat;
    *session = (fps_session){0};
    if (!seat || !fps_life_holds(&seat->life)) return; /* a forked child closes no session of its parent */
    fps_store32_release(&seat->state, FPS_SEAT_FREE);  /* SYNC seat-free */
    fps_life_give(&seat->life);
}

uint32_t fps_session_blocker(const fps_arena *arena)
{
    for (uint32_t i = 0; i < arena->layout.n_sessions; i++) {
        const fps_seat *seat = &arena->seats[i];
        const bool free = fps_load32_relaxed(&seat->state) == FPS_SEAT_FREE;
        if (free && !fps_life_ended(&seat->life)) return fps_life_holder(&seat->life); /* being taken, or released */
        if (!is_deserted(seat)) continue;
        const uint32_t stripe = next_marked(arena, i, 0);
        const fps_table *t = fps_row_written(arena, i);
        uint32_t holder = stripe < arena->layout.n_stripes ? fps_lock_holder(&arena->stripes[stripe].lock) : 0;
        if (holder == 0 && t) holder = fps_lock_holder(&t->control->lock);
        if (holder != 0) return holder;
    }
    return 0;
}

#define _GNU_SOURCE
#include "session.h"

#include <errno.h>
#include <stdbool.h>
#include <time.h>
#include <unistd.h>

#include "life.h"
#include "row.h"
#include "stripe.h"

#define BURY_NS 1000000000
#define SESSIONS_A_PROCESS 1900u /* and the life locks of the arenas that it owns */

static uint32_t sessions_held; /* by this process; the life thread's */

/* A seat belongs to whoever holds its life lock, so all of this runs on the life thread. */
typedef struct request {
    const fps_arena *arena;
    fps_seat *seat;
    uint32_t index;
} request;

/* Repairs every stripe that the dead owner of this seat still marks as its own, and the row that it wrote, so that its
 * redo block and its record can be used again. Such a stripe's lock is abandoned too; it is busy only while somebody
 * else repairs it. False when that does not end: a stopped process. */
static bool bury(const fps_arena *arena, uint32_t index)
{
    const fps_wait no_wait = {.deadline_ns = FPS_NO_WAIT};
    const int64_t give_up = fps_now_ns() + BURY_NS;
    for (uint32_t i = 0; i < arena->layout.n_stripes; i++) {
        while (fps_load32_relaxed(&arena->stripes[i].writer) == index + 1) {
            if (fps_stripe_enter(arena, i, &no_wait) == FPS_OK)
                fps_stripe_leave(arena, i);
            else if (fps_now_ns() > give_up)
                return false;
            else
                clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){.tv_nsec = 100000}, NULL);
        }
    }
    return fps_row_bury(arena, index, give_up);
}

/* It is nobody's turn that had this seat. */
static void drop_turn(const fps_arena *arena, uint32_t index)
{
    uint32_t seat = index + 1;
    atomic_compare_exchange_strong_explicit(&arena->header->turn, &seat, 0, memory_order_relaxed, memory_order_relaxed);
}

static bool claim(const fps_arena *arena, uint32_t index)
{
    fps_seat *seat = &arena->seats[index];
    int error = pthread_mutex_trylock(&seat->life);
    if (error != 0 && error != EOWNERDEAD) return false;
    if (error == EOWNERDEAD || fps_load32_relaxed(&seat->state) == FPS_SEAT_LIVE) { /* or could not be buried before */
        bool buried = bury(arena, index);
        if (error == EOWNERDEAD) pthread_mutex_consistent(&seat->life);
        if (!buried) { /* still LIVE, so nobody takes it: its record is needed by whoever repairs the stripe */
            pthread_mutex_unlock(&seat->life);
            return false;
        }
    }
    return true;
}

/* The kernel hands over no more than about 2048 locks of a thread that dies, the youngest first. */
static bool room_for_another(void)
{
    static uint32_t generation;
    if (generation != fps_life_generation()) {
        generation = fps_life_generation();
        sessions_held = 0; /* those are the parent's */
    }
    return sessions_held < SESSIONS_A_PROCESS;
}

static int open_seat(void *argument)
{
    request *r = argument;
    if (!room_for_another()) return FPS_FULL;
    for (int take_dead = 0; take_dead < 2; take_dead++) {
        for (uint32_t i = 0; i < r->arena->layout.n_sessions; i++) {
            fps_seat *seat = &r->arena->seats[i];
            bool free = fps_load32_acquire(&seat->state) == FPS_SEAT_FREE; /* SYNC seat-free */
            bool dead = fps_lock_abandoned(&seat->life) || fps_lock_holder(&seat->life) == 0;
            if (!(free || (take_dead && dead)) || !claim(r->arena, i)) continue;
            fps_store32_relaxed(&seat->pid, (uint32_t)getpid());
            fps_store_relaxed(&seat->pins, 0);
            drop_turn(r->arena, i);
            fps_store32_relaxed(&seat->state, FPS_SEAT_LIVE);
            sessions_held++;
            r->seat = seat;
            r->index = i;
            return FPS_OK;
        }
    }
    return FPS_FULL;
}

/* The record stays: the retry goes on from it. */
static int adopt_seat(void *argument)
{
    request *r = argument;
    fps_seat *seat = &r->arena->seats[r->index];
    int error = pthread_mutex_trylock(&seat->life);
    const bool dead = error == EOWNERDEAD || (error == 0 && fps_load32_relaxed(&seat->state) == FPS_SEAT_LIVE);
    if (error == 0 && !dead) pthread_mutex_unlock(&seat->life);
    if (!dead) return FPS_NOT_ABANDONED;
    bool buried = bury(r->arena, r->index);
    if (error == EOWNERDEAD) pthread_mutex_consistent(&seat->life);
    if (!buried) {
        pthread_mutex_unlock(&seat->life);
        return FPS_NOT_ABANDONED;
    }
    sessions_held++;
    fps_store32_relaxed(&seat->pid, (uint32_t)getpid());
    fps_store_relaxed(&seat->pins, 0);
    drop_turn(r->arena, r->index);
    r->seat = seat;
    return FPS_OK;
}

static int close_seat(void *argument)
{
    fps_seat *seat = argument;
    if (fps_lock_holder(&seat->life) != (uint32_t)gettid())
        return EPERM; /* a forked child closes nothing of its parent */
    sessions_held--;
    fps_store32_release(&seat->state, FPS_SEAT_FREE); /* SYNC seat-free */
    return pthread_mutex_unlock(&seat->life);
}

static fps_status open_with(int (*call)(void *), request *r, fps_session *out)
{
    int status = fps_life_run(call, r);
    if (status < 0) return FPS_SYSTEM;
    if (status == FPS_OK) {
        *out = (fps_session){
            .arena = r->arena, .seat = r->seat, .index = r->index, .seq = fps_load_relaxed(&r->seat->begun_seq)};
    }
    return (fps_status)status;
}

fps_status fps_session_open(const fps_arena *arena, fps_session *out)
{
    return open_with(open_seat, &(request){.arena = arena}, out);
}

fps_status fps_session_adopt(const fps_arena *arena, uint32_t index, fps_session *out)
{
    if (index >= arena->layout.n_sessions) return FPS_NOT_ABANDONED;
    return open_with(adopt_seat, &(request){.arena = arena, .index = index}, out);
}

void fps_session_close(fps_session *session)
{
    if (session->seat) fps_life_run(close_seat, session->seat);
    *session = (fps_session){0};
}

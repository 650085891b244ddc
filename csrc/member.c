#define _GNU_SOURCE
#include "member.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "life.h"

#define LEAVE_NS (INT64_C(10) * 1000000) /* short, since others see `left` anyway */

fps_roster fps_board_roster(const fps_arena *arena)
{
    return (fps_roster){.policy = arena->layout.policy,
                        .n_members = arena->layout.n_members,
                        .board = arena->board,
                        .members = arena->members};
}

static void ring(fps_board *board)
{
    atomic_fetch_add_explicit(&board->bell, 1, memory_order_seq_cst); /* SYNC bell */
    if (atomic_load_explicit(&board->sleepers, memory_order_seq_cst) == 0) return;
    syscall(SYS_futex, &board->bell, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

static fps_status enter_board(const fps_arena *arena, const fps_roster *r, const fps_wait *wait)
{
    bool abandoned;
    fps_status status = fps_arena_lock(arena, &r->board->lock, wait, &abandoned);
    if (status != FPS_OK || !abandoned) return status;
    bool grew = fps_clock_settle(r);
    fps_store_relaxed(&r->board->progressed_ns, (uint64_t)fps_now_ns());
    fps_lock_repaired(&r->board->lock);
    if (grew) ring(r->board);
    return FPS_OK;
}

/* `grew`: progress has grown under the lock, which is released here. */
static void leave_board(const fps_roster *r, bool grew)
{
    if (grew && r->policy.straggler_ns > 0) fps_store_relaxed(&r->board->progressed_ns, (uint64_t)fps_now_ns());
    fps_lock_release(&r->board->lock);
    if (grew) ring(r->board);
}

/* Whether other workers wait for this one. */
static bool blocks(const fps_roster *r, const fps_member *m)
{
    uint64_t progress = fps_load_relaxed(&r->board->progress);
    if (!fps_load32_relaxed(&r->board->started)) return false; /* they wait for workers that have not joined yet */
    return r->policy.kind != FPS_ASYNC && fps_load_relaxed(&m->clock) == progress;
}

uint32_t fps_board_blocker(const fps_roster *r)
{
    uint32_t i = 0;
    while (i < r->n_members && !(fps_member_lives(&r->members[i]) && blocks(r, &r->members[i]))) i++;
    return i;
}

static bool has_left(const fps_member *m) { return fps_load_relaxed(&m->left) == fps_load_relaxed(&m->generation); }

static bool is_gone(const fps_roster *r, const fps_member *m, int64_t now)
{
    if (has_left(m)) return true;
    bool away = fps_load32_relaxed(&m->state) == FPS_MEMBER_AWAY;
    if (away ? (int64_t)fps_load_relaxed(&m->lease_ns) < now : fps_life_ended(&m->life)) return true;
    if (r->policy.straggler_ns == 0 || !blocks(r, m)) return false;
    uint64_t heard = fps_load_relaxed(&m->heard_ns), progressed = fps_load_relaxed(&r->board->progressed_ns);
    return now - (int64_t)(heard > progressed ? heard : progressed) > r->policy.straggler_ns;
}

static bool expel(const fps_roster *r, uint32_t rank)
{
    fps_member *m = &r->members[rank];
    if (has_left(m)) return fps_clock_exit(r, rank, FPS_MEMBER_FREE);
    fps_count(&r->board->expelled, 1);
    if (fps_load32_relaxed(&m->state) == FPS_MEMBER_HERE) return fps_clock_exit(r, rank, FPS_MEMBER_OUT);
    fps_count(&m->generation, 1); /* no lock holds the rank of a worker on another node: it is free for the next one */
    return fps_clock_exit(r, rank, FPS_MEMBER_FREE);
}

/* Expels workers that died, are stopped or have shown no sign of life, and frees ranks of those that left without the
 * lock. With the lock held. */
static bool sweep(const fps_roster *r, const fps_member *self)
{
    int64_t now = fps_now_ns();
    bool grew = false;
    for (uint32_t i = 0; i < r->n_members; i++) {
        const fps_member *m = &r->members[i];
        if (m != self && fps_member_lives(m) && is_gone(r, m, now)) grew |= expel(r, i);
    }
    return grew;
}

static void prolong(fps_member *m, const fps_worker *worker)
{
    if (worker->lease_ns > 0) fps_store_relaxed(&m->lease_ns, (uint64_t)(fps_now_ns() + worker->lease_ns));
}

static void heard(fps_member *m, const fps_worker *worker)
{
    if (worker->roster.policy.straggler_ns > 0) fps_store_relaxed(&m->heard_ns, (uint64_t)fps_now_ns());
    prolong(m, worker);
}

/* With the board's lock held. A rank whose life lock is held is not free, even if its worker was expelled. For a worker
 * on this node the caller holds the life lock. */
static bool take_rank(const fps_roster *r, fps_worker *w, uint32_t rank)
{
    fps_member *m = &r->members[rank];
    if (fps_member_lives(m) || (w->lease_ns > 0 && !fps_life_ended(&m->life))) return false;
    fps_count(&m->generation, 1);
    fps_store32_relaxed(&m->pid, (uint32_t)getpid());
    w->rank = rank;
    w->generation = fps_load_relaxed(&m->generation);
    heard(m, w);
    return true;
}

/* FPS_FULL: another worker has it. The life lock is taken before the board's lock, so that nobody waits for the board
 * meanwhile. */
static fps_status try_rank(const fps_roster *r, fps_worker *w, uint32_t rank, const fps_wait *wait)
{
    fps_member *m = &r->members[rank];
    if (fps_member_lives(m)) return FPS_FULL;
    fps_status status = w->lease_ns == 0 ? fps_life_take(&m->life, FPS_LIFE_MEMBER) : FPS_OK;
    if (status != FPS_OK) return status == FPS_BUSY ? FPS_FULL : status;
    status = enter_board(w->arena, r, wait);
    if (status == FPS_OK) {
        bool taken = take_rank(r, w, rank), grew = false;
        if (taken) grew = fps_clock_enter(r, rank, w->lease_ns == 0 ? FPS_MEMBER_HERE : FPS_MEMBER_AWAY);
        leave_board(r, grew);
        if (taken) return FPS_OK;
        status = FPS_FULL;
    }
    if (w->lease_ns == 0) fps_life_give(&m->life);
    return status;
}

fps_status fps_worker_join(const fps_arena *arena, uint32_t rank, int64_t lease_ns, const fps_wait *wait,
                           fps_worker *out)
{
    fps_worker w = {
        .arena = arena, .roster = fps_board_roster(arena), .lease_ns = lease_ns, .process = fps_life_generation()};
    const fps_roster *r = &w.roster;
    fps_status status = fps_arena_state(arena);
    if (status == FPS_OK && rank != FPS_ANY_RANK && rank >= r->n_members) return FPS_FULL;
    if (status == FPS_OK) status = enter_board(arena, r, wait);
    if (status != FPS_OK) return status;
    leave_board(r, sweep(r, NULL)); /* frees ranks of dead workers */
    status = FPS_FULL;
    for (uint32_t i = 0; i < r->n_members && status == FPS_FULL; i++) {
        if (rank == FPS_ANY_RANK || rank == i) status = try_rank(r, &w, i, wait);
    }
    if (status == FPS_OK) *out = w;
    return status == FPS_FULL && rank != FPS_ANY_RANK ? FPS_BUSY : status;
}

static bool is_mine(const fps_worker *w)
{
    const fps_member *m = &w->roster.members[w->rank];
    return fps_load_relaxed(&m->generation) == w->generation;
}

void fps_worker_adopt(const fps_arena *arena, uint32_t rank, uint64_t generation, int64_t lease_ns, fps_worker *out)
{
    *out = (fps_worker){.arena = arena,
                        .roster = fps_board_roster(arena),
                        .rank = rank,
                        .generation = generation,
                        .lease_ns = lease_ns,
                        .process = fps_life_generation()};
}

void fps_worker_leave(fps_worker *w)
{
    if (w->has_left || w->process != fps_life_generation()) return; /* not in a forked child */
    w->has_left = true;
    const fps_roster *r = &w->roster;
    if (is_mine(w)) fps_store_relaxed(&r->members[w->rank].left, w->generation);
    const fps_wait wait = {.deadline_ns = fps_now_ns() + LEAVE_NS};
    bool entered = enter_board(w->arena, r, &wait) == FPS_OK;
    if (entered) leave_board(r, is_mine(w) && fps_clock_exit(r, w->rank, FPS_MEMBER_FREE));
    if (w->lease_ns == 0) fps_life_give(&r->members[w->rank].life);
}

/* Returns FPS_OK with the lock held and the worker still a member; anything else without the lock. */
static fps_status enter_as(const fps_worker *w, const fps_wait *wait)
{
    const fps_roster *r = &w->roster;
    fps_status status = fps_arena_state(w->arena);
    if (status == FPS_OK) status = enter_board(w->arena, r, wait);
    if (status != FPS_OK) return status;
    if (is_mine(w) && fps_member_lives(&r->members[w->rank])) return FPS_OK;
    leave_board(r, false);
    return FPS_EXPELLED;
}

/* Idempotent, since it may be asked again from another node. Only an expelled worker on this node still has its rank.
 */
fps_status fps_worker_return(const fps_worker *w, const fps_wait *wait, uint64_t *generation)
{
    const fps_roster *r = &w->roster;
    fps_member *m = &r->members[w->rank];
    *generation = w->generation;
    fps_status status = enter_as(w, wait);
    if (status == FPS_OK) {
        heard(m, w);
        leave_board(r, false);
        return FPS_OK;
    }
    if (status != FPS_EXPELLED) return status;
    if (w->lease_ns > 0) {
        fps_worker again;
        status = fps_worker_join(w->arena, w->rank, w->lease_ns, wait, &again);
        if (status == FPS_OK) *generation = again.generation;
        return status;
    }
    status = enter_board(w->arena, r, wait);
    if (status != FPS_OK) return status;
    bool mine = is_mine(w) && !has_left(m);
    if (mine) heard(m, w);
    leave_board(r, mine && fps_clock_enter(r, w->rank, FPS_MEMBER_HERE));
    return mine ? FPS_OK : FPS_EXPELLED;
}

fps_status fps_worker_end_step(const fps_worker *w, uint64_t clock, const fps_wait *wait)
{
    fps_status status = enter_as(w, wait);
    if (status != FPS_OK) return status;
    fps_member *m = &w->roster.members[w->rank];
    heard(m, w);
    leave_board(&w->roster, fps_load_relaxed(&m->clock) == clock && fps_clock_end_step(&w->roster, w->rank));
    return FPS_OK;
}

fps_status fps_worker_give(const fps_worker *w, uint64_t round, uint32_t weight, const fps_wait *wait, bool *counted)
{
    fps_status status = enter_as(w, wait);
    if (status != FPS_OK) return status;
    heard(&w->roster.members[w->rank], w);
    leave_board(&w->roster, fps_clock_give(&w->roster, w->rank, round, weight, counted));
    return FPS_OK;
}

fps_status fps_worker_catch_up(const fps_worker *w, uint64_t round, const fps_wait *wait)
{
    fps_status status = enter_as(w, wait);
    if (status != FPS_OK) return status;
    heard(&w->roster.members[w->rank], w);
    fps_clock_catch_up(&w->roster, w->rank, round);
    leave_board(&w->roster, false);
    return FPS_OK;
}

fps_status fps_worker_renew(const fps_worker *w, const fps_wait *wait)
{
    fps_status status = enter_as(w, wait);
    if (status != FPS_OK) return status;
    prolong(&w->roster.members[w->rank], w);
    leave_board(&w->roster, false);
    return FPS_OK;
}

/* Sleeps until the bell rings, at the longest until `until`. Counting the sleeper and checking progress again are
 * sequentially consistent with the ringer: either it sees the sleeper, or the sleeper sees the progress. */
static void sleep_once(fps_board *board, uint64_t needs, int64_t until)
{
    uint32_t heard_last = atomic_load_explicit(&board->bell, memory_order_seq_cst); /* SYNC bell */
    atomic_fetch_add_explicit(&board->sleepers, 1, memory_order_seq_cst);
    if (atomic_load_explicit(&board->progress, memory_order_seq_cst) < needs) {
        const struct timespec t = {.tv_sec = until / 1000000000, .tv_nsec = until % 1000000000};
        syscall(SYS_futex, &board->bell, FUTEX_WAIT_BITSET, heard_last, &t, NULL, FUTEX_BITSET_MATCH_ANY);
    }
    atomic_fetch_sub_explicit(&board->sleepers, 1, memory_order_seq_cst);
}

fps_status fps_worker_begin(const fps_worker *w, const fps_wait *wait, uint64_t *clock, uint64_t *progress)
{
    const fps_roster *r = &w->roster;
    fps_member *self = &r->members[w->rank];
    for (fps_waiting waiting = fps_waiting_for(FPS_WAIT_CLOCK, wait, w->arena->header);;) {
        fps_status status = fps_arena_state(w->arena);
        if (status != FPS_OK) return status;
        if (!is_mine(w) || !fps_member_lives(self)) return FPS_EXPELLED;
        *clock = fps_load_relaxed(&self->clock);
        uint64_t needs = fps_clock_needs(&r->policy, *clock);
        *progress = fps_load_acquire(&r->board->progress); /* SYNC progress */
        if (*progress >= needs) {
            heard(self, w);
            return FPS_OK;
        }
        if (fps_waiting_has_spun(&waiting)) { /* before it sleeps or gives up, it checks the other workers */
            status = enter_board(w->arena, r, wait);
            if (status != FPS_OK) return status;
            bool grew = sweep(r, self);
            leave_board(r, grew);
            if (grew) continue;
        }
        status = fps_waiting_step(&waiting);
        if (status != FPS_OK) return status;
        if (waiting.until_ns != 0) sleep_once(r->board, needs, waiting.until_ns);
    }
}

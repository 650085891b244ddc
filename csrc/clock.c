#include "clock.h"

/* Rounds count from 0, and `progress` of them have closed: it is the number of the open one. */
static uint64_t progress_of(const fps_roster *r) { return fps_load_relaxed(&r->board->progress); }

static uint64_t given_to(const fps_member *m, uint64_t round)
{
    uint64_t given = fps_load_relaxed(&m->given[round & 1]);
    return given >> 16 == round + 1 ? given : 0;
}

static uint64_t slowest(const fps_roster *r)
{
    uint64_t least = UINT64_MAX;
    for (uint32_t i = 0; i < r->n_members; i++) {
        uint64_t clock = fps_load_relaxed(&r->members[i].clock);
        if (fps_member_lives(&r->members[i]) && clock < least) least = clock;
    }
    return least;
}

/* Workers that died after they gave still count: their gradients are needed, and given. */
static bool round_is_full(const fps_roster *r)
{
    uint64_t round = progress_of(r);
    uint32_t concerned = 0, given = 0;
    for (uint32_t i = 0; i < r->n_members; i++) {
        bool gave = given_to(&r->members[i], round) != 0;
        given += gave;
        concerned += gave || fps_member_lives(&r->members[i]);
    }
    return given > 0 && given + r->policy.backup >= concerned;
}

bool fps_clock_settle(const fps_roster *r)
{
    uint32_t live = 0;
    for (uint32_t i = 0; i < r->n_members; i++) live += fps_member_lives(&r->members[i]);
    if (live >= r->policy.quorum) fps_store32_relaxed(&r->board->started, 1);
    if (!fps_load32_relaxed(&r->board->started)) return false;

    uint64_t before = progress_of(r), after = before;
    if (r->policy.kind == FPS_BSP)
        after += round_is_full(r);
    else if (live > 0)
        after = slowest(r);
    if (after <= before) return false;
    fps_store_release(&r->board->progress, after); /* SYNC progress */
    return true;
}

bool fps_clock_enter(const fps_roster *r, uint32_t rank, fps_member_state state)
{
    fps_member *m = &r->members[rank];
    uint64_t clock = progress_of(r);
    if (r->policy.kind == FPS_BSP && given_to(m, clock) != 0) clock++; /* this rank has given to the open round */
    fps_store_relaxed(&m->clock, clock);
    atomic_signal_fence(memory_order_seq_cst); /* so a death leaves no live worker with an old clock */
    fps_store32_relaxed(&m->state, state);
    return fps_clock_settle(r);
}

bool fps_clock_exit(const fps_roster *r, uint32_t rank, fps_member_state state)
{
    fps_store32_relaxed(&r->members[rank].state, state);
    return fps_clock_settle(r);
}

bool fps_clock_end_step(const fps_roster *r, uint32_t rank)
{
    fps_count(&r->members[rank].clock, 1);
    return fps_clock_settle(r);
}

bool fps_clock_give(const fps_roster *r, uint32_t rank, uint64_t round, uint32_t weight, bool *counted)
{
    fps_member *m = &r->members[rank];
    uint64_t open = progress_of(r);
    *counted = given_to(m, round) != 0;
    if (*counted) return false;
    if (round != open || fps_load_relaxed(&m->clock) != open) {
        fps_count(&r->board->dropped, 1);
        fps_store_relaxed(&m->clock, given_to(m, open) ? open + 1 : open);
        return false;
    }
    *counted = true;
    fps_store_release(&m->given[round & 1], FPS_GIVEN(round, weight)); /* SYNC progress */
    fps_store_relaxed(&m->clock, round + 1);
    return fps_clock_settle(r);
}

void fps_clock_catch_up(const fps_roster *r, uint32_t rank, uint64_t round)
{
    fps_word *clock = &r->members[rank].clock; /* if it has given to the open round, its clock is ahead already */
    if (fps_load_relaxed(clock) < round) fps_store_relaxed(clock, round);
}

uint64_t fps_clock_needs(const fps_policy *policy, uint64_t clock)
{
    if (policy->kind == FPS_ASYNC) return 0;
    if (policy->kind == FPS_BSP) return clock;
    return clock > policy->staleness ? clock - policy->staleness : 0;
}

/* What was given to a round is overwritten only after the next round has closed. */
void fps_clock_decision(const fps_roster *r, fps_decision *out)
{
    do {
        out->round = fps_load_acquire(&r->board->progress); /* SYNC progress */
        out->n_given = 0;
        if (out->round == 0 || r->policy.kind != FPS_BSP) return;
        for (uint32_t i = 0; i < r->n_members; i++) {
            uint64_t given = given_to(&r->members[i], out->round - 1);
            if (given == 0) continue;
            out->ranks[out->n_given] = i;
            out->weights[out->n_given++] = (uint32_t)given & FPS_GIVEN_MAX;
        }
        atomic_thread_fence(memory_order_acquire);
    } while (fps_load_relaxed(&r->board->progress) != out->round);
}

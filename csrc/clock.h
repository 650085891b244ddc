/* Who takes part, how far each has come, and which rounds are closed: a state machine over the words of a board.
 *
 * Pure: events in, decisions out. No waiting, no time, no process is looked at here; csrc/member.c does that. Callers
 * hold the board's lock. Each event takes effect with one store, and what follows from it is recomputed by
 * fps_clock_settle: whoever finds the lock abandoned settles, and nothing of a death in the middle is left. */
#ifndef FPS_CLOCK_H
#define FPS_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "layout.h"

/* A board, and what it decides by. */
typedef struct fps_roster {
    fps_policy policy;
    uint32_t n_members;
    fps_board *board;
    fps_member *members;
} fps_roster;

/* Which gradients a round counts. */
typedef struct fps_decision {
    uint64_t round; /* rounds closed with this one; 0: none has closed */
    uint32_t n_given;
    uint32_t ranks[FPS_MAX_MEMBERS]; /* in order */
    uint32_t weights[FPS_MAX_MEMBERS];
} fps_decision;

static inline bool fps_member_lives(const fps_member *m)
{
    uint32_t state = fps_load32_relaxed(&m->state);
    return state == FPS_MEMBER_HERE || state == FPS_MEMBER_AWAY;
}

/* Recomputes progress. True when it grew: whoever waits for that is to be woken. */
bool fps_clock_settle(const fps_roster *r);

/* A worker comes, or comes back, with a clock that lets it begin where the others are. */
bool fps_clock_enter(const fps_roster *r, uint32_t rank, fps_member_state state);

/* It goes, or is expelled: `state` is FREE or OUT. What it has given stays. */
bool fps_clock_exit(const fps_roster *r, uint32_t rank, fps_member_state state);

/* Async and SSP: a step ends. */
bool fps_clock_end_step(const fps_roster *r, uint32_t rank);

/* BSP: a worker gives `weight` gradients, at most FPS_GIVEN_MAX, to a round. `*counted` is false when that is not the
 * open one: then its clock moves on to that. Giving to a round twice is giving once. */
bool fps_clock_give(const fps_roster *r, uint32_t rank, uint64_t round, uint32_t weight, bool *counted);

/* BSP: a worker has read what `round` rounds have made: its next gradient is one for the round behind them. */
void fps_clock_catch_up(const fps_roster *r, uint32_t rank, uint64_t round);

/* The progress that lets a worker of this clock begin. */
uint64_t fps_clock_needs(const fps_policy *policy, uint64_t clock);

/* The last round that closed. Without the lock. */
void fps_clock_decision(const fps_roster *r, fps_decision *out);

#endif

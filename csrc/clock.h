/* Which workers take part, their clocks, and which rounds have closed: a state machine over the words of a board.
 *
 * Pure: events in, decisions out. Waiting, time and processes are the business of csrc/member.c. Callers hold the
 * board's lock. Each event takes effect with one store, and fps_clock_settle recomputes everything that follows from
 * it: whoever finds the lock abandoned settles, which completes the event of the process that died. */
#ifndef FPS_CLOCK_H
#define FPS_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "layout.h"

/* A board and its policy. */
typedef struct fps_roster {
    fps_policy policy;
    uint32_t n_members;
    fps_board *board;
    fps_member *members;
} fps_roster;

/* Which gradients a round counts. */
typedef struct fps_decision {
    uint64_t round; /* rounds closed, this one included; 0: none has closed */
    uint32_t n_given;
    uint32_t ranks[FPS_MAX_MEMBERS]; /* in order */
    uint32_t weights[FPS_MAX_MEMBERS];
} fps_decision;

static inline bool fps_member_lives(const fps_member *m)
{
    uint32_t state = fps_load32_relaxed(&m->state);
    return state == FPS_MEMBER_HERE || state == FPS_MEMBER_AWAY;
}

/* Recomputes progress. True when it grew: then the caller wakes those that wait for it. */
bool fps_clock_settle(const fps_roster *r);

/* A worker joins or rejoins, at the clock of the others. */
bool fps_clock_enter(const fps_roster *r, uint32_t rank, fps_member_state state);

/* A worker leaves or is expelled: `state` is FREE or OUT. What it has given still counts. */
bool fps_clock_exit(const fps_roster *r, uint32_t rank, fps_member_state state);

/* Async and SSP: a step ends. */
bool fps_clock_end_step(const fps_roster *r, uint32_t rank);

/* BSP: a worker gives `weight` gradients, at most FPS_GIVEN_MAX, to a round. `*counted` is false when that is not the
 * open one: then its clock advances to the open one. Idempotent for a round. */
bool fps_clock_give(const fps_roster *r, uint32_t rank, uint64_t round, uint32_t weight, bool *counted);

/* BSP: a worker has read the parameters after `round` rounds: its next gradient is for the next round. */
void fps_clock_catch_up(const fps_roster *r, uint32_t rank, uint64_t round);

/* The progress at which a worker with this clock may begin. */
uint64_t fps_clock_needs(const fps_policy *policy, uint64_t clock);

/* The last round that closed. Needs no lock. */
void fps_clock_decision(const fps_roster *r, fps_decision *out);

#endif

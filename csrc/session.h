/* A session: a worker's identity in one arena, and the record of its push. One operation at a time. */
#ifndef FPS_SESSION_H
#define FPS_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "arena.h"
#include "life.h"
#include "lock.h"
#include "status.h"

/* Its owner died, or gave the seat back. */
static inline bool fps_session_is_over(const fps_arena *arena, uint32_t index)
{
    const fps_seat *seat = &arena->seats[index];
    return fps_load32_relaxed(&seat->state) != FPS_SEAT_LIVE || fps_life_ended(&seat->life);
}

/* Takes a free seat, or one whose owner died, after repairing what that owner left. FPS_FULL at once when live
 * processes have all of them, FPS_PROCESS_FULL when this one has as many as a process may have. It waits only where
 * every seat that could be had is that of a dead owner, and somebody else holds what each of them left: for the first
 * to come free. */
fps_status fps_session_open(const fps_arena *arena, const fps_wait *wait, fps_session *out);

/* Takes over the seat of a dead owner with its record, to retry the push that its death interrupted. */
fps_status fps_session_adopt(const fps_arena *arena, uint32_t index, const fps_wait *wait, fps_session *out);

/* Gives the seat back. No operation may be under way. */
void fps_session_close(fps_session *session);

/* The thread that holds a seat which is nobody's, or what a dead owner of one left, so that it cannot be taken; 0 when
 * there is none: for messages. */
uint32_t fps_session_blocker(const fps_arena *arena);

#endif

/* A session: an identity in one arena, with the record of its push. One operation at a time. */
#ifndef FPS_SESSION_H
#define FPS_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "arena.h"
#include "life.h"
#include "lock.h"
#include "status.h"

/* Its owner died, or released the seat. */
static inline bool fps_session_is_over(const fps_arena *arena, uint32_t index)
{
    const fps_seat *seat = &arena->seats[index];
    return fps_load32_relaxed(&seat->state) != FPS_SEAT_LIVE || fps_life_ended(&seat->life);
}

/* Takes a free seat, or one whose owner died, after repairing what that owner left. FPS_FULL at once when live
 * processes have all seats, FPS_PROCESS_FULL when this one has as many as a process may have. It waits only if every
 * available seat is that of a dead owner and other processes are repairing all of them: for the first one. */
fps_status fps_session_open(const fps_arena *arena, const fps_wait *wait, fps_session *out);

/* Takes over the seat of a dead owner with its record, to retry the interrupted push. */
fps_status fps_session_adopt(const fps_arena *arena, uint32_t index, const fps_wait *wait, fps_session *out);

/* Releases the seat. No operation may be under way. */
void fps_session_close(fps_session *session);

/* The thread that keeps a seat without an owner from being taken, by holding the seat or what a dead owner left; 0 if
 * none: for messages. */
uint32_t fps_session_blocker(const fps_arena *arena);

#endif

/* Life locks: robust locks that their owner holds for as long as it lives: the owner of an arena, of a session's seat,
 * a member. The kernel marks the word when the owning *thread* ends, so all life locks of a process are held by one
 * thread that never ends. That thread only tries and releases; it never waits, so no fork waits for it. Life locks are
 * used only through these functions. */
#ifndef FPS_LIFE_H
#define FPS_LIFE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "layout.h"
#include "robust.h"
#include "status.h"

/* The kind of owner. The kernel hands over at most about 2048 locks of a thread that dies, the youngest first, so each
 * kind is refused when the process holds this many life locks of all kinds. */
typedef enum fps_life_kind {
    FPS_LIFE_SESSION = 0, /* 1900: leaves room for the other kinds */
    FPS_LIFE_MEMBER,      /* 2000 */
    FPS_LIFE_ARENA        /* 2000 */
} fps_life_kind;

/* 0 or an errno. */
int fps_life_init(pthread_mutex_t *life);

/* Takes a life lock that is not held, and clears the mark of a dead owner. FPS_BUSY when it is held; FPS_PROCESS_FULL
 * when this process holds as many as it may, or FPS_SYSTEM with ENOLCK for other kinds than sessions; FPS_SYSTEM when
 * the life thread cannot start. */
fps_status fps_life_take(pthread_mutex_t *life, fps_life_kind kind);

/* Releases it. False when this process does not hold it. */
bool fps_life_give(pthread_mutex_t *life);

/* Whether this process holds it; a forked child holds none of its parent's. */
bool fps_life_holds(const pthread_mutex_t *life);

/* Takes a lock that is not held, on this thread and for a moment, so that no process can take it. False when it is
 * held. */
bool fps_life_block(pthread_mutex_t *life);
void fps_life_unblock(pthread_mutex_t *life);

/* The thread that holds it, 0 if none: for messages. */
static inline uint32_t fps_life_holder(const pthread_mutex_t *life) { return fps_lock_holder(life); }

/* It is not held: its owner died or released it, as did anyone who took it over since. */
static inline bool fps_life_ended(const pthread_mutex_t *life) { return fps_lock_holder(life) == 0; }

/* Its owner died, and it was not taken since. */
static inline bool fps_life_died(const pthread_mutex_t *life) { return fps_lock_abandoned(life); }

/* The state of an arena: FPS_OK, FPS_CLOSED or FPS_OWNER_DIED. Two loads. */
static inline fps_status fps_header_state(const fps_header *header)
{
    if (fps_load32_relaxed(&header->closed)) return FPS_CLOSED;
    return fps_life_died(&header->owner_life) ? FPS_OWNER_DIED : FPS_OK;
}

/* The number of forks between the first process and this one. A child holds none of its parent's locks, so when the
 * number has changed, sessions must be opened again. */
uint32_t fps_life_generation(void);

#endif

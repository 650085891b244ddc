/* Life locks: a robust lock that its owner holds for as long as it lives: the owner of an arena, of a session's seat, a
 * member. The kernel marks the word when the owning *thread* ends, so the locks of a process are taken by one thread
 * that never does. That thread tries, gives back and does nothing else: what has to be waited for is waited for by
 * those who want it, and no fork waits for them. Nobody takes or looks at a life lock but through this. */
#ifndef FPS_LIFE_H
#define FPS_LIFE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "layout.h"
#include "robust.h"
#include "status.h"

/* Whose life it is: the kernel hands over no more than about 2048 locks of a thread that dies, the youngest first, so
 * each kind is refused when the process holds so many locks of any. */
typedef enum fps_life_kind {
    FPS_LIFE_SESSION = 0, /* 1900: there can be any number of them, and room is left for the others */
    FPS_LIFE_MEMBER,      /* 2000 */
    FPS_LIFE_ARENA        /* 2000 */
} fps_life_kind;

/* 0 or an errno. */
int fps_life_init(pthread_mutex_t *life);

/* Takes a life lock that nobody has; then it is no longer marked as that of the dead. FPS_BUSY when somebody has it;
 * FPS_PROCESS_FULL when this process holds as many as it may, which for others than sessions is FPS_SYSTEM with ENOLCK;
 * FPS_SYSTEM with what kept the life thread from starting. */
fps_status fps_life_take(pthread_mutex_t *life, fps_life_kind kind);

/* Gives it back. False when this process does not hold it. */
bool fps_life_give(pthread_mutex_t *life);

/* A forked child holds none of its parent's. */
bool fps_life_holds(const pthread_mutex_t *life);

/* Keeps everybody from taking a lock that nobody has, for a moment: this thread takes it. False when somebody has it.
 */
bool fps_life_block(pthread_mutex_t *life);
void fps_life_unblock(pthread_mutex_t *life);

/* The thread that holds it, 0 when there is none: for messages. */
static inline uint32_t fps_life_holder(const pthread_mutex_t *life) { return fps_lock_holder(life); }

/* Nobody has it: its owner died, or gave it back, or somebody did who had taken it over from the dead. */
static inline bool fps_life_ended(const pthread_mutex_t *life) { return fps_lock_holder(life) == 0; }

/* Its owner died, and nobody has taken it since. */
static inline bool fps_life_died(const pthread_mutex_t *life) { return fps_lock_abandoned(life); }

/* The life of an arena: FPS_OK, FPS_CLOSED or FPS_OWNER_DIED. Two loads. */
static inline fps_status fps_header_state(const fps_header *header)
{
    if (fps_load32_relaxed(&header->closed)) return FPS_CLOSED;
    return fps_life_died(&header->owner_life) ? FPS_OWNER_DIED : FPS_OK;
}

/* Counts the forks between the first process of this family and this one. A child holds none of its parent's locks, so
 * whoever sees another number than before has to open its sessions again. */
uint32_t fps_life_generation(void);

#endif

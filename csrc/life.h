/* Life locks: a robust lock that its owner holds for as long as it lives. The kernel marks the word when the owning
 * *thread* ends, so the locks of a process are taken by one thread that never does. That thread tries, gives back and
 * does nothing else: what has to be waited for is waited for by those who want it, and no fork waits for them. */
#ifndef FPS_LIFE_H
#define FPS_LIFE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* The kernel hands over no more than about 2048 locks of a thread that dies, the youngest first. */
#define FPS_LIVES 2000u

/* Takes a life lock that nobody has. 0; EOWNERDEAD with the lock, which is no longer marked as that of the dead; EBUSY;
 * ENOLCK when this process holds `most` or more already; or what kept the life thread from starting. */
int fps_life_take(pthread_mutex_t *life, uint32_t most);

/* Gives it back. EPERM when this process does not hold it. */
int fps_life_give(pthread_mutex_t *life);

/* A forked child holds none of its parent's. */
bool fps_life_holds(const pthread_mutex_t *life);

/* Counts the forks between the first process of this family and this one. A child holds none of its parent's locks, so
 * whoever sees another number than before has to open its sessions again. */
uint32_t fps_life_generation(void);

#endif

/* A robust lock between processes: the kernel hands it over when its holder dies. How it is made, and who has it. */
#ifndef FPS_ROBUST_H
#define FPS_ROBUST_H

#include <linux/futex.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "sync.h"

/* 0 or an errno. */
int fps_lock_init(pthread_mutex_t *lock);

/* glibc keeps the holder's thread id in the first word of a mutex, with the flags that the kernel's robust list
 * protocol gives it: on Linux this is the one word that user space and kernel agree on. */
static inline uint32_t fps_lock_word(const pthread_mutex_t *lock)
{
    return fps_load32_acquire((const fps_word32 *)(const void *)lock); /* SYNC death */
}

/* The thread that holds the lock now, 0 when it is free or its holder died. */
static inline uint32_t fps_lock_holder(const pthread_mutex_t *lock) { return fps_lock_word(lock) & FUTEX_TID_MASK; }

/* Has the holder died since it took the lock? */
static inline bool fps_lock_abandoned(const pthread_mutex_t *lock)
{
    return (fps_lock_word(lock) & FUTEX_OWNER_DIED) != 0;
}

#endif

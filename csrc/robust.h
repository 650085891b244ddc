/* Robust locks between processes, which the kernel hands over when their holder dies: creation and holder. */
#ifndef FPS_ROBUST_H
#define FPS_ROBUST_H

#include <linux/futex.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "sync.h"

/* 0 or an errno. */
int fps_lock_init(pthread_mutex_t *lock);

/* The first word of glibc's mutex holds the holder's thread id, with the flags of the kernel's robust list protocol: on
 * Linux this word is the interface between user space and kernel. */
static inline uint32_t fps_lock_word(const pthread_mutex_t *lock)
{
    return fps_load32_acquire((const fps_word32 *)(const void *)lock); /* SYNC death */
}

/* The thread that holds the lock, 0 if it is free or its holder died. */
static inline uint32_t fps_lock_holder(const pthread_mutex_t *lock) { return fps_lock_word(lock) & FUTEX_TID_MASK; }

/* Whether the last holder died with the lock. */
static inline bool fps_lock_abandoned(const pthread_mutex_t *lock)
{
    return (fps_lock_word(lock) & FUTEX_OWNER_DIED) != 0;
}

#endif

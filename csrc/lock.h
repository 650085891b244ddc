/* A robust lock between processes: the kernel hands it over when its holder dies. */
#ifndef FPS_LOCK_H
#define FPS_LOCK_H

#include <linux/futex.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "status.h"
#include "sync.h"
#include "wait.h"

/* 0 or an errno. */
int fps_lock_init(pthread_mutex_t *lock);

/* FPS_OK; FPS_BUSY, FPS_TIMEOUT, FPS_INTERRUPTED or the header's state without the lock; `*abandoned` tells that the
 * last holder died: the caller repairs what the lock protects and then calls fps_lock_repaired, before it unlocks. */
fps_status fps_lock_acquire(pthread_mutex_t *lock, const fps_wait *wait, bool *abandoned);
void fps_lock_repaired(pthread_mutex_t *lock);
void fps_lock_release(pthread_mutex_t *lock);

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

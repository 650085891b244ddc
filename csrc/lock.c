#define _GNU_SOURCE
#include "lock.h"

#include <errno.h>
#include <time.h>

static fps_status taken(int error, bool *abandoned)
{
    *abandoned = error == EOWNERDEAD;
    if (error == 0 || error == EOWNERDEAD) return FPS_OK;
    return error == EBUSY || error == ETIMEDOUT ? FPS_BUSY : FPS_BROKEN_LOCK;
}

static fps_status sleep_until(pthread_mutex_t *lock, int64_t until, bool *abandoned)
{
    const struct timespec t = {.tv_sec = until / 1000000000, .tv_nsec = until % 1000000000};
    return taken(pthread_mutex_clocklock(lock, CLOCK_MONOTONIC, &t), abandoned);
}

fps_status fps_lock_acquire(pthread_mutex_t *lock, const fps_wait *wait, bool *abandoned)
{
    fps_status status = taken(pthread_mutex_trylock(lock), abandoned);
    if (status != FPS_BUSY || wait->deadline_ns == FPS_NO_WAIT) return status;

    fps_waiting w = fps_waiting_for(wait->manner, wait, wait->header);
    while (status == FPS_BUSY) {
        status = fps_waiting_step(&w);
        if (status != FPS_OK) break;
        /* Read before trying: a failed exchange would take the holder's cache line away. */
        status = w.until_ns != 0              ? sleep_until(lock, w.until_ns, abandoned)
                 : fps_lock_holder(lock) == 0 ? taken(pthread_mutex_trylock(lock), abandoned)
                                              : FPS_BUSY;
    }
    fps_waiting_count(&w, status);
    return status;
}

void fps_lock_repaired(pthread_mutex_t *lock) { pthread_mutex_consistent(lock); }

void fps_lock_release(pthread_mutex_t *lock) { pthread_mutex_unlock(lock); }

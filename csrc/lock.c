#define _GNU_SOURCE
#include "lock.h"

#include <errno.h>
#include <time.h>

#include "life.h"

#define SPIN_NS 2000
#define SPIN_BEHIND_NS 20000 /* a stripe of 64 KiB that comes from the other core's cache takes 5 to 10 us */
#define SPIN_AWAY_NS 300
#define NAP_NS 100000
#define NAPS 20
#define SLICE_NS (50 * INT64_C(1000000))

int64_t fps_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int fps_lock_init(pthread_mutex_t *lock)
{
    pthread_mutexattr_t attributes;
    int error = pthread_mutexattr_init(&attributes);
    if (error) return error;
    error = pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    if (!error) error = pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    if (!error) error = pthread_mutex_init(lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
    return error;
}

static fps_status taken(int error, bool *abandoned)
{
    *abandoned = error == EOWNERDEAD;
    if (error == 0 || error == EOWNERDEAD) return FPS_OK;
    return error == EBUSY ? FPS_BUSY : error == ETIMEDOUT ? FPS_TIMEOUT : FPS_BROKEN_LOCK;
}

static fps_status spin(pthread_mutex_t *lock, int64_t until, bool *abandoned)
{
    do {
        for (int i = 0; i < 8; i++) {
            /* Look before trying: a failed exchange would take the holder's cache line away from it. */
            if (fps_lock_holder(lock) == 0) {
                fps_status status = taken(pthread_mutex_trylock(lock), abandoned);
                if (status != FPS_BUSY) return status;
            }
            fps_pause();
        }
    } while (fps_now_ns() < until);
    return FPS_BUSY;
}

static fps_status sleep_for(pthread_mutex_t *lock, const fps_wait *wait, bool *abandoned)
{
    for (;;) {
        int64_t now = fps_now_ns();
        if (now >= wait->deadline_ns) return FPS_TIMEOUT;
        int64_t until = wait->deadline_ns - now < SLICE_NS ? wait->deadline_ns : now + SLICE_NS;
        struct timespec t = {.tv_sec = until / 1000000000, .tv_nsec = until % 1000000000};
        fps_status status = taken(pthread_mutex_clocklock(lock, CLOCK_MONOTONIC, &t), abandoned);
        if (status != FPS_TIMEOUT) return status;
        status = wait->header ? fps_header_state(wait->header) : FPS_OK;
        if (status != FPS_OK) return status; /* its holder may be stopped for ever */
        if (wait->interrupted && wait->interrupted(wait->state)) return FPS_INTERRUPTED;
    }
}

fps_status fps_lock_acquire(pthread_mutex_t *lock, const fps_wait *wait, bool *abandoned)
{
    fps_status status = taken(pthread_mutex_trylock(lock), abandoned);
    if (status != FPS_BUSY || wait->deadline_ns == FPS_NO_WAIT) return status;

    static const int64_t spin_ns[] = {SPIN_NS, SPIN_BEHIND_NS, SPIN_AWAY_NS};
    int64_t start = fps_now_ns();
    status = spin(lock, start + spin_ns[wait->manner], abandoned);
    for (int i = 0; i < NAPS && status == FPS_BUSY && wait->manner == FPS_WAIT_AWAY; i++) {
        if (fps_now_ns() >= wait->deadline_ns) break;
        clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){.tv_nsec = NAP_NS}, NULL);
        status = taken(pthread_mutex_trylock(lock), abandoned);
    }
    bool slept = status == FPS_BUSY;
    if (slept) status = sleep_for(lock, wait, abandoned);
    if (wait->meters) {
        fps_count(&wait->meters->lock_waits, 1);
        fps_count(&wait->meters->lock_sleeps, slept);
        fps_count(&wait->meters->lock_wait_ns, (uint64_t)(fps_now_ns() - start));
    }
    return status;
}

void fps_lock_repaired(pthread_mutex_t *lock) { pthread_mutex_consistent(lock); }

void fps_lock_release(pthread_mutex_t *lock) { pthread_mutex_unlock(lock); }

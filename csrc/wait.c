#define _GNU_SOURCE
#include "wait.h"

#include <time.h>

#include "life.h"

#define US INT64_C(1000)
#define MS (1000 * US)
#define LOOKS_A_CLOCK 8u /* while spinning */

/* How to wait: spin while success is likely soon, then nap or sleep. Each number has its reason; the measurements are
 * in docs/decisions.md. */
static const struct manner {
    uint32_t looks;   /* without reading the clock, also for callers that do not wait */
    int64_t spin_ns;  /* then looks with a pause in between, for this time */
    uint32_t naps;    /* then this many naps, */
    int64_t nap_ns;   /* each of this length; */
    int64_t sleep_ns; /* then sleep until woken, at most this long at a time. 0: there is no waker, and naps go on */
    int64_t ask_ns;   /* how often, between naps and sleeps, to ask whether to go on; 0: each time */
} manners[] = {
    [FPS_WAIT_SHORT] = {.spin_ns = 2 * US, .sleep_ns = 50 * MS, .ask_ns = 50 * MS},
    /* A stripe of 64 KiB that comes from the other core's cache takes 5 to 10 us. */
    [FPS_WAIT_BEHIND] = {.spin_ns = 20 * US, .sleep_ns = 50 * MS, .ask_ns = 50 * MS},
    /* The holder keeps the shard in its cache during a nap: two workers reach 0.96 of the throughput of one. */
    [FPS_WAIT_AWAY] = {.spin_ns = 300, .naps = 20, .nap_ns = 100 * US, .sleep_ns = 50 * MS, .ask_ns = 50 * MS},
    /* Pushes of small shards take microseconds, of large ones many milliseconds. */
    [FPS_WAIT_CUT] = {.nap_ns = 50 * US, .ask_ns = 50 * MS},
    /* A row is written in less time than reading the clock takes. */
    [FPS_WAIT_ROW] = {.looks = 64, .nap_ns = 50 * US, .ask_ns = 50 * MS},
    /* A small shard is done in 20 us. */
    [FPS_WAIT_TURN] = {.spin_ns = 20 * US, .nap_ns = 50 * US, .ask_ns = 50 * MS},
    [FPS_WAIT_VERSION] = {.nap_ns = 50 * US},
    /* Another process repairs it, which is rare. */
    [FPS_WAIT_SEAT] = {.nap_ns = 500 * US, .ask_ns = 50 * MS},
    /* Two workers that alternate hand over within the time of a small operation. A sleeper checks the others every
     * 10 ms, since no bell rings for a death. */
    [FPS_WAIT_CLOCK] = {.spin_ns = 20 * US, .sleep_ns = 10 * MS},
};

int64_t fps_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static fps_status look_again(void)
{
    fps_pause();
    return FPS_OK;
}

static fps_status state_of(const fps_waiting *w) { return w->header ? fps_header_state(w->header) : FPS_OK; }

/* Whether to go on. */
static fps_status ask(fps_waiting *w, int64_t now)
{
    const fps_status status = state_of(w);
    if (status != FPS_OK) return status; /* the holder may be stopped forever */
    if (now >= w->wait->deadline_ns) return FPS_TIMEOUT;
    if (now - w->asked_ns < manners[w->manner].ask_ns) return FPS_OK;
    w->asked_ns = now;
    return w->wait->interrupted && w->wait->interrupted(w->wait->state) ? FPS_INTERRUPTED : FPS_OK;
}

fps_status fps_waiting_step(fps_waiting *w)
{
    const struct manner *m = &manners[w->manner];
    w->until_ns = 0;
    if (w->looks++ < m->looks || (w->spins && w->looks % LOOKS_A_CLOCK != 0)) return look_again();
    if (w->wait->deadline_ns == FPS_NO_WAIT) return FPS_BUSY;

    const int64_t now = fps_now_ns();
    const bool spun = w->spins;
    if (w->started_ns == 0) w->started_ns = w->asked_ns = now;
    w->spins = now - w->started_ns < m->spin_ns;
    if (w->spins || spun) return look_again(); /* one more look after the spinning time */

    const fps_status status = ask(w, now);
    w->slept = w->naps >= m->naps;
    if (status != FPS_OK) return status;
    const bool sleeps = w->slept && m->sleep_ns > 0;
    const int64_t most = sleeps ? m->sleep_ns : m->nap_ns, left = w->wait->deadline_ns - now;
    const int64_t until = now + (left < most ? left : most);
    w->naps++;
    if (sleeps) {
        w->until_ns = until;
        return FPS_OK;
    }
    const struct timespec t = {.tv_sec = until / 1000000000, .tv_nsec = until % 1000000000};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
    return state_of(w); /* closed meanwhile: its memory was freed, in which everything looks free */
}

void fps_waiting_count(const fps_waiting *w, fps_status status)
{
    fps_meters *meters = w->wait->meters;
    if (!meters || w->started_ns == 0) return;
    fps_count(&meters->lock_waits, 1);
    fps_count(&meters->lock_sleeps, w->slept || status != FPS_OK);
    fps_count(&meters->lock_wait_ns, (uint64_t)(fps_now_ns() - w->started_ns));
}

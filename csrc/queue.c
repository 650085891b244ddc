#define _GNU_SOURCE
#include "queue.h"

#include <errno.h>
#include <time.h>

#include "wait.h"

#define SPIN_NS 20000
#define LOOKS_A_CLOCK 8u
/* Those who wait for a job are told when it is returned. */
#define MOST_AT_ONCE 64u
#define LONG_NS 100000

void fps_queue_open(fps_queue *q)
{
    pthread_condattr_t monotonic;
    *q = (fps_queue){0};
    pthread_mutex_init(&q->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&q->bell, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

void fps_queue_close(fps_queue *q)
{
    pthread_cond_destroy(&q->bell);
    pthread_mutex_destroy(&q->lock);
}

void fps_queue_put(fps_queue *q, fps_job *job)
{
    job->next = NULL;
    pthread_mutex_lock(&q->lock);
    if (q->first)
        q->last->next = job;
    else
        q->first = job;
    q->last = job;
    fps_store32_relaxed(&q->puts, fps_load32_relaxed(&q->puts) + 1);
    const bool sleeps = q->sleeps;
    pthread_mutex_unlock(&q->lock);
    if (sleeps) pthread_cond_signal(&q->bell);
}

bool fps_queue_is_empty(fps_queue *q)
{
    pthread_mutex_lock(&q->lock);
    const bool empty = q->first == NULL;
    pthread_mutex_unlock(&q->lock);
    return empty;
}

static bool leaves_waiting(fps_job *job, uint32_t state)
{
    uint32_t waits = FPS_JOB_WAITS;
    return atomic_compare_exchange_strong_explicit(&job->state, &waits, state, memory_order_relaxed,
                                                   memory_order_relaxed);
}

bool fps_job_cancel(fps_job *job) { return leaves_waiting(job, FPS_JOB_CANCELLED); }

/* Looks for a while whether a job is put: to wake a sleeper costs microseconds. */
static void spin(const fps_queue *q, uint32_t puts)
{
    const int64_t until = fps_now_ns() + SPIN_NS;
    for (uint32_t looks = 0; fps_load32_relaxed(&q->puts) == puts; looks++) {
        fps_pause();
        if (looks % LOOKS_A_CLOCK == 0 && fps_now_ns() >= until) return;
    }
}

/* The first job; NULL if there is none until the time. Under the lock. */
static fps_job *pop(fps_queue *q, const struct timespec *until)
{
    if (!q->first && until) {
        const uint32_t puts = fps_load32_relaxed(&q->puts);
        pthread_mutex_unlock(&q->lock);
        spin(q, puts);
        pthread_mutex_lock(&q->lock);
    }
    q->sleeps = true;
    while (!q->first)
        if (!until || pthread_cond_timedwait(&q->bell, &q->lock, until) == ETIMEDOUT) break;
    q->sleeps = false;
    fps_job *job = q->first;
    if (!job) return NULL;
    q->first = job->next;
    job->next = NULL;
    return job;
}

fps_job *fps_queue_serve(fps_queue *q, int64_t idle_ns)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += idle_ns / 1000000000;
    until.tv_nsec += idle_ns % 1000000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    int64_t since = 0;
    fps_job *served = NULL, **end = &served;
    for (uint32_t n = 0; n < MOST_AT_ONCE; n++) {
        pthread_mutex_lock(&q->lock);
        fps_job *job = pop(q, n == 0 ? &until : NULL);
        pthread_mutex_unlock(&q->lock);
        if (!job) break;
        *end = job;
        end = &job->next;
        if (!job->run || !leaves_waiting(job, FPS_JOB_BEGUN)) break;
        if (n == 0) since = fps_now_ns();
        job->status = job->run(job);
        if (job->status != FPS_OK || fps_now_ns() - since > LONG_NS) break;
    }
    return served;
}

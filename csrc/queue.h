/* Jobs that one thread runs in the order in which they were put, without the rest of the program having to let it. */
#ifndef FPS_QUEUE_H
#define FPS_QUEUE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "status.h"
#include "sync.h"

typedef enum fps_job_state { FPS_JOB_WAITS = 0, FPS_JOB_BEGUN = 1, FPS_JOB_CANCELLED = 2 } fps_job_state;

/* It belongs to the queue from fps_queue_put until fps_queue_serve returns it. */
typedef struct fps_job {
    struct fps_job *next;
    fps_status (*run)(struct fps_job *job); /* NULL: the caller of fps_queue_serve does what is to be done */
    fps_word32 state;
    fps_status status; /* of `run` */
} fps_job;

typedef struct fps_queue {
    pthread_mutex_t lock;
    pthread_cond_t bell;
    fps_job *first, *last;
    fps_word32 puts; /* jobs that were put, modulo 2^32: whoever serves looks at it for a moment before it sleeps */
    bool sleeps;
} fps_queue;

void fps_queue_open(fps_queue *q);
void fps_queue_close(fps_queue *q);

void fps_queue_put(fps_queue *q, fps_job *job);

bool fps_queue_is_empty(fps_queue *q);

/* Whether it had not begun, so that it never will. */
bool fps_job_cancel(fps_job *job);

/* Waits for a job for this time; NULL if none came. Runs those that wait, and returns them in their order, linked by
 * `next`: until none is left, one failed, or there are many or it took long. One that it cannot run, or that was
 * cancelled, is the last. */
fps_job *fps_queue_serve(fps_queue *q, int64_t idle_ns);

#endif

/* Jobs that one thread runs in the order in which they were put. */
#define _GNU_SOURCE

#include "check.h"
#include "queue.h"

#define SECOND INT64_C(1000000000)

typedef struct task {
    fps_job job;
    fps_word32 *log; /* where the tasks that have run are counted */
    uint32_t turn;   /* of this one */
    uint32_t who, number;
    fps_status ends;
} task;

static fps_status note(fps_job *job)
{
    task *t = (task *)job;
    t->turn = atomic_fetch_add(t->log, 1);
    return t->ends;
}

static uint32_t served(const fps_job *job)
{
    uint32_t n = 0;
    for (; job; job = job->next) n++;
    return n;
}

static void those_that_wait_are_run_in_their_order(void)
{
    fps_queue q;
    fps_word32 log = 0;
    task tasks[5];
    fps_queue_open(&q);
    CHECK(fps_queue_is_empty(&q));
    for (uint32_t i = 0; i < 5; i++) {
        tasks[i] = (task){.job = {.run = note}, .log = &log};
        fps_queue_put(&q, &tasks[i].job);
    }
    CHECK(!fps_queue_is_empty(&q));
    const fps_job *job = fps_queue_serve(&q, SECOND);
    for (uint32_t i = 0; i < 5; i++, job = job->next) {
        CHECK(job == &tasks[i].job);
        CHECK_EQ(tasks[i].turn, i);
        CHECK_EQ(job->status, FPS_OK);
    }
    CHECK(job == NULL && fps_queue_is_empty(&q));
    fps_queue_close(&q);
}

static void one_that_fails_is_returned_before_the_next_one_is_run(void)
{
    fps_queue q;
    fps_word32 log = 0;
    task bad = {.job = {.run = note}, .log = &log, .ends = FPS_TIMEOUT}, good = {.job = {.run = note}, .log = &log};
    fps_queue_open(&q);
    fps_queue_put(&q, &bad.job);
    fps_queue_put(&q, &good.job);
    CHECK_EQ(served(fps_queue_serve(&q, SECOND)), 1);
    CHECK_EQ(bad.job.status, FPS_TIMEOUT);
    CHECK_EQ(log, 1);
    CHECK_EQ(served(fps_queue_serve(&q, SECOND)), 1);
    CHECK_EQ(log, 2);
    fps_queue_close(&q);
}

static void one_of_the_caller_is_returned_when_its_turn_has_come(void)
{
    fps_queue q;
    fps_word32 log = 0;
    task before = {.job = {.run = note}, .log = &log}, theirs = {0}, behind = before;
    fps_queue_open(&q);
    fps_queue_put(&q, &before.job);
    fps_queue_put(&q, &theirs.job);
    fps_queue_put(&q, &behind.job);
    const fps_job *job = fps_queue_serve(&q, SECOND);
    CHECK(job == &before.job && job->next == &theirs.job && job->next->next == NULL);
    CHECK_EQ(log, 1);
    CHECK(fps_queue_serve(&q, SECOND) == &behind.job);
    fps_queue_close(&q);
}

static void one_that_was_cancelled_is_not_run_and_one_that_has_begun_is_not_cancelled(void)
{
    fps_queue q;
    fps_word32 log = 0;
    task first = {.job = {.run = note}, .log = &log}, second = first;
    fps_queue_open(&q);
    fps_queue_put(&q, &first.job);
    fps_queue_put(&q, &second.job);
    CHECK(fps_job_cancel(&first.job) && !fps_job_cancel(&first.job));
    CHECK(fps_queue_serve(&q, SECOND) == &first.job);
    CHECK_EQ(log, 0);
    CHECK(fps_queue_serve(&q, SECOND) == &second.job);
    CHECK_EQ(log, 1);
    CHECK(!fps_job_cancel(&second.job));
    fps_queue_close(&q);
}

static void whoever_serves_waits_for_a_while(void)
{
    fps_queue q;
    fps_queue_open(&q);
    const int64_t before = fps_now_ns();
    CHECK(fps_queue_serve(&q, SECOND / 50) == NULL);
    CHECK(fps_now_ns() - before >= SECOND / 50);
    fps_queue_close(&q);
}

static void *put_later(void *argument)
{
    static fps_word32 log;
    static task late;
    late = (task){.job = {.run = note}, .log = &log};
    nap_us(50000);
    fps_queue_put(argument, &late.job);
    return NULL;
}

static void a_sleeper_is_woken(void)
{
    fps_queue q;
    pthread_t thread;
    fps_queue_open(&q);
    CHECK_EQ(pthread_create(&thread, NULL, put_later, &q), 0);
    const int64_t before = fps_now_ns();
    CHECK(fps_queue_serve(&q, 50 * SECOND) != NULL); /* it would look again when its time is up */
    CHECK(fps_now_ns() - before < 40 * SECOND);
    pthread_join(thread, NULL);
    fps_queue_close(&q);
}

static fps_status last_long(fps_job *job)
{
    nap_us(2000);
    return note(job);
}

static void one_that_took_long_is_returned_before_the_next_one_is_run(void)
{
    fps_queue q;
    fps_word32 log = 0;
    task slow = {.job = {.run = last_long}, .log = &log}, behind = {.job = {.run = note}, .log = &log};
    fps_queue_open(&q);
    fps_queue_put(&q, &slow.job);
    fps_queue_put(&q, &behind.job);
    CHECK(fps_queue_serve(&q, SECOND) == &slow.job && slow.job.next == NULL);
    CHECK(fps_queue_serve(&q, SECOND) == &behind.job);
    fps_queue_close(&q);
}

#define N_PUTS 20000u

typedef struct producer {
    fps_queue *queue;
    uint32_t who;
} producer;

static void *put_many(void *argument)
{
    const producer *p = argument;
    for (uint32_t i = 0; i < N_PUTS; i++) {
        task *t = calloc(1, sizeof *t);
        CHECK(t != NULL);
        static fps_word32 log;
        *t = (task){.job = {.run = note}, .log = &log, .who = p->who, .number = i};
        fps_queue_put(p->queue, &t->job);
    }
    return NULL;
}

static void none_is_lost_that_threads_put_at_once(void)
{
    fps_queue q;
    pthread_t threads[2];
    const producer producers[2] = {{&q, 0}, {&q, 1}};
    uint32_t next[2] = {0};
    fps_queue_open(&q);
    for (uint32_t i = 0; i < 2; i++) CHECK_EQ(pthread_create(&threads[i], NULL, put_many, (void *)&producers[i]), 0);
    for (uint32_t n = 0, turn = 0; n < 2 * N_PUTS;) {
        fps_job *job = fps_queue_serve(&q, 20 * SECOND);
        CHECK(job != NULL);
        while (job) {
            task *t = (task *)job;
            CHECK_EQ(t->turn, turn++);
            CHECK_EQ(t->number, next[t->who]++);
            job = job->next;
            free(t);
            n++;
        }
    }
    for (uint32_t i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    CHECK(fps_queue_is_empty(&q));
    fps_queue_close(&q);
}

int main(void)
{
    static const test tests[] = {
        TEST(those_that_wait_are_run_in_their_order),
        TEST(one_that_fails_is_returned_before_the_next_one_is_run),
        TEST(one_of_the_caller_is_returned_when_its_turn_has_come),
        TEST(one_that_was_cancelled_is_not_run_and_one_that_has_begun_is_not_cancelled),
        TEST(whoever_serves_waits_for_a_while),
        TEST(a_sleeper_is_woken),
        TEST(one_that_took_long_is_returned_before_the_next_one_is_run),
        TEST(none_is_lost_that_threads_put_at_once),
    };
    return run_tests(tests, COUNT(tests));
}

#define _GNU_SOURCE
#include "life.h"

#include "check.h"

typedef struct seen {
    pid_t thread;
    int inside;
    int calls;
} seen;

static int look(void *argument)
{
    seen *s = argument;
    CHECK_EQ(s->inside, 0); /* calls take turns, so these need no lock */
    s->inside = 1;
    if (s->calls > 0) CHECK_EQ(s->thread, gettid());
    s->thread = gettid();
    s->calls++;
    s->inside = 0;
    return s->calls;
}

static void *look_often(void *argument)
{
    for (int i = 0; i < 500; i++) fps_life_run(look, argument);
    return NULL;
}

static void all_calls_run_on_one_thread_and_take_turns(void)
{
    seen s = {0};
    pthread_t threads[4];
    for (size_t i = 0; i < COUNT(threads); i++) CHECK_EQ(pthread_create(&threads[i], NULL, look_often, &s), 0);
    for (size_t i = 0; i < COUNT(threads); i++) pthread_join(threads[i], NULL);
    CHECK_EQ(s.calls, 2000);
    CHECK(s.thread != gettid());
}

static int fail_with_eagain(void *unused)
{
    (void)unused;
    errno = EAGAIN;
    return -7;
}

static void the_answer_and_errno_come_back(void)
{
    seen s = {0};
    CHECK_EQ(fps_life_run(fail_with_eagain, NULL), -7);
    CHECK_EQ(errno, EAGAIN);
    CHECK_EQ(fps_life_run(look, &s), 1);
    CHECK_EQ(errno, 0);
}

static int read_signal_mask(void *argument) { return pthread_sigmask(SIG_BLOCK, NULL, argument); }

static void signals_are_left_to_other_threads(void)
{
    sigset_t mask, mine;
    CHECK_EQ(fps_life_run(read_signal_mask, &mask), 0);
    CHECK(sigismember(&mask, SIGINT) && sigismember(&mask, SIGTERM) && sigismember(&mask, SIGCHLD));
    pthread_sigmask(SIG_BLOCK, NULL, &mine);
    CHECK(!sigismember(&mine, SIGINT));
}

/* Every test runs in a forked process, so the count does not begin at 0 here. */
static uint32_t parents_generation;

static void check_grandchild(void *unused)
{
    (void)unused;
    CHECK_EQ(fps_life_generation(), parents_generation + 2);
}

static void check_child(void *argument)
{
    seen *parents = argument, s = {0};
    CHECK_EQ(fps_life_generation(), parents_generation + 1);
    CHECK_EQ(fps_life_run(look, &s), 1);
    CHECK_EQ(fps_life_run(look, &s), 2);
    CHECK(s.thread != gettid() && s.thread != parents->thread);
    expect_success(start_process(check_grandchild, NULL));
}

static void the_generation_grows_in_a_forked_child_that_has_a_life_thread_of_its_own(void)
{
    seen s = {0};
    CHECK_EQ(fps_life_run(look, &s), 1);
    parents_generation = fps_life_generation();
    for (int i = 0; i < 2; i++) expect_success(start_process(check_child, &s));
    CHECK_EQ(fps_life_generation(), parents_generation);
    CHECK_EQ(fps_life_run(look, &s), 2);
}

#ifndef __SANITIZE_ADDRESS__
/* AddressSanitizer's allocator does not survive a fork beside a busy thread: the child hangs in the sanitizer. */
static _Atomic bool enough;

static void *look_until_enough(void *argument)
{
    while (!enough) fps_life_run(look, argument);
    return NULL;
}

static void look_once(void *unused)
{
    (void)unused;
    seen s = {0};
    CHECK_EQ(fps_life_run(look, &s), 1);
}

static void a_child_forked_in_the_middle_of_a_call_can_run_calls(void)
{
    seen s = {0};
    pthread_t threads[2];
    CHECK_EQ(fps_life_run(look, &s), 1);
    for (size_t i = 0; i < COUNT(threads); i++) CHECK_EQ(pthread_create(&threads[i], NULL, look_until_enough, &s), 0);
    for (int i = 0; i < 50; i++) expect_success(start_process(look_once, NULL));
    enough = true;
    for (size_t i = 0; i < COUNT(threads); i++) pthread_join(threads[i], NULL);
}

static void *look_for_the_first_time(void *argument)
{
    fps_life_run(look, argument);
    return NULL;
}

static void look_or_hang(void *unused)
{
    alarm(2);
    look_once(unused);
    CHECK_EQ(fps_life_generation(), parents_generation + 1);
}

static void fork_during_the_first_call(void *delay)
{
    seen s = {0};
    pthread_t thread;
    parents_generation = fps_life_generation();
    CHECK_EQ(pthread_create(&thread, NULL, look_for_the_first_time, &s), 0);
    for (volatile int i = *(int *)delay; i > 0; i--) {
    }
    expect_success(start_process(look_or_hang, NULL));
    pthread_join(thread, NULL);
}

static void a_child_forked_during_the_first_call_can_run_calls(void)
{
    for (int delay = 0; delay < 64000; delay += 800) expect_success(start_process(fork_during_the_first_call, &delay));
}
#endif

int main(void)
{
    static const test tests[] = {
        TEST(all_calls_run_on_one_thread_and_take_turns),
        TEST(the_answer_and_errno_come_back),
        TEST(signals_are_left_to_other_threads),
        TEST(the_generation_grows_in_a_forked_child_that_has_a_life_thread_of_its_own),
#ifndef __SANITIZE_ADDRESS__
        TEST(a_child_forked_in_the_middle_of_a_call_can_run_calls),
        TEST(a_child_forked_during_the_first_call_can_run_calls),
#endif
    };
    return run_tests(tests, COUNT(tests));
}

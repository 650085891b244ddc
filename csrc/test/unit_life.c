#define _GNU_SOURCE
#include "life.h"

#include "check.h"

static pthread_mutex_t *make_lives(size_t n)
{
    pthread_mutex_t *lives = share(n * sizeof *lives);
    for (size_t i = 0; i < n; i++) CHECK_EQ(fps_life_init(&lives[i]), 0);
    return lives;
}

static void drop_lives(pthread_mutex_t *lives, size_t n) { munmap(lives, n * sizeof *lives); }

static fps_status take(pthread_mutex_t *life) { return fps_life_take(life, FPS_LIFE_ARENA); }

static void a_life_lock_is_taken_once_and_given_back_once(void)
{
    pthread_mutex_t *life = make_lives(1);
    CHECK(!fps_life_holds(life));
    CHECK(!fps_life_give(life));
    CHECK_EQ(take(life), FPS_OK);
    CHECK(fps_life_holds(life));
    CHECK_EQ(take(life), FPS_BUSY);
    CHECK(fps_life_give(life));
    CHECK(!fps_life_holds(life));
    CHECK(fps_life_ended(life));
    CHECK(!fps_life_give(life));
    CHECK_EQ(take(life), FPS_OK);
    CHECK(fps_life_give(life));
    drop_lives(life, 1);
}

static void *take_and_end(void *life)
{
    CHECK_EQ(take(life), FPS_OK);
    return NULL;
}

static void a_life_lock_outlives_the_thread_that_asked_for_it(void)
{
    pthread_mutex_t *life = make_lives(1);
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, take_and_end, life), 0);
    pthread_join(thread, NULL);
    CHECK(fps_life_holds(life));
    CHECK(!fps_life_died(life));
    CHECK(fps_life_give(life));
    drop_lives(life, 1);
}

static void take_and_die(void *life)
{
    CHECK_EQ(take(life), FPS_OK);
    die();
}

static void a_life_lock_of_the_dead_says_so_once(void)
{
    pthread_mutex_t *life = make_lives(1);
    expect_killed(start_process(take_and_die, life));
    CHECK(fps_life_died(life));
    CHECK_EQ(take(life), FPS_OK);
    CHECK(!fps_life_died(life));
    CHECK(fps_life_give(life));
    CHECK_EQ(take(life), FPS_OK);
    CHECK(fps_life_give(life));
    drop_lives(life, 1);
}

/* Sessions leave room for ranks and arenas; all of them count. */
static void a_process_holds_no_more_than_it_may(void)
{
    enum { SESSIONS = 1900, LIVES = 2000 };
    pthread_mutex_t *lives = make_lives(LIVES + 1);
    for (int i = 0; i < SESSIONS; i++)
        CHECK_EQ(fps_life_take(&lives[i], i % 2 ? FPS_LIFE_SESSION : FPS_LIFE_ARENA), FPS_OK);
    CHECK_EQ(fps_life_take(&lives[SESSIONS], FPS_LIFE_SESSION), FPS_PROCESS_FULL);
    for (int i = SESSIONS; i < LIVES; i++)
        CHECK_EQ(fps_life_take(&lives[i], i % 2 ? FPS_LIFE_MEMBER : FPS_LIFE_ARENA), FPS_OK);
    CHECK_EQ(fps_life_take(&lives[LIVES], FPS_LIFE_SESSION), FPS_PROCESS_FULL);
    for (fps_life_kind kind = FPS_LIFE_MEMBER; kind <= FPS_LIFE_ARENA; kind++) {
        errno = 0;
        CHECK_EQ(fps_life_take(&lives[LIVES], kind), FPS_SYSTEM);
        CHECK_EQ(errno, ENOLCK);
    }
    CHECK(fps_life_give(&lives[0]));
    CHECK_EQ(take(&lives[1]), FPS_BUSY); /* which counts for nothing */
    CHECK_EQ(take(&lives[LIVES]), FPS_OK);
    for (int i = 1; i <= LIVES; i++) CHECK(fps_life_give(&lives[i]));
    CHECK_EQ(fps_life_take(&lives[0], FPS_LIFE_SESSION), FPS_OK);
    CHECK(fps_life_give(&lives[0]));
    drop_lives(lives, LIVES + 1);
}

static void a_life_that_has_ended_can_be_kept_from_being_taken(void)
{
    pthread_mutex_t *lives = make_lives(2);
    expect_killed(start_process(take_and_die, &lives[0]));
    for (int i = 0; i < 2; i++) { /* of the dead, and of nobody */
        CHECK(fps_life_ended(&lives[i]));
        CHECK(fps_life_block(&lives[i]));
        CHECK(!fps_life_ended(&lives[i]));
        CHECK(!fps_life_holds(&lives[i]));
        CHECK_EQ(take(&lives[i]), FPS_BUSY);
        fps_life_unblock(&lives[i]);
        CHECK(fps_life_ended(&lives[i]));
        CHECK(!fps_life_died(&lives[i]));
        CHECK_EQ(take(&lives[i]), FPS_OK);
        CHECK(!fps_life_block(&lives[i]));
        CHECK(fps_life_give(&lives[i]));
    }
    drop_lives(lives, 2);
}

static void signals_are_left_to_other_threads(void)
{
    pthread_mutex_t *life = make_lives(1);
    char path[64], line[256];
    unsigned long long blocked = 0, some = 1ULL << (SIGINT - 1) | 1ULL << (SIGTERM - 1) | 1ULL << (SIGCHLD - 1);
    sigset_t mine;
    CHECK_EQ(take(life), FPS_OK);
    snprintf(path, sizeof path, "/proc/self/task/%u/status", fps_life_holder(life));
    FILE *status = fopen(path, "r");
    CHECK(status != NULL);
    while (fgets(line, sizeof line, status)) sscanf(line, "SigBlk: %llx", &blocked);
    fclose(status);
    CHECK_EQ(blocked & some, some);
    pthread_sigmask(SIG_BLOCK, NULL, &mine);
    CHECK(!sigismember(&mine, SIGINT));
    CHECK(fps_life_give(life));
    drop_lives(life, 1);
}

/* Every test runs in a forked process, so the count does not begin at 0 here. */
static uint32_t parents_generation;

static void check_grandchild(void *unused)
{
    (void)unused;
    CHECK_EQ(fps_life_generation(), parents_generation + 2);
}

/* The first is the parent's. */
static void check_child(void *argument)
{
    pthread_mutex_t *lives = argument;
    CHECK_EQ(fps_life_generation(), parents_generation + 1);
    CHECK(!fps_life_holds(&lives[0]));
    CHECK(!fps_life_give(&lives[0]));
    CHECK_EQ(take(&lives[0]), FPS_BUSY);
    CHECK_EQ(take(&lives[1]), FPS_OK);
    CHECK(fps_life_holder(&lives[1]) != fps_life_holder(&lives[0]));
    CHECK(fps_life_give(&lives[1]));
    expect_success(start_process(check_grandchild, NULL));
}

static void a_forked_child_has_a_generation_and_a_life_thread_of_its_own(void)
{
    pthread_mutex_t *lives = make_lives(2);
    CHECK_EQ(take(&lives[0]), FPS_OK);
    parents_generation = fps_life_generation();
    for (int i = 0; i < 2; i++) expect_success(start_process(check_child, lives));
    CHECK_EQ(fps_life_generation(), parents_generation);
    CHECK(fps_life_holds(&lives[0]));
    CHECK(fps_life_give(&lives[0]));
    drop_lives(lives, 2);
}

/* What may be taken by several at once. */
typedef struct struggle {
    pthread_mutex_t *life;
    fps_word32 inside;
    fps_word32 enough;
} struggle;

static void *take_and_give(void *argument)
{
    struggle *s = argument;
    while (!fps_load32_relaxed(&s->enough)) {
        const fps_status status = take(s->life);
        if (status == FPS_BUSY) continue;
        CHECK_EQ(status, FPS_OK);
        CHECK_EQ(atomic_fetch_add(&s->inside, 1), 0);
        atomic_fetch_sub(&s->inside, 1);
        CHECK(fps_life_give(s->life));
    }
    return NULL;
}

static void threads_never_hold_a_life_lock_at_once(void)
{
    struggle s = {.life = make_lives(1)};
    pthread_t threads[4];
    for (size_t i = 0; i < COUNT(threads); i++) CHECK_EQ(pthread_create(&threads[i], NULL, take_and_give, &s), 0);
    nap_us(200000);
    fps_store32_relaxed(&s.enough, 1);
    for (size_t i = 0; i < COUNT(threads); i++) pthread_join(threads[i], NULL);
    drop_lives(s.life, 1);
}

#ifndef __SANITIZE_ADDRESS__
/* AddressSanitizer's allocator does not survive a fork beside a busy thread: the child hangs in the sanitizer. */
static void take_another(void *life)
{
    CHECK_EQ(take(life), FPS_OK);
    CHECK(fps_life_give(life));
}

static void a_child_forked_in_the_middle_of_a_call_can_take_a_lock(void)
{
    pthread_mutex_t *lives = make_lives(2);
    struggle s = {.life = &lives[0]};
    pthread_t threads[2];
    for (size_t i = 0; i < COUNT(threads); i++) CHECK_EQ(pthread_create(&threads[i], NULL, take_and_give, &s), 0);
    for (int i = 0; i < 50; i++) expect_success(start_process(take_another, &lives[1]));
    fps_store32_relaxed(&s.enough, 1);
    for (size_t i = 0; i < COUNT(threads); i++) pthread_join(threads[i], NULL);
    drop_lives(lives, 2);
}

static void *take_for_the_first_time(void *life)
{
    CHECK_EQ(take(life), FPS_OK);
    return NULL;
}

static void take_or_hang(void *life)
{
    alarm(2);
    take_another(life);
    CHECK_EQ(fps_life_generation(), parents_generation + 1);
}

typedef struct first {
    pthread_mutex_t *lives;
    int delay;
} first;

static void fork_during_the_first_call(void *argument)
{
    const first *f = argument;
    pthread_t thread;
    parents_generation = fps_life_generation();
    CHECK_EQ(pthread_create(&thread, NULL, take_for_the_first_time, &f->lives[0]), 0);
    for (volatile int i = f->delay; i > 0; i--) {
    }
    expect_success(start_process(take_or_hang, &f->lives[1]));
    pthread_join(thread, NULL);
    CHECK(fps_life_give(&f->lives[0]));
}

static void a_child_forked_during_the_first_call_can_take_a_lock(void)
{
    first f = {.lives = make_lives(2)};
    for (; f.delay < 64000; f.delay += 800) expect_success(start_process(fork_during_the_first_call, &f));
    drop_lives(f.lives, 2);
}
#endif

int main(void)
{
    static const test tests[] = {
        TEST(a_life_lock_is_taken_once_and_given_back_once),
        TEST(a_life_lock_outlives_the_thread_that_asked_for_it),
        TEST(a_life_lock_of_the_dead_says_so_once),
        TEST(a_process_holds_no_more_than_it_may),
        TEST(a_life_that_has_ended_can_be_kept_from_being_taken),
        TEST(signals_are_left_to_other_threads),
        TEST(a_forked_child_has_a_generation_and_a_life_thread_of_its_own),
        TEST(threads_never_hold_a_life_lock_at_once),
#ifndef __SANITIZE_ADDRESS__
        TEST(a_child_forked_in_the_middle_of_a_call_can_take_a_lock),
        TEST(a_child_forked_during_the_first_call_can_take_a_lock),
#endif
    };
    return run_tests(tests, COUNT(tests));
}

#define _GNU_SOURCE
#include "check.h"

typedef struct worker {
    fps_arena *arena;
    fps_session *session;
    fps_word32 *ready;
    uint32_t n_sessions;
} worker;

static void hold_sessions(void *argument)
{
    worker *w = argument;
    for (uint32_t i = 0; i < w->n_sessions; i++) open_session(w->arena);
    fps_store32_release(w->ready, 1);
    for (;;) pause();
}

static pid_t start_worker(worker *w)
{
    fps_store32_relaxed(w->ready, 0);
    pid_t pid = start_process(hold_sessions, w);
    await(w->ready, 1);
    return pid;
}

static void sessions_take_the_free_seats_in_order(void)
{
    fps_arena arena = make_arena(4096, 4096, 3);
    fps_session s[3];
    for (uint32_t i = 0; i < 3; i++) {
        s[i] = open_session(&arena);
        CHECK_EQ(s[i].index, i);
        CHECK_EQ(s[i].seq, 0);
        CHECK(s[i].seat == &arena.seats[i]);
        CHECK_EQ(fps_load32_relaxed(&s[i].seat->state), FPS_SEAT_LIVE);
        CHECK_EQ(fps_load32_relaxed(&s[i].seat->pid), getpid());
    }
    for (uint32_t i = 0; i < 3; i++) fps_session_close(&s[i]);
    drop_arena(&arena);
}

static void no_seat_left_is_full_and_a_closed_one_is_used_again(void)
{
    fps_arena arena = make_arena(4096, 4096, 2);
    fps_session a = open_session(&arena), b = open_session(&arena), c;
    CHECK_EQ(fps_session_open(&arena, &c), FPS_FULL);
    fps_session_close(&a);
    CHECK(a.seat == NULL);
    fps_session_close(&a); /* a second close is harmless */
    CHECK_EQ(fps_load32_relaxed(&arena.seats[0].state), FPS_SEAT_FREE);
    c = open_session(&arena);
    CHECK_EQ(c.index, 0);
    fps_session_close(&b);
    fps_session_close(&c);
    drop_arena(&arena);
}

static void a_reused_seat_goes_on_with_its_numbers_and_meters(void)
{
    fps_arena arena = make_arena(4096, 4096, 1);
    float *ones = filled(1024, 1);
    for (uint64_t i = 0; i < 3; i++) {
        fps_session s = open_session(&arena);
        CHECK_EQ(s.seq, i);
        CHECK_EQ(push(&s, ones), FPS_OK);
        CHECK_EQ(s.seq, i + 1);
        CHECK_EQ(fps_load_relaxed(&s.seat->meters.pushes), i + 1);
        fps_session_close(&s);
    }
    free(ones);
    drop_arena(&arena);
}

static void a_dead_sessions_seat_is_taken_when_no_other_is_free(void)
{
    fps_arena arena = make_arena(4096, 4096, 3);
    fps_word32 *ready = share(sizeof *ready);
    worker w = {.arena = &arena, .ready = ready, .n_sessions = 2};
    pid_t pid = start_worker(&w);
    fps_session a = open_session(&arena), b;
    CHECK_EQ(a.index, 2);
    CHECK_EQ(fps_session_open(&arena, &b), FPS_FULL);
    kill_process(pid);
    CHECK_EQ(fps_load32_relaxed(&arena.seats[0].state), FPS_SEAT_LIVE);
    fps_session_close(&a);
    a = open_session(&arena);
    CHECK_EQ(a.index, 2); /* a free seat comes first: the dead one may still be adopted */
    b = open_session(&arena);
    CHECK_EQ(b.index, 0);
    CHECK_EQ(fps_load32_relaxed(&b.seat->pid), getpid());
    fps_session_close(&a);
    fps_session_close(&b);
    munmap(ready, sizeof *ready);
    drop_arena(&arena);
}

static void only_a_dead_owners_session_is_adopted_and_only_once(void)
{
    fps_arena arena = make_arena(4096, 4096, 2);
    fps_word32 *ready = share(sizeof *ready);
    worker w = {.arena = &arena, .ready = ready, .n_sessions = 1};
    fps_session s;
    CHECK_EQ(fps_session_adopt(&arena, 0, &s), FPS_NOT_ABANDONED); /* free */
    CHECK_EQ(fps_session_adopt(&arena, 2, &s), FPS_NOT_ABANDONED); /* not there */
    pid_t pid = start_worker(&w);
    CHECK_EQ(fps_session_adopt(&arena, 0, &s), FPS_NOT_ABANDONED); /* alive */
    kill_process(pid);
    CHECK_EQ(fps_session_adopt(&arena, 0, &s), FPS_OK);
    CHECK_EQ(s.index, 0);
    CHECK_EQ(fps_load32_relaxed(&s.seat->pid), getpid());
    fps_session again;
    CHECK_EQ(fps_session_adopt(&arena, 0, &again), FPS_NOT_ABANDONED);
    fps_session_close(&s);
    CHECK_EQ(fps_session_adopt(&arena, 0, &again), FPS_NOT_ABANDONED);
    munmap(ready, sizeof *ready);
    drop_arena(&arena);
}

static void close_inherited(void *argument)
{
    worker *w = argument;
    fps_session_close(w->session);
    CHECK(w->session->seat == NULL);
}

static void a_forked_child_that_closes_its_parents_session_changes_nothing(void)
{
    fps_arena arena = make_arena(4096, 4096, 1);
    fps_session s = open_session(&arena), other;
    worker w = {.session = &s};
    uint32_t holder = fps_lock_holder(&s.seat->life);
    expect_success(start_process(close_inherited, &w));
    CHECK_EQ(fps_lock_holder(&s.seat->life), holder);
    CHECK(!fps_lock_abandoned(&s.seat->life));
    CHECK_EQ(fps_load32_relaxed(&s.seat->state), FPS_SEAT_LIVE);
    CHECK_EQ(fps_session_open(&arena, &other), FPS_FULL);
    fps_session_close(&s);
    drop_arena(&arena);
}

static void open_and_return(void *argument)
{
    worker *w = argument;
    fps_session s = open_session(w->arena);
    CHECK_EQ(s.index, 1);
}

static void a_process_that_exits_without_closing_gives_its_seat_up(void)
{
    fps_arena arena = make_arena(4096, 4096, 2);
    fps_session a = open_session(&arena);
    worker w = {.arena = &arena};
    for (int i = 0; i < 3; i++) expect_success(start_process(open_and_return, &w));
    fps_session_close(&a);
    drop_arena(&arena);
}

static void *open_briefly(void *argument)
{
    fps_arena *arena = argument;
    float *ones = filled(1024, 1);
    for (int i = 0; i < 200; i++) {
        fps_session s;
        fps_status status = fps_session_open(arena, &s);
        if (status == FPS_FULL) continue;
        CHECK_EQ(status, FPS_OK);
        CHECK_EQ(push(&s, ones), FPS_OK);
        fps_session_close(&s);
    }
    free(ones);
    return NULL;
}

static void threads_that_open_and_close_never_share_a_seat(void)
{
    fps_arena arena = make_arena(4096, 4096, 2);
    pthread_t threads[4];
    for (size_t i = 0; i < COUNT(threads); i++) CHECK_EQ(pthread_create(&threads[i], NULL, open_briefly, &arena), 0);
    for (size_t i = 0; i < COUNT(threads); i++) pthread_join(threads[i], NULL);
    uint64_t pushes = 0, numbers = 0;
    for (size_t i = 0; i < 2; i++) {
        pushes += fps_load_relaxed(&arena.seats[i].meters.pushes);
        numbers += fps_load_relaxed(&arena.seats[i].applied_seq);
    }
    CHECK_EQ(pushes, numbers);
    CHECK_EQ(pushes, fps_load_relaxed(&arena.header->version));
    drop_arena(&arena);
}

/* What the kernel unlocks at a death is a list that it follows for 2048 entries. */
static void a_process_that_dies_with_many_sessions_gives_all_of_them_up(void)
{
    fps_arena arena = make_arena(4096, 4096, FPS_MAX_SESSIONS);
    fps_word32 *ready = share(sizeof *ready);
    worker w = {.arena = &arena, .ready = ready, .n_sessions = 1800};
    kill_process(start_worker(&w));
    for (uint32_t i = 0; i < w.n_sessions; i++) CHECK(fps_lock_abandoned(&arena.seats[i].life));
    munmap(ready, sizeof *ready);
    drop_arena(&arena);
}

int main(void)
{
    static const test tests[] = {
        TEST(sessions_take_the_free_seats_in_order),
        TEST(no_seat_left_is_full_and_a_closed_one_is_used_again),
        TEST(a_reused_seat_goes_on_with_its_numbers_and_meters),
        TEST(a_dead_sessions_seat_is_taken_when_no_other_is_free),
        TEST(only_a_dead_owners_session_is_adopted_and_only_once),
        TEST(a_forked_child_that_closes_its_parents_session_changes_nothing),
        TEST(a_process_that_exits_without_closing_gives_its_seat_up),
        TEST(threads_that_open_and_close_never_share_a_seat),
        TEST(a_process_that_dies_with_many_sessions_gives_all_of_them_up),
    };
    return run_tests(tests, COUNT(tests));
}

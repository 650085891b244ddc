#define _GNU_SOURCE
#include "member.h"
#include "tables.h"

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
    CHECK_EQ(try_session(&arena, &c), FPS_FULL);
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
    CHECK_EQ(try_session(&arena, &b), FPS_FULL);
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
    CHECK_EQ(adopt_session(&arena, 0, &s), FPS_NOT_ABANDONED); /* free */
    CHECK_EQ(adopt_session(&arena, 2, &s), FPS_NOT_ABANDONED); /* not there */
    pid_t pid = start_worker(&w);
    CHECK_EQ(adopt_session(&arena, 0, &s), FPS_NOT_ABANDONED); /* alive */
    kill_process(pid);
    CHECK_EQ(adopt_session(&arena, 0, &s), FPS_OK);
    CHECK_EQ(s.index, 0);
    CHECK_EQ(fps_load32_relaxed(&s.seat->pid), getpid());
    fps_session again;
    CHECK_EQ(adopt_session(&arena, 0, &again), FPS_NOT_ABANDONED);
    fps_session_close(&s);
    CHECK_EQ(adopt_session(&arena, 0, &again), FPS_NOT_ABANDONED);
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
    uint32_t holder = fps_life_holder(&s.seat->life);
    expect_success(start_process(close_inherited, &w));
    CHECK_EQ(fps_life_holder(&s.seat->life), holder);
    CHECK(!fps_life_died(&s.seat->life));
    CHECK_EQ(fps_load32_relaxed(&s.seat->state), FPS_SEAT_LIVE);
    CHECK_EQ(try_session(&arena, &other), FPS_FULL);
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
        fps_status status = try_session(arena, &s);
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
    for (uint32_t i = 0; i < w.n_sessions; i++) CHECK(fps_life_died(&arena.seats[i].life));
    munmap(ready, sizeof *ready);
    drop_arena(&arena);
}

/* Seats whose owners died in the middle of a row, while somebody keeps the table's lock, without which no row can be
 * repaired: nobody can take these seats over. */
#define N_DEAD 8u

typedef struct ruin {
    fps_arena arena;
    const fps_table *t;
    uint64_t key; /* that the next one dies with */
} ruin;

static void die_in_a_row(void *argument)
{
    ruin *r = argument;
    fps_session s = open_session(&r->arena);
    const uint32_t row = fps_rowset_search(r->t, r->key, fps_hash(r->key));
    uint64_t word;
    CHECK_EQ(fps_row_try(&s, r->t, row, r->key, &word), FPS_OK);
    die();
}

static void make_ruin(ruin *r, uint32_t n_sessions)
{
    fps_table_layout table = table_of(3, 0, 100);
    fps_arena_spec spec = spec_of_tables(&table, 1, n_sessions);
    const float ones[3] = {1, 1, 1};
    spec.n_members = 3;
    spec.policy = (fps_policy){.kind = FPS_SSP, .staleness = 1};
    CHECK_EQ(fps_arena_create(&spec, &r->arena), FPS_OK);
    r->t = &r->arena.tables[0];
    for (r->key = 1; r->key <= N_DEAD; r->key++) {
        fps_session s = open_session(&r->arena);
        CHECK_EQ(push_rows(&s, 0, &r->key, 1, ones, NULL), FPS_OK);
        fps_session_close(&s);
    }
    for (r->key = 1; r->key <= N_DEAD; r->key++) expect_killed(start_process(die_in_a_row, r));
}

static void hold_table(ruin *r)
{
    const fps_wait wait = wait_ms(20000);
    CHECK_EQ(fps_rowset_enter(&r->arena, r->t, &wait), FPS_OK);
}

/* One second for each of the dead would be far beyond it. */
static void an_open_that_cannot_succeed_ends_at_its_deadline_however_many_died(void)
{
    ruin r;
    fps_session s;
    make_ruin(&r, N_DEAD);
    hold_table(&r);
    const int64_t start = fps_now_ns();
    const fps_wait wait = wait_ms(50), no_wait = {.deadline_ns = FPS_NO_WAIT};
    CHECK_EQ(fps_session_open(&r.arena, &wait, &s), FPS_TIMEOUT);
    CHECK(fps_now_ns() >= wait.deadline_ns);
    CHECK_EQ(fps_session_adopt(&r.arena, 3, &wait, &s), FPS_TIMEOUT);
    CHECK_EQ(fps_session_open(&r.arena, &no_wait, &s), FPS_BUSY);
    CHECK(fps_now_ns() - start < INT64_C(5000000000));
    CHECK_EQ(fps_session_blocker(&r.arena), gettid());
    for (uint32_t i = 0; i < N_DEAD; i++) CHECK(fps_life_died(&r.arena.seats[i].life)); /* left to the next */
    fps_rowset_leave(r.t);
    CHECK_EQ(fps_session_blocker(&r.arena), 0);
    s = open_session(&r.arena);
    CHECK(!fps_row_written(&r.arena, s.index));
    fps_session_close(&s);
    drop_arena(&r.arena);
}

static int stop_at_once(void *asked)
{
    ++*(int *)asked;
    return 1;
}

static void an_open_that_waits_is_called_off_when_somebody_interrupts_it(void)
{
    ruin r;
    fps_session s;
    int asked = 0;
    fps_wait wait = wait_ms(20000);
    wait.interrupted = stop_at_once;
    wait.state = &asked;
    make_ruin(&r, N_DEAD);
    hold_table(&r);
    CHECK_EQ(fps_session_open(&r.arena, &wait, &s), FPS_INTERRUPTED);
    CHECK_EQ(asked, 1);
    fps_rowset_leave(r.t);
    CHECK_EQ(fps_session_open(&r.arena, &wait, &s), FPS_OK); /* nothing to wait for */
    CHECK_EQ(asked, 1);
    fps_session_close(&s);
    drop_arena(&r.arena);
}

typedef struct opening {
    ruin *ruin;
    fps_session session;
    fps_status status;
    fps_word32 done;
} opening;

static void *open_in_the_end(void *argument)
{
    opening *o = argument;
    o->status = try_session(&o->ruin->arena, &o->session);
    fps_store32_release(&o->done, 1);
    return NULL;
}

static void start_opening(opening *o, ruin *r, pthread_t *thread)
{
    *o = (opening){.ruin = r};
    make_ruin(r, N_DEAD);
    hold_table(r);
    CHECK_EQ(pthread_create(thread, NULL, open_in_the_end, o), 0);
    nap_us(50000);
    CHECK_EQ(fps_load32_acquire(&o->done), 0);
}

static void take_part(void *arena)
{
    const fps_wait wait = wait_ms(20000);
    fps_worker w;
    CHECK_EQ(fps_worker_join(arena, FPS_ANY_RANK, 0, &wait, &w), FPS_OK);
    for (uint64_t clock = 0; clock < 10; clock++) CHECK_EQ(fps_worker_end_step(&w, clock, &wait), FPS_OK);
    fps_worker_leave(&w);
}

/* A life lock, a rank, a fork, and others at the board: none of them waits for the seats of the dead. */
static void nobody_waits_behind_an_open_that_waits(void)
{
    ruin r;
    opening o;
    pthread_t thread;
    start_opening(&o, &r, &thread);
    fps_arena other = make_arena(4096, 4096, 1);
    fps_session s = open_session(&other);
    take_part(&r.arena);
    pid_t pids[2];
    for (int i = 0; i < 2; i++) pids[i] = start_process(take_part, &r.arena);
    for (int i = 0; i < 2; i++) expect_success(pids[i]);
    fps_session_close(&s);
    drop_arena(&other);
    CHECK_EQ(fps_load32_acquire(&o.done), 0);
    fps_rowset_leave(r.t);
    pthread_join(thread, NULL);
    CHECK_EQ(o.status, FPS_OK);
    fps_session_close(&o.session);
    drop_arena(&r.arena);
}

static void an_open_that_waits_takes_the_first_seat_that_comes_free(void)
{
    ruin r;
    opening o;
    pthread_t thread;
    make_ruin(&r, N_DEAD + 1);
    o = (opening){.ruin = &r};
    fps_session s = open_session(&r.arena);
    CHECK_EQ(s.index, N_DEAD);
    hold_table(&r);
    CHECK_EQ(pthread_create(&thread, NULL, open_in_the_end, &o), 0);
    nap_us(20000);
    CHECK_EQ(fps_load32_acquire(&o.done), 0);
    fps_session_close(&s);
    pthread_join(thread, NULL);
    CHECK_EQ(o.status, FPS_OK);
    CHECK_EQ(o.session.index, N_DEAD);
    fps_rowset_leave(r.t);
    fps_session_close(&o.session);
    drop_arena(&r.arena);
}

static void an_open_that_waits_ends_when_the_arena_is_closed(void)
{
    ruin r;
    opening o;
    pthread_t thread;
    start_opening(&o, &r, &thread);
    fps_arena_retire(&r.arena);
    pthread_join(thread, NULL);
    CHECK_EQ(o.status, FPS_CLOSED);
    fps_rowset_leave(r.t);
    fps_arena_close(&r.arena);
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
        TEST(an_open_that_cannot_succeed_ends_at_its_deadline_however_many_died),
        TEST(an_open_that_waits_is_called_off_when_somebody_interrupts_it),
        TEST(nobody_waits_behind_an_open_that_waits),
        TEST(an_open_that_waits_takes_the_first_seat_that_comes_free),
        TEST(an_open_that_waits_ends_when_the_arena_is_closed),
    };
    return run_tests(tests, COUNT(tests));
}

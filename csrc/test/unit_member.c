#define _GNU_SOURCE
#include <linux/futex.h>
#include <sys/syscall.h>

#include "check.h"
#include "member.h"

#define SECOND (INT64_C(1000) * 1000000)
#define SHORT_MS 30   /* for waits that end in vain */
#define LONG_MS 50000 /* for waits that do not: a test that hangs is ended by its alarm */

static const fps_policy lockstep = {.kind = FPS_SSP}, bsp = {.kind = FPS_BSP};

static fps_arena make_board(fps_policy policy, uint32_t n_members)
{
    fps_arena arena;
    fps_arena_spec spec = spec_of(4096, 4096, 1);
    spec.n_members = n_members;
    spec.policy = policy;
    CHECK_EQ(fps_arena_create(&spec, &arena), FPS_OK);
    return arena;
}

static fps_status try_join(const fps_arena *arena, uint32_t rank, fps_worker *out)
{
    fps_wait wait = wait_ms(LONG_MS);
    return fps_worker_join(arena, rank, 0, &wait, out);
}

static fps_worker join(const fps_arena *arena, uint32_t rank)
{
    fps_worker worker;
    CHECK_EQ(try_join(arena, rank, &worker), FPS_OK);
    CHECK(rank == FPS_ANY_RANK || worker.rank == rank);
    return worker;
}

static fps_worker join_from_afar(const fps_arena *arena, uint32_t rank, int64_t lease_ns)
{
    fps_wait wait = wait_ms(LONG_MS);
    fps_worker worker;
    CHECK_EQ(fps_worker_join(arena, rank, lease_ns, &wait, &worker), FPS_OK);
    return worker;
}

static fps_status begin_within(fps_worker *worker, int64_t ms)
{
    fps_wait wait = wait_ms(ms);
    uint64_t clock, progress;
    return fps_worker_begin(worker, &wait, &clock, &progress);
}

static fps_status begin(fps_worker *worker) { return begin_within(worker, LONG_MS); }

static fps_status end_step(fps_worker *worker)
{
    fps_wait wait = wait_ms(LONG_MS);
    return fps_worker_end_step(worker, fps_load_relaxed(&worker->roster.members[worker->rank].clock), &wait);
}

static fps_status renew(fps_worker *worker)
{
    fps_wait wait = wait_ms(LONG_MS);
    return fps_worker_renew(worker, &wait);
}

static fps_status come_back(fps_worker *worker)
{
    fps_wait wait = wait_ms(LONG_MS);
    return fps_worker_return(worker, &wait, &worker->generation);
}

static uint64_t clock_of(const fps_arena *arena, uint32_t rank)
{
    return fps_load_relaxed(&arena->members[rank].clock);
}

static fps_status give(fps_worker *worker, uint32_t weight)
{
    fps_wait wait = wait_ms(LONG_MS);
    bool counted = true;
    fps_status status = fps_worker_give(worker, clock_of(worker->arena, worker->rank), weight, &wait, &counted);
    CHECK(counted);
    return status;
}

static uint64_t progress_of(const fps_arena *arena) { return fps_load_relaxed(&arena->board->progress); }
static uint64_t expelled_of(const fps_arena *arena) { return fps_load_relaxed(&arena->board->expelled); }
static uint32_t state_of(const fps_arena *arena, uint32_t rank)
{
    return fps_load32_relaxed(&arena->members[rank].state);
}

/* Another process that is a member: it does `steps` steps and then waits for `go`. */
typedef struct other {
    const fps_arena *arena;
    uint32_t rank;
    uint32_t steps;
    fps_worker *worker;
    struct signals {
        fps_word32 ready, go, answer;
    } *shared;
} other;

static other other_of(const fps_arena *arena, uint32_t rank)
{
    return (other){.arena = arena, .rank = rank, .shared = share(sizeof(struct signals))};
}

static pid_t start_other(void (*body)(void *), other *o)
{
    pid_t pid = start_process(body, o);
    await(&o->shared->ready, 1);
    return pid;
}

static void drop_other(other *o) { munmap(o->shared, sizeof *o->shared); }

static fps_worker join_as(other *o)
{
    fps_worker worker = join(o->arena, o->rank);
    for (uint32_t i = 0; i < o->steps; i++) CHECK_EQ(end_step(&worker), FPS_OK);
    return worker;
}

static void join_and_stay(void *argument)
{
    other *o = argument;
    join_as(o);
    fps_store32_release(&o->shared->ready, 1);
    for (;;) pause();
}

static void ranks_are_taken_in_order(void)
{
    fps_arena arena = make_board(lockstep, 3);
    fps_worker w[3], more;
    for (uint32_t i = 0; i < 3; i++) {
        w[i] = join(&arena, FPS_ANY_RANK);
        CHECK_EQ(w[i].rank, i);
        CHECK_EQ(state_of(&arena, i), FPS_MEMBER_HERE);
        CHECK_EQ(fps_load32_relaxed(&arena.members[i].pid), getpid());
        CHECK(!fps_life_ended(&arena.members[i].life));
    }
    CHECK_EQ(try_join(&arena, FPS_ANY_RANK, &more), FPS_FULL);
    for (uint32_t i = 0; i < 3; i++) fps_worker_leave(&w[i]);
    drop_arena(&arena);
}

static void a_taken_rank_is_busy_and_one_that_is_not_there_is_full(void)
{
    fps_arena arena = make_board(lockstep, 3);
    fps_worker a = join(&arena, 1), b, more;
    CHECK_EQ(try_join(&arena, 1, &more), FPS_BUSY);
    CHECK_EQ(try_join(&arena, 3, &more), FPS_FULL);
    CHECK_EQ(try_join(&arena, FPS_ANY_RANK - 1, &more), FPS_FULL);
    b = join(&arena, FPS_ANY_RANK);
    CHECK_EQ(b.rank, 0);
    fps_worker_leave(&b);
    b = join(&arena, 2);
    fps_worker c = join(&arena, FPS_ANY_RANK);
    CHECK_EQ(c.rank, 0);
    fps_worker_leave(&a);
    fps_worker_leave(&b);
    fps_worker_leave(&c);
    drop_arena(&arena);
}

static void an_arena_without_members_is_full(void)
{
    fps_arena arena = make_board((fps_policy){0}, 0);
    fps_worker more;
    CHECK_EQ(try_join(&arena, FPS_ANY_RANK, &more), FPS_FULL);
    CHECK_EQ(try_join(&arena, 0, &more), FPS_FULL);
    drop_arena(&arena);
}

static void leaving_frees_the_rank(void)
{
    fps_arena arena = make_board(lockstep, 1);
    uint64_t generation = 0;
    for (int i = 0; i < 5; i++) {
        fps_worker w = join(&arena, FPS_ANY_RANK);
        CHECK(w.generation > generation);
        generation = w.generation;
        fps_worker_leave(&w);
        fps_worker_leave(&w); /* a second time is harmless */
        CHECK_EQ(state_of(&arena, 0), FPS_MEMBER_FREE);
        CHECK(fps_life_ended(&arena.members[0].life));
        CHECK(!fps_life_died(&arena.members[0].life));
    }
    CHECK_EQ(expelled_of(&arena), 0);
    drop_arena(&arena);
}

static void leaving_lets_the_others_go_on(void)
{
    fps_arena arena = make_board(lockstep, 2);
    fps_worker a = join(&arena, 0), b = join(&arena, 1);
    CHECK_EQ(end_step(&b), FPS_OK);
    CHECK_EQ(begin_within(&b, SHORT_MS), FPS_TIMEOUT);
    fps_worker_leave(&a);
    CHECK_EQ(begin(&b), FPS_OK);
    fps_worker_leave(&b);
    drop_arena(&arena);
}

static void who_is_ahead_times_out_until_the_other_has_caught_up(void)
{
    fps_arena arena = make_board((fps_policy){.kind = FPS_SSP, .staleness = 2}, 2);
    fps_worker a = join(&arena, 0), b = join(&arena, 1);
    fps_wait wait = wait_ms(LONG_MS);
    uint64_t clock = 77, progress = 77;
    for (uint64_t i = 0; i < 3; i++) {
        CHECK_EQ(fps_worker_begin(&a, &wait, &clock, &progress), FPS_OK);
        CHECK_EQ(clock, i);
        CHECK_EQ(progress, 0);
        CHECK_EQ(end_step(&a), FPS_OK);
    }
    wait = wait_ms(SHORT_MS);
    CHECK_EQ(fps_worker_begin(&a, &wait, &clock, &progress), FPS_TIMEOUT);
    CHECK(fps_now_ns() >= wait.deadline_ns);
    CHECK_EQ(clock, 3);
    CHECK_EQ(progress, 0);
    CHECK_EQ(expelled_of(&arena), 0); /* slow is not dead */
    CHECK_EQ(fps_load32_relaxed(&arena.board->sleepers), 0);
    CHECK_EQ(end_step(&b), FPS_OK);
    wait = wait_ms(LONG_MS);
    CHECK_EQ(fps_worker_begin(&a, &wait, &clock, &progress), FPS_OK);
    CHECK_EQ(progress, 1);
    CHECK_EQ(begin(&b), FPS_OK);
    fps_worker_leave(&a);
    fps_worker_leave(&b);
    drop_arena(&arena);
}

static void without_bounds_nobody_waits(void)
{
    fps_arena arena = make_board((fps_policy){.kind = FPS_ASYNC}, 2);
    fps_worker a = join(&arena, 0), b = join(&arena, 1);
    for (int i = 0; i < 50; i++) {
        CHECK_EQ(begin_within(&a, 0), FPS_OK);
        CHECK_EQ(end_step(&a), FPS_OK);
    }
    CHECK_EQ(fps_board_blocker(&a.roster), 2);
    fps_worker_leave(&a);
    fps_worker_leave(&b);
    drop_arena(&arena);
}

static void the_blocker_is_the_first_that_others_wait_for(void)
{
    fps_arena arena = make_board(lockstep, 4);
    fps_worker a = join(&arena, 0), b = join(&arena, 2), c = join(&arena, 3);
    fps_roster roster = fps_board_roster(&arena);
    CHECK_EQ(fps_board_blocker(&roster), 0);
    CHECK_EQ(end_step(&a), FPS_OK);
    CHECK_EQ(fps_board_blocker(&roster), 2);
    CHECK_EQ(end_step(&b), FPS_OK);
    CHECK_EQ(fps_board_blocker(&roster), 3);
    fps_worker_leave(&c);
    CHECK_EQ(fps_board_blocker(&roster), 0);
    fps_worker_leave(&a);
    fps_worker_leave(&b);
    CHECK_EQ(fps_board_blocker(&roster), 4);
    drop_arena(&arena);
}

static void rounds_close_and_late_gradients_are_told(void)
{
    fps_arena arena = make_board((fps_policy){.kind = FPS_BSP, .backup = 1}, 2);
    fps_worker a = join(&arena, 0), b = join(&arena, 1);
    fps_wait wait = wait_ms(LONG_MS);
    bool counted = true;
    CHECK_EQ(give(&a, 3), FPS_OK);
    CHECK_EQ(begin(&a), FPS_OK);
    CHECK_EQ(fps_worker_give(&b, 0, 1, &wait, &counted), FPS_OK);
    CHECK(!counted);
    CHECK_EQ(begin(&b), FPS_OK);
    CHECK_EQ(give(&b, 4), FPS_OK);
    CHECK_EQ(progress_of(&arena), 2);
    fps_worker_leave(&a);
    fps_worker_leave(&b);
    drop_arena(&arena);
}

static fps_status catch_up(fps_worker *worker, uint64_t round)
{
    fps_wait wait = wait_ms(LONG_MS);
    return fps_worker_catch_up(worker, round, &wait);
}

static void who_catches_up_gives_to_the_open_round(void)
{
    fps_arena arena = make_board((fps_policy){.kind = FPS_BSP, .backup = 1}, 3);
    fps_worker a = join(&arena, 0), b = join(&arena, 1), c = join(&arena, 2);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(give(&a, 1), FPS_OK);
        CHECK_EQ(give(&b, 1), FPS_OK);
    }
    CHECK_EQ(clock_of(&arena, 2), 0);
    CHECK_EQ(catch_up(&c, 3), FPS_OK);
    CHECK_EQ(clock_of(&arena, 2), 3);
    CHECK_EQ(progress_of(&arena), 3);
    CHECK_EQ(catch_up(&c, 1), FPS_OK);
    CHECK_EQ(clock_of(&arena, 2), 3);
    CHECK_EQ(begin(&c), FPS_OK);
    CHECK_EQ(give(&c, 2), FPS_OK); /* which counts */
    CHECK_EQ(give(&a, 1), FPS_OK);
    CHECK_EQ(progress_of(&arena), 4);
    fps_worker_leave(&a);
    fps_worker_leave(&b);
    fps_worker_leave(&c);
    drop_arena(&arena);
}

static void who_catches_up_is_heard_of(void)
{
    fps_arena arena = make_board((fps_policy){.kind = FPS_BSP, .straggler_ns = 3 * SECOND}, 2);
    fps_worker a = join(&arena, 0), b = join(&arena, 1);
    int64_t before = fps_now_ns();
    fps_store_relaxed(&arena.members[1].heard_ns, 0);
    CHECK_EQ(catch_up(&b, 0), FPS_OK);
    CHECK((int64_t)fps_load_relaxed(&arena.members[1].heard_ns) >= before);
    fps_worker_leave(&a);
    fps_worker_leave(&b);
    drop_arena(&arena);
}

static void who_is_expelled_does_not_catch_up(void)
{
    fps_arena arena = make_board(bsp, 2);
    fps_worker a = join(&arena, 0), b = join(&arena, 1);
    CHECK_EQ(give(&a, 1), FPS_OK);
    CHECK_EQ(give(&b, 1), FPS_OK);
    fps_store_relaxed(&arena.members[1].clock, 0);
    fps_store32_relaxed(&arena.members[1].state, FPS_MEMBER_OUT);
    CHECK_EQ(catch_up(&b, 1), FPS_EXPELLED);
    CHECK_EQ(clock_of(&arena, 1), 0);
    CHECK_EQ(come_back(&b), FPS_OK);
    CHECK_EQ(catch_up(&b, 1), FPS_OK);
    CHECK_EQ(clock_of(&arena, 1), 1);
    fps_store_relaxed(&arena.members[1].generation, b.generation + 1); /* somebody else has its rank */
    CHECK_EQ(catch_up(&b, 2), FPS_EXPELLED);
    CHECK_EQ(clock_of(&arena, 1), 1);
    fps_store_relaxed(&arena.members[1].generation, b.generation);
    fps_arena_retire(&arena);
    CHECK_EQ(catch_up(&a, 2), FPS_CLOSED);
    fps_worker_leave(&a);
    fps_worker_leave(&b);
    fps_arena_close(&arena);
}

static void a_killed_member_is_expelled_by_who_waits_for_it(void)
{
    fps_arena arena = make_board(lockstep, 2);
    other o = other_of(&arena, 0);
    pid_t pid = start_other(join_and_stay, &o);
    fps_worker w = join(&arena, 1);
    CHECK_EQ(end_step(&w), FPS_OK);
    CHECK_EQ(begin_within(&w, SHORT_MS), FPS_TIMEOUT);
    kill_process(pid);
    CHECK_EQ(state_of(&arena, 0), FPS_MEMBER_HERE); /* nobody watches */
    CHECK_EQ(begin(&w), FPS_OK);
    CHECK_EQ(state_of(&arena, 0), FPS_MEMBER_OUT);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(end_step(&w), FPS_OK);
        CHECK_EQ(begin(&w), FPS_OK);
    }
    CHECK_EQ(expelled_of(&arena), 1);
    fps_worker again = join(&arena, 0);
    CHECK_EQ(clock_of(&arena, 0), 3);
    CHECK_EQ(fps_load32_relaxed(&arena.members[0].pid), getpid());
    CHECK_EQ(end_step(&w), FPS_OK);
    CHECK_EQ(begin_within(&w, SHORT_MS), FPS_TIMEOUT);
    CHECK_EQ(end_step(&again), FPS_OK);
    CHECK_EQ(begin(&w), FPS_OK);
    fps_worker_leave(&again);
    CHECK(fps_life_ended(&arena.members[0].life));
    fps_worker_leave(&w);
    drop_other(&o);
    drop_arena(&arena);
}

static void wait_for_the_others(void *argument)
{
    other *o = argument;
    fps_worker worker = join_as(o);
    fps_store32_release(&o->shared->ready, 1);
    CHECK_EQ(begin(&worker), FPS_OK);
    fps_worker_leave(&worker);
}

static void a_death_is_seen_by_who_waits_already(void)
{
    fps_arena arena = make_board(lockstep, 2);
    other victim = other_of(&arena, 0), waiter = other_of(&arena, 1);
    waiter.steps = 1;
    pid_t dying = start_other(join_and_stay, &victim), waiting = start_other(wait_for_the_others, &waiter);
    await(&arena.board->sleepers, 1);
    kill_process(dying);
    expect_success(waiting);
    CHECK_EQ(expelled_of(&arena), 1);
    drop_other(&victim);
    drop_other(&waiter);
    drop_arena(&arena);
}

static void a_killed_members_rank_is_taken_at_once(void)
{
    fps_arena arena = make_board(lockstep, 1);
    other o = other_of(&arena, 0);
    for (int i = 0; i < 3; i++) {
        fps_store32_relaxed(&o.shared->ready, 0);
        pid_t pid = start_other(join_and_stay, &o);
        fps_worker more;
        CHECK_EQ(try_join(&arena, FPS_ANY_RANK, &more), FPS_FULL);
        CHECK_EQ(try_join(&arena, 0, &more), FPS_BUSY);
        kill_process(pid); /* the next one that joins puts it out */
    }
    fps_worker w = join_from_afar(&arena, 0, 1000 * SECOND);
    CHECK_EQ(state_of(&arena, 0), FPS_MEMBER_AWAY);
    CHECK_EQ(expelled_of(&arena), 3);
    CHECK_EQ(renew(&w), FPS_OK);
    fps_worker_leave(&w);
    w = join(&arena, 0);
    fps_worker_leave(&w);
    drop_other(&o);
    drop_arena(&arena);
}

static void join_and_exit(void *argument) { join_as(argument); }

static void a_process_that_exits_without_leaving_is_expelled(void)
{
    fps_arena arena = make_board(lockstep, 2);
    other o = other_of(&arena, 0);
    fps_worker w = join(&arena, 1);
    expect_success(start_process(join_and_exit, &o));
    CHECK_EQ(end_step(&w), FPS_OK);
    CHECK_EQ(begin(&w), FPS_OK);
    CHECK_EQ(expelled_of(&arena), 1);
    fps_worker_leave(&w);
    drop_other(&o);
    drop_arena(&arena);
}

static void be_stopped_and_return(void *argument)
{
    other *o = argument;
    fps_worker worker = join_as(o);
    bool counted;
    fps_wait wait = wait_ms(LONG_MS);
    fps_store32_release(&o->shared->ready, 1);
    await(&o->shared->go, 1); /* stopped meanwhile */
    CHECK_EQ(begin(&worker), FPS_EXPELLED);
    CHECK_EQ(end_step(&worker), FPS_EXPELLED);
    CHECK_EQ(renew(&worker), FPS_EXPELLED);
    CHECK_EQ(fps_worker_give(&worker, 0, 1, &wait, &counted), FPS_EXPELLED);
    CHECK_EQ(clock_of(o->arena, o->rank), 0);
    CHECK_EQ(come_back(&worker), FPS_OK);
    CHECK_EQ(clock_of(o->arena, o->rank), progress_of(o->arena));
    CHECK_EQ(begin(&worker), FPS_OK);
    fps_store32_release(&o->shared->answer, 1);
    await(&o->shared->go, 2);
    CHECK_EQ(end_step(&worker), FPS_OK);
    fps_worker_leave(&worker);
}

/* Stops it, and returns when it is. */
static void stop_process(pid_t pid)
{
    int status = 0;
    CHECK_EQ(kill(pid, SIGSTOP), 0);
    CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
    CHECK(WIFSTOPPED(status));
}

static void a_stopped_member_is_expelled_and_returns(void)
{
    fps_policy policy = {.kind = FPS_SSP, .straggler_ns = SECOND / 2};
    fps_arena arena = make_board(policy, 2);
    other o = other_of(&arena, 1);
    pid_t pid = start_other(be_stopped_and_return, &o);
    stop_process(pid);
    fps_worker w = join(&arena, 0), more;
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(end_step(&w), FPS_OK);
        CHECK_EQ(begin(&w), FPS_OK);
    }
    CHECK_EQ(expelled_of(&arena), 1);
    CHECK_EQ(state_of(&arena, 1), FPS_MEMBER_OUT);
    CHECK_EQ(try_join(&arena, 1, &more), FPS_BUSY); /* its rank is still its own */
    CHECK_EQ(try_join(&arena, FPS_ANY_RANK, &more), FPS_FULL);
    CHECK_EQ(kill(pid, SIGCONT), 0);
    fps_store32_release(&o.shared->go, 1);
    await(&o.shared->answer, 1);
    CHECK_EQ(clock_of(&arena, 1), 3);
    CHECK_EQ(state_of(&arena, 1), FPS_MEMBER_HERE);
    CHECK_EQ(end_step(&w), FPS_OK);
    CHECK_EQ(progress_of(&arena), 3); /* it is waited for again */
    fps_store32_release(&o.shared->go, 2);
    expect_success(pid);
    CHECK_EQ(begin(&w), FPS_OK);
    fps_worker_leave(&w);
    drop_other(&o);
    drop_arena(&arena);
}

/* As if nothing had been heard of it, and nothing had gone on, since the machine started. */
static void make_silent(const fps_arena *arena, uint32_t rank)
{
    fps_store_relaxed(&arena->members[rank].heard_ns, 0);
    fps_store_relaxed(&arena->board->progressed_ns, 0);
}

static fps_policy strict(uint32_t kind) { return (fps_policy){.kind = kind, .straggler_ns = 3 * SECOND}; }

static void only_a_silent_member_that_others_wait_for_is_expelled(void)
{
    fps_arena arena = make_board(strict(FPS_SSP), 3);
    fps_worker a = join(&arena, 0), b = join(&arena, 1), c = join(&arena, 2);
    CHECK_EQ(end_step(&a), FPS_OK);
    CHECK_EQ(end_step(&b), FPS_OK);
    make_silent(&arena, 0); /* ahead */
    make_silent(&arena, 2);
    CHECK_EQ(begin(&c), FPS_OK);
    CHECK_EQ(begin_within(&b, SHORT_MS), FPS_TIMEOUT);
    make_silent(&arena, 2);
    fps_store_relaxed(&arena.board->progressed_ns, (uint64_t)fps_now_ns()); /* it has only now become the slowest */
    CHECK_EQ(begin_within(&b, SHORT_MS), FPS_TIMEOUT);
    make_silent(&arena, 1); /* nobody puts itself out */
    make_silent(&arena, 2);
    CHECK_EQ(renew(&c), FPS_OK); /* no word of it */
    CHECK_EQ(begin(&b), FPS_OK);
    CHECK_EQ(expelled_of(&arena), 1);
    CHECK_EQ(state_of(&arena, 0), FPS_MEMBER_HERE);
    CHECK_EQ(renew(&c), FPS_EXPELLED);
    CHECK_EQ(come_back(&c), FPS_OK);
    CHECK_EQ(renew(&c), FPS_OK);
    fps_worker_leave(&a);
    fps_worker_leave(&b);
    fps_worker_leave(&c);
    drop_arena(&arena);
}

static void progress_gives_the_slowest_its_full_time(void)
{
    fps_arena arena = make_board(strict(FPS_SSP), 2);
    fps_worker a = join(&arena, 0), b = join(&arena, 1);
    CHECK_EQ(end_step(&a), FPS_OK);
    int64_t before = fps_now_ns();
    CHECK_EQ(end_step(&b), FPS_OK);
    CHECK((int64_t)fps_load_relaxed(&arena.board->progressed_ns) >= before);
    make_silent(&arena, 0);
    before = fps_now_ns();
    CHECK_EQ(begin(&a), FPS_OK);
    CHECK((int64_t)fps_load_relaxed(&arena.members[0].heard_ns) >= before);
    fps_worker_leave(&a);
    fps_worker_leave(&b);
    drop_arena(&arena);
}

static void without_a_limit_a_silent_member_stays(void)
{
    fps_arena arena = make_board(lockstep, 2);
    fps_worker a = join(&arena, 0), b = join(&arena, 1);
    CHECK_EQ(end_step(&b), FPS_OK);
    make_silent(&arena, 0);
    CHECK_EQ(begin_within(&b, SHORT_MS), FPS_TIMEOUT);
    CHECK_EQ(expelled_of(&arena), 0);
    CHECK_EQ(renew(&a), FPS_OK);
    fps_worker_leave(&a);
    fps_worker_leave(&b);
    drop_arena(&arena);
}

static void who_was_expelled_with_its_gradient_given_returns_behind_it(void)
{
    fps_arena arena = make_board(strict(FPS_BSP), 3);
    fps_worker a = join(&arena, 0), b = join(&arena, 1);
    fps_roster roster = fps_board_roster(&arena);
    fps_decision d;
    CHECK_EQ(give(&a, 2), FPS_OK);
    fps_store32_relaxed(&arena.members[0].state, FPS_MEMBER_OUT);
    CHECK_EQ(come_back(&a), FPS_OK);
    CHECK_EQ(clock_of(&arena, 0), 1);
    CHECK_EQ(begin_within(&a, SHORT_MS), FPS_TIMEOUT);
    CHECK_EQ(give(&b, 3), FPS_OK);
    CHECK_EQ(begin(&a), FPS_OK);
    fps_clock_decision(&roster, &d);
    CHECK_EQ(d.round, 1);
    CHECK_EQ(d.n_given, 2);
    CHECK_EQ(d.weights[0], 2);
    fps_worker_leave(&a);
    fps_worker_leave(&b);
    drop_arena(&arena);
}

static void returning_without_need_keeps_the_clock(void)
{
    fps_arena arena = make_board(lockstep, 2);
    fps_worker a = join(&arena, 0), b = join(&arena, 1);
    CHECK_EQ(end_step(&a), FPS_OK);
    CHECK_EQ(come_back(&a), FPS_OK);
    CHECK_EQ(clock_of(&arena, 0), 1);
    fps_worker_leave(&a);
    fps_worker_leave(&b);
    drop_arena(&arena);
}

static void a_member_elsewhere_lives_until_its_lease_ends(void)
{
    fps_arena arena = make_board(lockstep, 2);
    fps_worker far = join_from_afar(&arena, 0, 20 * 1000000), near = join(&arena, 1);
    CHECK_EQ(end_step(&near), FPS_OK);
    CHECK_EQ(begin(&near), FPS_OK); /* it said nothing: this ends by itself */
    CHECK_EQ(expelled_of(&arena), 1);
    CHECK_EQ(state_of(&arena, 0), FPS_MEMBER_FREE); /* nothing of it is left to hold the rank */
    CHECK_EQ(begin(&far), FPS_EXPELLED);
    CHECK_EQ(end_step(&far), FPS_EXPELLED);
    CHECK_EQ(renew(&far), FPS_EXPELLED);
    far.lease_ns = 1000 * SECOND;
    CHECK_EQ(come_back(&far), FPS_OK);
    CHECK_EQ(far.rank, 0);
    CHECK_EQ(clock_of(&arena, 0), 1);
    CHECK_EQ(end_step(&far), FPS_OK);
    fps_worker_leave(&far);
    CHECK_EQ(state_of(&arena, 0), FPS_MEMBER_FREE);
    fps_worker_leave(&near);
    drop_arena(&arena);
}

static void who_lost_its_rank_to_another_does_not_return(void)
{
    fps_arena arena = make_board(lockstep, 2);
    fps_worker far = join_from_afar(&arena, 0, 1000 * SECOND);
    fps_store_relaxed(&arena.members[0].lease_ns, 1);
    fps_worker next = join(&arena, 0);
    CHECK_EQ(expelled_of(&arena), 1);
    CHECK_EQ(renew(&far), FPS_EXPELLED);
    CHECK_EQ(begin(&far), FPS_EXPELLED);
    CHECK_EQ(come_back(&far), FPS_BUSY);
    CHECK_EQ(end_step(&next), FPS_OK);
    fps_worker_leave(&far); /* it has nothing to leave */
    CHECK_EQ(state_of(&arena, 0), FPS_MEMBER_HERE);
    CHECK_EQ(begin(&next), FPS_OK);
    fps_worker_leave(&next);
    drop_arena(&arena);
}

static void every_word_of_it_prolongs_a_lease(void)
{
    fps_arena arena = make_board(lockstep, 2);
    fps_worker far = join_from_afar(&arena, 0, 1000 * SECOND), near = join(&arena, 1), more;
    fps_status (*const words[])(fps_worker *) = {renew, begin, end_step};
    for (size_t i = 0; i < COUNT(words); i++) {
        fps_store_relaxed(&arena.members[0].lease_ns, (uint64_t)fps_now_ns() - 1); /* over, but nobody looked */
        int64_t before = fps_now_ns();
        CHECK_EQ(words[i](&far), FPS_OK);
        CHECK((int64_t)fps_load_relaxed(&arena.members[0].lease_ns) >= before + far.lease_ns);
        CHECK_EQ(try_join(&arena, 0, &more), FPS_BUSY);
    }
    CHECK_EQ(expelled_of(&arena), 0);
    fps_worker_leave(&far);
    fps_worker_leave(&near);
    drop_arena(&arena);
}

static void a_renewed_lease_outlives_its_first_term(void)
{
    fps_arena arena = make_board(lockstep, 2);
    fps_worker far = join_from_afar(&arena, 0, SECOND), near = join(&arena, 1);
    int64_t first_term = (int64_t)fps_load_relaxed(&arena.members[0].lease_ns);
    CHECK_EQ(end_step(&near), FPS_OK);
    while (fps_now_ns() <= first_term) {
        CHECK_EQ(begin_within(&near, SHORT_MS), FPS_TIMEOUT);
        CHECK_EQ(renew(&far), FPS_OK);
    }
    CHECK_EQ(begin_within(&near, SHORT_MS), FPS_TIMEOUT);
    CHECK_EQ(expelled_of(&arena), 0);
    fps_worker_leave(&far);
    fps_worker_leave(&near);
    drop_arena(&arena);
}

/* It is the others that may find it gone. */
static void nobody_ends_its_own_lease_by_waiting(void)
{
    fps_arena arena = make_board(lockstep, 2);
    fps_worker far = join_from_afar(&arena, 0, 1000 * SECOND), near = join(&arena, 1);
    CHECK_EQ(end_step(&far), FPS_OK);
    fps_store_relaxed(&arena.members[0].lease_ns, 1);
    CHECK_EQ(begin_within(&far, SHORT_MS), FPS_TIMEOUT);
    CHECK_EQ(expelled_of(&arena), 0);
    fps_worker_leave(&far);
    fps_worker_leave(&near);
    drop_arena(&arena);
}

static void a_waiting_process_goes_on_when_another_ends_its_step(void)
{
    fps_arena arena = make_board(lockstep, 2);
    fps_worker w = join(&arena, 0);
    other o = other_of(&arena, 1);
    o.steps = 1;
    pid_t pid = start_other(wait_for_the_others, &o);
    await(&arena.board->sleepers, 1);
    CHECK_EQ(end_step(&w), FPS_OK);
    expect_success(pid);
    CHECK_EQ(expelled_of(&arena), 0);
    fps_worker_leave(&w);
    drop_other(&o);
    drop_arena(&arena);
}

/* Sleeps as a waiter does, but without looking up now and then: only the bell ends it. */
static void sleep_until_the_bell(void *argument)
{
    other *o = argument;
    fps_board *board = o->arena->board;
    uint32_t before = fps_load32_relaxed(&board->bell);
    atomic_fetch_add(&board->sleepers, 1);
    fps_store32_release(&o->shared->ready, 1);
    while (fps_load32_relaxed(&board->bell) == before) syscall(SYS_futex, &board->bell, FUTEX_WAIT, before, NULL, 0, 0);
    atomic_fetch_sub(&board->sleepers, 1);
}

static void all_that_makes_progress_rings(void)
{
    fps_arena arena = make_board(lockstep, 2);
    fps_worker a = join(&arena, 0), b = join(&arena, 1);
    other o = other_of(&arena, 0);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(end_step(&b), FPS_OK);
        fps_store32_relaxed(&o.shared->ready, 0);
        pid_t pid = start_other(sleep_until_the_bell, &o);
        nap_us(20000);
        if (i == 0) CHECK_EQ(end_step(&a), FPS_OK);
        if (i == 1) fps_worker_leave(&a);
        if (i == 2) { /* by putting out */
            fps_store_relaxed(&arena.members[0].lease_ns, 1);
            CHECK_EQ(begin(&b), FPS_OK);
        }
        expect_success(pid);
        if (i == 1) a = join_from_afar(&arena, 0, 1000 * SECOND);
    }
    fps_worker_leave(&a);
    fps_worker_leave(&b);
    drop_other(&o);
    drop_arena(&arena);
}

static int always(void *state)
{
    (*(int *)state)++;
    return 1;
}

static void a_wait_can_be_called_off(void)
{
    fps_arena arena = make_board(lockstep, 2);
    fps_worker a = join(&arena, 0), b = join(&arena, 1);
    int asked = 0;
    fps_wait wait = {.deadline_ns = FPS_NEVER, .interrupted = always, .state = &asked};
    uint64_t clock, progress;
    CHECK_EQ(end_step(&b), FPS_OK);
    CHECK_EQ(fps_worker_begin(&b, &wait, &clock, &progress), FPS_INTERRUPTED);
    CHECK_EQ(asked, 1);
    CHECK_EQ(fps_lock_holder(&arena.board->lock), 0);
    CHECK_EQ(fps_load32_relaxed(&arena.board->sleepers), 0);
    fps_worker_leave(&a);
    fps_worker_leave(&b);
    drop_arena(&arena);
}

static void die_under_the_lock(other *o, void (*half)(fps_member *m))
{
    fps_worker worker = join_as(o);
    CHECK_EQ(pthread_mutex_lock(&o->arena->board->lock), 0);
    half(&o->arena->members[worker.rank]);
    fps_store32_release(&o->shared->ready, 1);
    await(&o->shared->go, 1);
    die();
}

static void end_half_a_step(fps_member *m) { fps_count(&m->clock, 1); }
static void give_half(fps_member *m) { fps_store_relaxed(&m->given[0], FPS_GIVEN(0, 9)); }
static void leave_half(fps_member *m) { fps_store32_relaxed(&m->state, FPS_MEMBER_FREE); }
static void do_nothing(fps_member *m) { (void)m; }

static void die_with_half_a_step(void *argument) { die_under_the_lock(argument, end_half_a_step); }
static void die_with_half_a_gradient(void *argument) { die_under_the_lock(argument, give_half); }
static void die_with_half_an_exit(void *argument) { die_under_the_lock(argument, leave_half); }
static void die_with_nothing(void *argument) { die_under_the_lock(argument, do_nothing); }

static void what_a_death_under_the_lock_leaves_is_settled_by_the_next(void)
{
    static const struct {
        void (*body)(void *);
        uint32_t kind, settled; /* progress, before anybody has been expelled */
    } cases[] = {{die_with_half_a_step, FPS_SSP, 1},
                 {die_with_half_a_gradient, FPS_BSP, 1},
                 {die_with_half_an_exit, FPS_SSP, 1},
                 {die_with_nothing, FPS_SSP, 0}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        fps_arena arena = make_board((fps_policy){.kind = cases[i].kind}, 2);
        fps_worker w = join(&arena, 1);
        other o = other_of(&arena, 0);
        pid_t pid = start_process(cases[i].body, &o);
        /* Joined, and with the lock: ours comes first, so that progress is for the half-done event alone to make. */
        await(&o.shared->ready, 1);
        fps_wait no_wait = {.deadline_ns = FPS_NO_WAIT};
        CHECK_EQ(fps_worker_renew(&w, &no_wait), FPS_BUSY);
        if (cases[i].kind == FPS_BSP) fps_store_relaxed(&arena.members[1].given[0], FPS_GIVEN(0, 1));
        fps_store_relaxed(&arena.members[1].clock, 1);
        CHECK_EQ(progress_of(&arena), 0);
        uint32_t bell = fps_load32_relaxed(&arena.board->bell);
        fps_store32_release(&o.shared->go, 1);
        expect_killed(pid);
        CHECK(fps_lock_abandoned(&arena.board->lock));
        CHECK_EQ(fps_worker_renew(&w, &no_wait), FPS_OK);
        CHECK_EQ(progress_of(&arena), cases[i].settled);
        CHECK_EQ(fps_load32_relaxed(&arena.board->bell) != bell, cases[i].settled != 0);
        CHECK(!fps_lock_abandoned(&arena.board->lock));
        CHECK_EQ(begin(&w), FPS_OK);
        fps_worker again = join(&arena, 0);
        CHECK_EQ(clock_of(&arena, 0), progress_of(&arena));
        fps_worker_leave(&again);
        fps_worker_leave(&w);
        drop_other(&o);
        drop_arena(&arena);
    }
}

static void who_waits_finds_a_death_under_the_lock(void)
{
    fps_arena arena = make_board(lockstep, 3);
    other victim = other_of(&arena, 0), waiter = other_of(&arena, 1);
    waiter.steps = 1;
    fps_store32_relaxed(&victim.shared->go, 1);
    pid_t waiting, dying = start_process(die_with_half_an_exit, &victim);
    await(&victim.shared->ready, 1);
    waiting = start_process(wait_for_the_others, &waiter);
    expect_killed(dying);
    expect_success(waiting);
    drop_other(&victim);
    drop_other(&waiter);
    drop_arena(&arena);
}

typedef struct late_begin {
    fps_worker *worker;
    fps_status status;
} late_begin;

static void *begin_late(void *argument)
{
    late_begin *l = argument;
    l->status = begin(l->worker);
    return NULL;
}

static void who_waits_while_its_worker_leaves_is_expelled(void)
{
    const int64_t leases_ns[] = {0, LONG_MS * INT64_C(1000000)};
    for (uint32_t i = 0; i < COUNT(leases_ns); i++) {
        fps_arena arena = make_board(lockstep, 2);
        fps_worker waiting = leases_ns[i] ? join_from_afar(&arena, 0, leases_ns[i]) : join(&arena, 0);
        fps_worker second = join(&arena, 1);
        CHECK_EQ(end_step(&waiting), FPS_OK);
        late_begin l = {.worker = &waiting};
        pthread_t thread;
        CHECK_EQ(pthread_create(&thread, NULL, begin_late, &l), 0);
        nap_us(20000);
        fps_worker_leave(&waiting);
        pthread_join(thread, NULL);
        CHECK_EQ(l.status, FPS_EXPELLED);
        CHECK_EQ(state_of(&arena, 0), FPS_MEMBER_FREE);
        if (!leases_ns[i]) CHECK_EQ(come_back(&waiting), FPS_EXPELLED);
        if (!leases_ns[i]) CHECK_EQ(state_of(&arena, 0), FPS_MEMBER_FREE);
        CHECK_EQ(begin(&second), FPS_OK);
        fps_worker_leave(&second);
        drop_arena(&arena);
    }
}

static void coming_back_twice_is_as_once(void)
{
    fps_arena arena = make_board(lockstep, 2);
    fps_worker far = join_from_afar(&arena, 0, INT64_C(1000000)), near = join(&arena, 1);
    CHECK_EQ(come_back(&near), FPS_OK); /* it was never expelled */
    CHECK_EQ(end_step(&near), FPS_OK);
    CHECK_EQ(begin(&near), FPS_OK); /* it has expelled the other */
    far.lease_ns = LONG_MS * INT64_C(1000000);
    CHECK_EQ(come_back(&far), FPS_OK);
    const uint64_t generation = far.generation, clock = clock_of(&arena, 0);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(come_back(&far), FPS_OK);
        CHECK_EQ(far.generation, generation);
        CHECK_EQ(clock_of(&arena, 0), clock);
    }
    CHECK_EQ(expelled_of(&arena), 1);
    fps_worker_leave(&far);
    fps_worker_leave(&near);
    drop_arena(&arena);
}

static void leave_inherited(void *argument)
{
    other *o = argument;
    fps_worker_leave(o->worker);
}

static void a_forked_child_that_leaves_gives_no_life_lock_of_its_parent_back(void)
{
    fps_arena arena = make_board(lockstep, 1);
    fps_worker w = join(&arena, 0), more;
    other o = other_of(&arena, 0);
    uint32_t holder = fps_life_holder(&arena.members[0].life);
    o.worker = &w;
    expect_success(start_process(leave_inherited, &o));
    CHECK_EQ(fps_life_holder(&arena.members[0].life), holder);
    CHECK(!fps_life_died(&arena.members[0].life));
    CHECK_EQ(try_join(&arena, FPS_ANY_RANK, &more), FPS_FULL);
    CHECK_EQ(try_join(&arena, 0, &more), FPS_BUSY);
    fps_worker_leave(&w);
    w = join(&arena, 0);
    fps_worker_leave(&w);
    drop_other(&o);
    drop_arena(&arena);
}

static void a_forked_child_that_leaves_does_not_take_its_parent_with_it(void)
{
    fps_arena arena = make_board(lockstep, 2);
    fps_worker a = join(&arena, 0), b = join(&arena, 1);
    other o = other_of(&arena, 0);
    o.worker = &a;
    CHECK_EQ(end_step(&b), FPS_OK);
    expect_success(start_process(leave_inherited, &o));
    CHECK_EQ(state_of(&arena, 0), FPS_MEMBER_HERE);
    CHECK_EQ(progress_of(&arena), 0);
    CHECK_EQ(end_step(&a), FPS_OK);
    fps_worker_leave(&a);
    fps_worker_leave(&b);
    drop_other(&o);
    drop_arena(&arena);
}

static void hold_the_lock(void *argument)
{
    other *o = argument;
    CHECK_EQ(pthread_mutex_lock(&o->arena->board->lock), 0);
    fps_store32_release(&o->shared->ready, 1);
    await(&o->shared->go, 1);
    pthread_mutex_unlock(&o->arena->board->lock);
}

/* Leaving gives up on the lock after a while, but not on the rank; and nobody takes it for a death. */
static void leave_without_the_lock(int64_t lease_ns)
{
    fps_arena arena = make_board(lockstep, 2);
    fps_worker a = lease_ns > 0 ? join_from_afar(&arena, 0, lease_ns) : join(&arena, 0), b = join(&arena, 1);
    other o = other_of(&arena, 0);
    CHECK_EQ(end_step(&b), FPS_OK);
    pid_t pid = start_other(hold_the_lock, &o);
    fps_worker_leave(&a);
    fps_store32_release(&o.shared->go, 1);
    expect_success(pid);
    CHECK(fps_life_ended(&arena.members[0].life));
    CHECK_EQ(begin(&b), FPS_OK);
    CHECK_EQ(fps_load_relaxed(&arena.board->expelled), 0);
    CHECK_EQ(fps_load32_relaxed(&arena.members[0].state), FPS_MEMBER_FREE);
    a = join(&arena, 0);
    CHECK_EQ(end_step(&a), FPS_OK);
    CHECK_EQ(begin(&b), FPS_OK);
    fps_worker_leave(&a);
    fps_worker_leave(&b);
    drop_other(&o);
    drop_arena(&arena);
}

static void who_leaves_without_the_lock_still_frees_its_rank(void) { leave_without_the_lock(0); }
static void who_leaves_from_afar_without_the_lock_is_not_waited_for(void) { leave_without_the_lock(1000 * SECOND); }

static void a_closed_arena_is_told_to_everybody(void)
{
    fps_arena arena = make_board(bsp, 3);
    fps_worker near = join(&arena, 0), far = join_from_afar(&arena, 1, 1000 * SECOND), more;
    fps_worker *workers[] = {&near, &far};
    fps_arena_retire(&arena);
    for (size_t i = 0; i < COUNT(workers); i++) {
        CHECK_EQ(begin(workers[i]), FPS_CLOSED);
        CHECK_EQ(end_step(workers[i]), FPS_CLOSED);
        CHECK_EQ(give(workers[i], 1), FPS_CLOSED);
        CHECK_EQ(renew(workers[i]), FPS_CLOSED);
    }
    CHECK_EQ(try_join(&arena, FPS_ANY_RANK, &more), FPS_CLOSED);
    CHECK_EQ(try_join(&arena, 7, &more), FPS_CLOSED);
    fps_worker_leave(&near);
    fps_worker_leave(&far);
    fps_arena_close(&arena);
}

static void nobody_returns_to_a_closed_arena(void)
{
    fps_arena arena = make_board(bsp, 3);
    fps_worker near = join(&arena, 0), far = join_from_afar(&arena, 1, 1000 * SECOND);
    for (uint32_t i = 0; i < 2; i++) fps_store32_relaxed(&arena.members[i].state, FPS_MEMBER_OUT);
    fps_arena_retire(&arena);
    CHECK_EQ(come_back(&far), FPS_CLOSED);
    CHECK_EQ(come_back(&near), FPS_CLOSED);
    fps_worker_leave(&near);
    fps_worker_leave(&far);
    fps_arena_close(&arena);
}

static void wait_until_the_end(void *argument)
{
    other *o = argument;
    fps_worker worker = join_as(o);
    uint64_t clock, progress;
    fps_store32_release(&o->shared->ready, 1);
    CHECK_EQ(fps_worker_begin(&worker, &(fps_wait){.deadline_ns = FPS_NEVER}, &clock, &progress), FPS_CLOSED);
    fps_worker_leave(&worker);
}

static void who_waits_is_told_that_the_arena_closed(void)
{
    fps_arena arena = make_board(lockstep, 2);
    fps_worker w = join(&arena, 0);
    other o = other_of(&arena, 1);
    o.steps = 1;
    pid_t pid = start_other(wait_until_the_end, &o);
    await(&arena.board->sleepers, 1);
    fps_arena_retire(&arena);
    expect_success(pid);
    fps_worker_leave(&w);
    drop_other(&o);
    fps_arena_close(&arena);
}

/* Each checks the bound at every step; the victim dies in the middle, and another takes its rank. */
static void step_in_bounds(void *argument)
{
    other *o = argument;
    fps_worker worker = join(o->arena, o->rank == 4 ? 3 : o->rank); /* the fifth has the rank of the victim */
    uint64_t staleness = o->arena->layout.policy.staleness;
    for (uint32_t i = 0; i < o->steps; i++) {
        fps_wait wait = wait_ms(LONG_MS);
        uint64_t clock, progress;
        CHECK_EQ(fps_worker_begin(&worker, &wait, &clock, &progress), FPS_OK);
        CHECK(clock <= progress + staleness);
        for (uint32_t k = 0; k < 4; k++) { /* no live one is further behind than progress says */
            const fps_member *m = &o->arena->members[k];
            CHECK(!fps_member_lives(m) || fps_load_relaxed(&m->clock) >= progress);
        }
        CHECK_EQ(end_step(&worker), FPS_OK);
        if (i == 50) atomic_fetch_add(&o->shared->ready, 1);
        if (o->rank == 3 && i == 100) die();
    }
    fps_worker_leave(&worker);
}

static void many_processes_keep_the_bound_though_some_die(void)
{
    fps_arena arena = make_board((fps_policy){.kind = FPS_SSP, .staleness = 2, .quorum = 4}, 4);
    other o[4];
    pid_t pids[4];
    for (uint32_t i = 0; i < 4; i++) {
        o[i] = other_of(&arena, i);
        o[i].steps = 400;
        pids[i] = start_process(step_in_bounds, &o[i]);
    }
    expect_killed(pids[3]);
    o[3].rank = 4;
    pids[3] = start_process(step_in_bounds, &o[3]);
    for (uint32_t i = 0; i < 4; i++) {
        expect_success(pids[i]);
        drop_other(&o[i]);
    }
    CHECK_EQ(expelled_of(&arena), 1);
    CHECK(progress_of(&arena) >= 400);
    for (uint32_t i = 0; i < 4; i++) CHECK_EQ(state_of(&arena, i), FPS_MEMBER_FREE);
    drop_arena(&arena);
}

static void give_each_round(void *argument)
{
    other *o = argument;
    fps_worker worker = join(o->arena, FPS_ANY_RANK);
    for (uint32_t i = 0; i < o->steps; i++) {
        CHECK_EQ(begin(&worker), FPS_OK);
        CHECK_EQ(give(&worker, worker.rank + 1), FPS_OK);
        fps_decision d;
        fps_clock_decision(&worker.roster, &d);
        CHECK(d.round == i || d.round == i + 1);
        CHECK_EQ(d.n_given, d.round == 0 ? 0 : 3);
        for (uint32_t k = 0; k < d.n_given; k++) CHECK_EQ(d.weights[k], k + 1);
    }
    await(&o->shared->go, 1);
    fps_worker_leave(&worker);
}

static void rounds_of_many_processes_hold_a_gradient_of_each(void)
{
    fps_arena arena = make_board((fps_policy){.kind = FPS_BSP, .quorum = 3}, 3);
    other o = other_of(&arena, 0);
    pid_t pids[3];
    o.steps = 300;
    for (uint32_t i = 0; i < 3; i++) pids[i] = start_process(give_each_round, &o);
    while (progress_of(&arena) < o.steps) nap_us(1000);
    fps_store32_release(&o.shared->go, 1);
    for (uint32_t i = 0; i < 3; i++) expect_success(pids[i]);
    CHECK_EQ(progress_of(&arena), o.steps);
    CHECK_EQ(expelled_of(&arena), 0);
    drop_other(&o);
    drop_arena(&arena);
}

int main(void)
{
    static const test tests[] = {
        TEST(ranks_are_taken_in_order),
        TEST(a_taken_rank_is_busy_and_one_that_is_not_there_is_full),
        TEST(an_arena_without_members_is_full),
        TEST(leaving_frees_the_rank),
        TEST(who_waits_while_its_worker_leaves_is_expelled),
        TEST(coming_back_twice_is_as_once),
        TEST(leaving_lets_the_others_go_on),
        TEST(who_is_ahead_times_out_until_the_other_has_caught_up),
        TEST(without_bounds_nobody_waits),
        TEST(the_blocker_is_the_first_that_others_wait_for),
        TEST(rounds_close_and_late_gradients_are_told),
        TEST(who_catches_up_gives_to_the_open_round),
        TEST(who_catches_up_is_heard_of),
        TEST(who_is_expelled_does_not_catch_up),
        TEST(a_killed_member_is_expelled_by_who_waits_for_it),
        TEST(a_death_is_seen_by_who_waits_already),
        TEST(a_killed_members_rank_is_taken_at_once),
        TEST(a_process_that_exits_without_leaving_is_expelled),
        TEST(a_stopped_member_is_expelled_and_returns),
        TEST(only_a_silent_member_that_others_wait_for_is_expelled),
        TEST(progress_gives_the_slowest_its_full_time),
        TEST(without_a_limit_a_silent_member_stays),
        TEST(who_was_expelled_with_its_gradient_given_returns_behind_it),
        TEST(returning_without_need_keeps_the_clock),
        TEST(a_member_elsewhere_lives_until_its_lease_ends),
        TEST(who_lost_its_rank_to_another_does_not_return),
        TEST(every_word_of_it_prolongs_a_lease),
        TEST(a_renewed_lease_outlives_its_first_term),
        TEST(nobody_ends_its_own_lease_by_waiting),
        TEST(a_waiting_process_goes_on_when_another_ends_its_step),
        TEST(all_that_makes_progress_rings),
        TEST(a_wait_can_be_called_off),
        TEST(what_a_death_under_the_lock_leaves_is_settled_by_the_next),
        TEST(who_waits_finds_a_death_under_the_lock),
        TEST(a_forked_child_that_leaves_gives_no_life_lock_of_its_parent_back),
        TEST(a_forked_child_that_leaves_does_not_take_its_parent_with_it),
        TEST(who_leaves_without_the_lock_still_frees_its_rank),
        TEST(who_leaves_from_afar_without_the_lock_is_not_waited_for),
        TEST(a_closed_arena_is_told_to_everybody),
        TEST(nobody_returns_to_a_closed_arena),
        TEST(who_waits_is_told_that_the_arena_closed),
        TEST(many_processes_keep_the_bound_though_some_die),
        TEST(rounds_of_many_processes_hold_a_gradient_of_each),
    };
    return run_tests(tests, COUNT(tests));
}

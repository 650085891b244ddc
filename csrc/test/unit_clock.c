#define _GNU_SOURCE
#include "check.h"

#include "clock.h"

/* A board in private memory: the state machine looks at nothing else. */
typedef struct table {
    fps_board board;
    fps_member members[5];
    fps_roster roster;
} table;

static void lay(table *t, fps_policy policy, uint32_t n_members)
{
    CHECK(n_members <= COUNT(t->members));
    memset(t, 0, sizeof *t);
    t->roster = (fps_roster){.policy = policy, .n_members = n_members, .board = &t->board, .members = t->members};
}

static const fps_policy ssp = {.kind = FPS_SSP, .staleness = 1}, bsp = {.kind = FPS_BSP};

static uint64_t progress(const table *t) { return fps_load_relaxed(&t->board.progress); }
static uint64_t clock_of(const table *t, uint32_t rank) { return fps_load_relaxed(&t->members[rank].clock); }
static uint32_t state_of(const table *t, uint32_t rank) { return fps_load32_relaxed(&t->members[rank].state); }

static void enter(table *t, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) CHECK(!fps_clock_enter(&t->roster, i, FPS_MEMBER_HERE));
}

/* Gives, and expects it to count. Did the round close? */
static bool give(table *t, uint32_t rank, uint32_t weight)
{
    bool counted = false;
    uint64_t before = progress(t);
    bool closed = fps_clock_give(&t->roster, rank, clock_of(t, rank), weight, &counted);
    CHECK(counted);
    CHECK_EQ(progress(t), before + closed);
    return closed;
}

static void check_dropped(table *t, uint32_t rank)
{
    bool counted = true;
    uint64_t before = progress(t), dropped = fps_load_relaxed(&t->board.dropped);
    CHECK(!fps_clock_give(&t->roster, rank, clock_of(t, rank), 1, &counted));
    CHECK(!counted);
    CHECK_EQ(progress(t), before);
    CHECK_EQ(fps_load_relaxed(&t->board.dropped), dropped + 1);
}

/* `given`: rank * 100 + weight, in order, up to -1. */
static void check_decision(const table *t, uint64_t round, const int *given)
{
    static fps_decision d;
    memset(&d, 255, sizeof d);
    fps_clock_decision(&t->roster, &d);
    CHECK_EQ(d.round, round);
    uint32_t n = 0;
    for (; given[n] >= 0; n++) {
        CHECK(n < d.n_given);
        CHECK_EQ(d.ranks[n] * 100 + d.weights[n], (uint32_t)given[n]);
    }
    CHECK_EQ(d.n_given, n);
}

#define DECIDED(t, round, ...) check_decision(t, round, (const int[]){__VA_ARGS__, -1})

static void the_first_workers_start_at_zero(void)
{
    for (uint32_t kind = FPS_ASYNC; kind <= FPS_BSP; kind++) {
        table t;
        lay(&t, (fps_policy){.kind = kind}, 3);
        enter(&t, 2);
        CHECK_EQ(progress(&t), 0);
        CHECK_EQ(clock_of(&t, 0), 0);
        CHECK_EQ(clock_of(&t, 1), 0);
        CHECK_EQ(state_of(&t, 0), FPS_MEMBER_HERE);
        CHECK_EQ(state_of(&t, 2), FPS_MEMBER_FREE);
        CHECK(fps_member_lives(&t.members[1]) && !fps_member_lives(&t.members[2]));
    }
}

static void workers_here_and_away_live_and_others_do_not(void)
{
    fps_member m;
    memset(&m, 0, sizeof m);
    for (uint32_t state = FPS_MEMBER_FREE; state <= FPS_MEMBER_OUT; state++) {
        fps_store32_relaxed(&m.state, state);
        CHECK_EQ(fps_member_lives(&m), state == FPS_MEMBER_HERE || state == FPS_MEMBER_AWAY);
    }
}

static void progress_is_the_clock_of_the_slowest_live_worker(void)
{
    table t;
    lay(&t, ssp, 4);
    enter(&t, 3);
    CHECK(!fps_clock_end_step(&t.roster, 0));
    CHECK(!fps_clock_end_step(&t.roster, 1));
    CHECK(!fps_clock_end_step(&t.roster, 1));
    CHECK_EQ(progress(&t), 0);
    CHECK(fps_clock_end_step(&t.roster, 2)); /* clocks 1, 2, 1 */
    CHECK_EQ(progress(&t), 1);
    CHECK(!fps_clock_end_step(&t.roster, 2));
    CHECK(fps_clock_end_step(&t.roster, 0)); /* 2, 2, 2 */
    CHECK_EQ(progress(&t), 2);
}

static void workers_elsewhere_count_as_those_here(void)
{
    table t;
    lay(&t, ssp, 2);
    CHECK(!fps_clock_enter(&t.roster, 0, FPS_MEMBER_HERE));
    CHECK(!fps_clock_enter(&t.roster, 1, FPS_MEMBER_AWAY));
    CHECK(!fps_clock_end_step(&t.roster, 0));
    CHECK_EQ(progress(&t), 0);
    CHECK(fps_clock_end_step(&t.roster, 1));
    CHECK_EQ(progress(&t), 1);
}

static void a_late_joiner_starts_at_progress(void)
{
    table t;
    lay(&t, ssp, 3);
    enter(&t, 2);
    for (int i = 0; i < 7; i++) fps_clock_end_step(&t.roster, 0);
    for (int i = 0; i < 5; i++) fps_clock_end_step(&t.roster, 1);
    CHECK(!fps_clock_enter(&t.roster, 2, FPS_MEMBER_HERE));
    CHECK_EQ(clock_of(&t, 2), 5);
    CHECK_EQ(progress(&t), 5);
    CHECK(!fps_clock_end_step(&t.roster, 1)); /* the joiner holds the others like anybody else */
    CHECK(fps_clock_end_step(&t.roster, 2));
    CHECK_EQ(progress(&t), 6);
}

static void the_exit_of_the_slowest_lets_the_others_go_on(void)
{
    static const uint32_t states[] = {FPS_MEMBER_FREE, FPS_MEMBER_OUT};
    for (size_t i = 0; i < COUNT(states); i++) {
        table t;
        lay(&t, ssp, 3);
        enter(&t, 3);
        for (int k = 0; k < 4; k++) fps_clock_end_step(&t.roster, 0);
        for (int k = 0; k < 2; k++) fps_clock_end_step(&t.roster, 2);
        CHECK_EQ(progress(&t), 0);
        CHECK(fps_clock_exit(&t.roster, 1, states[i]));
        CHECK_EQ(state_of(&t, 1), states[i]);
        CHECK_EQ(progress(&t), 2);
        CHECK(fps_clock_exit(&t.roster, 2, states[i]));
        CHECK_EQ(progress(&t), 4);
    }
}

static void progress_never_goes_back(void)
{
    table t;
    lay(&t, ssp, 2);
    enter(&t, 1);
    for (int i = 0; i < 3; i++) CHECK(fps_clock_end_step(&t.roster, 0));
    CHECK(!fps_clock_exit(&t.roster, 0, FPS_MEMBER_FREE));
    CHECK_EQ(progress(&t), 3); /* nobody is left */
    CHECK(!fps_clock_enter(&t.roster, 1, FPS_MEMBER_HERE));
    CHECK_EQ(clock_of(&t, 1), 3);
    CHECK(fps_clock_end_step(&t.roster, 1));
    CHECK(!fps_clock_enter(&t.roster, 0, FPS_MEMBER_HERE)); /* its rank's last clock was 3 */
    CHECK_EQ(clock_of(&t, 0), 4);
    fps_store_relaxed(&t.members[0].clock, 1);
    CHECK(!fps_clock_settle(&t.roster));
    CHECK_EQ(progress(&t), 4);
}

static void settling_again_changes_nothing(void)
{
    for (uint32_t kind = FPS_ASYNC; kind <= FPS_BSP; kind++) {
        table t;
        lay(&t, (fps_policy){.kind = kind}, 3);
        enter(&t, 2);
        if (kind == FPS_BSP)
            CHECK(!give(&t, 0, 1) && give(&t, 1, 1));
        else
            CHECK(!fps_clock_end_step(&t.roster, 0) && fps_clock_end_step(&t.roster, 1));
        for (int i = 0; i < 3; i++) CHECK(!fps_clock_settle(&t.roster));
        CHECK_EQ(progress(&t), 1);
    }
}

static void nobody_gets_ahead_before_the_quorum_has_been_there(void)
{
    table t;
    lay(&t, (fps_policy){.kind = FPS_SSP, .quorum = 3}, 4);
    enter(&t, 2);
    for (uint32_t i = 0; i < 2; i++) CHECK(!fps_clock_end_step(&t.roster, i));
    CHECK_EQ(progress(&t), 0);
    CHECK_EQ(fps_load32_relaxed(&t.board.started), 0);
    CHECK(!fps_clock_enter(&t.roster, 2, FPS_MEMBER_HERE));
    CHECK_EQ(fps_load32_relaxed(&t.board.started), 1);
    CHECK_EQ(clock_of(&t, 2), 0);
    CHECK(fps_clock_end_step(&t.roster, 2));
    CHECK_EQ(progress(&t), 1);
}

static void a_quorum_is_of_workers_that_live_at_once(void)
{
    table t;
    lay(&t, (fps_policy){.kind = FPS_SSP, .quorum = 2}, 2);
    for (uint32_t i = 0; i < 4; i++) {
        CHECK(!fps_clock_enter(&t.roster, i % 2, FPS_MEMBER_HERE));
        CHECK(!fps_clock_end_step(&t.roster, i % 2));
        CHECK(!fps_clock_exit(&t.roster, i % 2, i < 2 ? FPS_MEMBER_OUT : FPS_MEMBER_FREE));
    }
    CHECK_EQ(fps_load32_relaxed(&t.board.started), 0);
    CHECK_EQ(progress(&t), 0);
}

static void once_started_fewer_than_the_quorum_go_on(void)
{
    table t;
    lay(&t, (fps_policy){.kind = FPS_SSP, .quorum = 3}, 3);
    enter(&t, 3);
    CHECK(!fps_clock_exit(&t.roster, 0, FPS_MEMBER_FREE));
    CHECK(!fps_clock_exit(&t.roster, 1, FPS_MEMBER_OUT));
    CHECK_EQ(fps_load32_relaxed(&t.board.started), 1);
    CHECK(fps_clock_end_step(&t.roster, 2));
    CHECK_EQ(progress(&t), 1);
}

static void what_a_clock_needs_depends_on_the_policy(void)
{
    static const uint64_t clocks[] = {0, 1, 2, 3, 4, 1000};
    for (size_t i = 0; i < COUNT(clocks); i++) {
        uint64_t c = clocks[i];
        CHECK_EQ(fps_clock_needs(&(fps_policy){.kind = FPS_ASYNC, .staleness = 3}, c), 0);
        CHECK_EQ(fps_clock_needs(&(fps_policy){.kind = FPS_BSP, .staleness = 3}, c), c);
        CHECK_EQ(fps_clock_needs(&(fps_policy){.kind = FPS_SSP}, c), c);
        CHECK_EQ(fps_clock_needs(&(fps_policy){.kind = FPS_SSP, .staleness = 3}, c), c < 3 ? 0 : c - 3);
        CHECK_EQ(fps_clock_needs(&(fps_policy){.kind = FPS_SSP, .staleness = UINT32_MAX}, c), 0);
    }
}

static void a_round_closes_when_all_have_given(void)
{
    table t;
    lay(&t, bsp, 4);
    enter(&t, 3);
    check_decision(&t, 0, (const int[]){-1});
    CHECK(!give(&t, 2, 7));
    CHECK(!give(&t, 0, 3));
    check_decision(&t, 0, (const int[]){-1});
    CHECK(give(&t, 1, 99));
    for (uint32_t i = 0; i < 3; i++) CHECK_EQ(clock_of(&t, i), 1);
    DECIDED(&t, 1, 3, 199, 207);
}

static void a_round_of_nobody_does_not_close(void)
{
    table t;
    lay(&t, (fps_policy){.kind = FPS_BSP, .backup = 5}, 3);
    CHECK(!fps_clock_settle(&t.roster));
    enter(&t, 2);
    CHECK(!fps_clock_exit(&t.roster, 0, FPS_MEMBER_OUT));
    CHECK(!fps_clock_exit(&t.roster, 1, FPS_MEMBER_FREE));
    CHECK_EQ(progress(&t), 0);
}

static void weights_of_nothing_and_of_the_most_are_kept(void)
{
    static fps_decision d;
    table t;
    lay(&t, bsp, 2);
    enter(&t, 2);
    CHECK(!give(&t, 0, 0));
    CHECK(give(&t, 1, FPS_GIVEN_MAX));
    fps_clock_decision(&t.roster, &d);
    CHECK_EQ(d.n_given, 2);
    CHECK_EQ(d.weights[0], 0);
    CHECK_EQ(d.weights[1], FPS_GIVEN_MAX);
}

static void no_round_closes_before_the_quorum_has_been_there(void)
{
    table t;
    lay(&t, (fps_policy){.kind = FPS_BSP, .quorum = 2}, 3);
    enter(&t, 1);
    CHECK(!give(&t, 0, 1));
    CHECK(!fps_clock_enter(&t.roster, 1, FPS_MEMBER_HERE));
    CHECK(give(&t, 1, 2));
    DECIDED(&t, 1, 1, 102);
    CHECK(!fps_clock_exit(&t.roster, 1, FPS_MEMBER_FREE));
    CHECK(give(&t, 0, 1)); /* started is started */
}

static void with_backups_a_round_closes_without_the_last(void)
{
    table t;
    lay(&t, (fps_policy){.kind = FPS_BSP, .backup = 2}, 4);
    enter(&t, 4);
    CHECK(!give(&t, 3, 1));
    CHECK(give(&t, 1, 1));
    DECIDED(&t, 1, 101, 301);
    CHECK_EQ(clock_of(&t, 0), 0);
    CHECK_EQ(clock_of(&t, 2), 0);
}

/* The one that closed without it must not wait for ever: its next gradient is for the open round. */
static void a_late_gradient_is_dropped_and_the_clock_moves_on(void)
{
    table t;
    lay(&t, (fps_policy){.kind = FPS_BSP, .backup = 1}, 3);
    enter(&t, 3);
    for (int i = 0; i < 3; i++) CHECK(!give(&t, 0, 1) && give(&t, 1, 1));
    CHECK_EQ(clock_of(&t, 2), 0);
    check_dropped(&t, 2);
    CHECK_EQ(clock_of(&t, 2), 3);
    DECIDED(&t, 3, 1, 101);
    CHECK(!give(&t, 2, 5));
    CHECK(give(&t, 0, 1));
    DECIDED(&t, 4, 1, 205);
    CHECK_EQ(fps_load_relaxed(&t.board.dropped), 1);
}

static void a_second_gradient_for_one_round_is_dropped(void)
{
    table t;
    lay(&t, bsp, 2);
    enter(&t, 2);
    CHECK(!give(&t, 0, 3));
    for (int i = 0; i < 3; i++) {
        check_dropped(&t, 0);
        CHECK_EQ(clock_of(&t, 0), 1);
    }
    CHECK(give(&t, 1, 4));
    DECIDED(&t, 1, 3, 104);
}

static void what_a_dead_worker_gave_counts(void)
{
    static const uint32_t states[] = {FPS_MEMBER_FREE, FPS_MEMBER_OUT};
    for (size_t i = 0; i < COUNT(states); i++) {
        table t;
        lay(&t, bsp, 3);
        enter(&t, 3);
        CHECK(!give(&t, 0, 6));
        CHECK(!fps_clock_exit(&t.roster, 0, states[i]));
        CHECK(!give(&t, 1, 1));
        CHECK(give(&t, 2, 1));
        DECIDED(&t, 1, 6, 101, 201);
        CHECK(!give(&t, 1, 1)); /* and it is not waited for again */
        CHECK(give(&t, 2, 1));
        DECIDED(&t, 2, 101, 201);
    }
}

static void a_dead_contributor_takes_no_backups_place(void)
{
    table t;
    lay(&t, (fps_policy){.kind = FPS_BSP, .backup = 1}, 4);
    enter(&t, 4);
    CHECK(!give(&t, 0, 1));
    CHECK(!fps_clock_exit(&t.roster, 0, FPS_MEMBER_OUT));
    CHECK(!give(&t, 1, 1)); /* two of four */
    CHECK(give(&t, 2, 1));
    DECIDED(&t, 1, 1, 101, 201);
}

static void the_exit_of_who_did_not_give_closes_the_round(void)
{
    table t;
    lay(&t, bsp, 3);
    enter(&t, 3);
    CHECK(!give(&t, 0, 1));
    CHECK(!give(&t, 1, 1));
    CHECK(fps_clock_exit(&t.roster, 2, FPS_MEMBER_OUT));
    DECIDED(&t, 1, 1, 101);
}

static void the_last_decision_stays_while_the_next_round_collects(void)
{
    table t;
    lay(&t, bsp, 3);
    enter(&t, 3);
    for (uint32_t round = 0; round < 6; round++) {
        int first = (int)round * 2, weights[] = {first + 1, 100 + first + 2, 200 + first + 3, -1};
        for (uint32_t i = 0; i < 3; i++) {
            CHECK_EQ(give(&t, (i + round) % 3, round * 2 + (i + round) % 3 + 1), i == 2);
            if (i == 2) break;
            int before[] = {first - 1, 100 + first, 200 + first + 1, -1};
            check_decision(&t, round, round == 0 ? (const int[]){-1} : before);
        }
        check_decision(&t, round + 1, weights);
    }
}

static void a_decision_keeps_who_has_left(void)
{
    table t;
    lay(&t, bsp, 3);
    enter(&t, 2);
    CHECK(!give(&t, 0, 1));
    CHECK(give(&t, 1, 2));
    CHECK(!fps_clock_exit(&t.roster, 0, FPS_MEMBER_FREE));
    CHECK(!fps_clock_enter(&t.roster, 0, FPS_MEMBER_HERE));
    CHECK(!fps_clock_enter(&t.roster, 2, FPS_MEMBER_HERE));
    DECIDED(&t, 1, 1, 102);
    CHECK_EQ(clock_of(&t, 0), 1);
}

static void a_joiner_gives_to_the_open_round(void)
{
    table t;
    lay(&t, bsp, 3);
    enter(&t, 2);
    for (uint32_t i = 0; i < 6; i++) CHECK_EQ(give(&t, i % 2, 1), i % 2 == 1);
    CHECK(!give(&t, 0, 1));
    CHECK(!fps_clock_enter(&t.roster, 2, FPS_MEMBER_HERE));
    CHECK_EQ(clock_of(&t, 2), 3);
    CHECK(!give(&t, 1, 1));
    CHECK(give(&t, 2, 8));
    DECIDED(&t, 4, 1, 101, 208);
}

/* The tray of this rank holds a gradient that counts: whoever has the rank now must not overwrite it. */
static void a_joiner_whose_rank_has_given_waits_for_the_next_round(void)
{
    table t;
    lay(&t, bsp, 2);
    enter(&t, 2);
    for (uint32_t i = 0; i < 4; i++) CHECK_EQ(give(&t, i % 2, 1), i % 2 == 1);
    CHECK(!give(&t, 0, 5));
    CHECK(!fps_clock_exit(&t.roster, 0, FPS_MEMBER_OUT));
    CHECK(!fps_clock_enter(&t.roster, 0, FPS_MEMBER_HERE));
    CHECK_EQ(clock_of(&t, 0), 3);
    CHECK_EQ(fps_clock_needs(&bsp, clock_of(&t, 0)), progress(&t) + 1);
    check_dropped(&t, 0);
    CHECK_EQ(clock_of(&t, 0), 3);
    CHECK(give(&t, 1, 6));
    DECIDED(&t, 3, 5, 106);
    CHECK(!give(&t, 0, 7)); /* now it takes part */
    CHECK(give(&t, 1, 8));
    DECIDED(&t, 4, 7, 108);
}

static void who_has_read_later_rounds_gives_to_the_open_one(void)
{
    table t;
    lay(&t, (fps_policy){.kind = FPS_BSP, .backup = 1}, 3);
    enter(&t, 3);
    for (uint32_t i = 0; i < 8; i++) CHECK_EQ(give(&t, i % 2, 1), i % 2 == 1); /* without the last one */
    CHECK_EQ(clock_of(&t, 2), 0);
    fps_clock_catch_up(&t.roster, 2, 3); /* as far as it has read */
    CHECK_EQ(clock_of(&t, 2), 3);
    fps_clock_catch_up(&t.roster, 2, 4);
    CHECK_EQ(clock_of(&t, 2), 4);
    CHECK_EQ(progress(&t), 4);
    CHECK(!give(&t, 2, 9));
    CHECK_EQ(fps_load_relaxed(&t.board.dropped), 0);
    CHECK(give(&t, 0, 8));
    DECIDED(&t, 5, 8, 209);
}

static void nobody_catches_up_with_what_it_is_ahead_of(void)
{
    table t;
    lay(&t, bsp, 2);
    enter(&t, 2);
    for (uint32_t i = 0; i < 4; i++) CHECK_EQ(give(&t, i % 2, 1), i % 2 == 1);
    CHECK(!give(&t, 0, 1)); /* clocks 3, 2 */
    for (uint64_t round = 0; round <= 2; round++) {
        for (uint32_t rank = 0; rank < 2; rank++) fps_clock_catch_up(&t.roster, rank, round);
        CHECK_EQ(clock_of(&t, 0), 3);
        CHECK_EQ(clock_of(&t, 1), 2);
    }
    check_dropped(&t, 0);
    CHECK(give(&t, 1, 1));
}

/* Whoever does not know whether it has given gives again. */
static void giving_twice_is_giving_once(void)
{
    table t;
    bool counted = false;
    lay(&t, bsp, 2);
    enter(&t, 2);
    CHECK(!give(&t, 0, 3));
    CHECK(!fps_clock_give(&t.roster, 0, 0, 5, &counted)); /* while the round is open */
    CHECK(counted);
    CHECK_EQ(clock_of(&t, 0), 1);
    CHECK(give(&t, 1, 4));
    DECIDED(&t, 1, 3, 104);
    counted = false;
    CHECK(!fps_clock_give(&t.roster, 0, 0, 5, &counted)); /* and when it has closed */
    CHECK(counted);
    CHECK(!fps_clock_give(&t.roster, 1, 0, 5, &counted));
    CHECK(counted);
    CHECK_EQ(fps_load_relaxed(&t.board.dropped), 0);
    CHECK(!give(&t, 1, 6));
    CHECK(give(&t, 0, 7));
    DECIDED(&t, 2, 7, 106);
}

/* A death under the lock leaves any of these; the next one that has the lock settles. */
static void half_an_event_is_finished_by_settling(void)
{
    table t;
    lay(&t, bsp, 2);
    enter(&t, 2);
    CHECK(!give(&t, 0, 1));
    fps_store_relaxed(&t.members[1].given[0], FPS_GIVEN(0, 2)); /* given, and no more */
    CHECK(fps_clock_settle(&t.roster));
    DECIDED(&t, 1, 1, 102);
    CHECK(!fps_clock_exit(&t.roster, 1, FPS_MEMBER_OUT));
    CHECK(!fps_clock_enter(&t.roster, 1, FPS_MEMBER_HERE));
    CHECK_EQ(clock_of(&t, 1), 1);

    lay(&t, ssp, 2);
    enter(&t, 2);
    CHECK(!fps_clock_end_step(&t.roster, 0));
    fps_count(&t.members[1].clock, 1);
    CHECK(fps_clock_settle(&t.roster));
    CHECK(!fps_clock_end_step(&t.roster, 0));
    fps_store32_relaxed(&t.members[1].state, FPS_MEMBER_FREE);
    CHECK(fps_clock_settle(&t.roster));
    CHECK_EQ(progress(&t), 2);
    fps_store_relaxed(&t.members[1].clock, 2); /* entering, and not there yet */
    CHECK(!fps_clock_settle(&t.roster));
    CHECK(fps_clock_end_step(&t.roster, 0));
    CHECK_EQ(progress(&t), 3);
}

static uint32_t next_random(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

/* What the machine should say, in the plainest words: of each worker, is it there and how far, and did it give? */
typedef struct model {
    bool lives[5], gave[5], started;
    uint64_t clock[5], progress;
    uint32_t weight[5], last_weight[5];
    bool last_gave[5];
} model;

static bool model_settle(model *m, const fps_policy *policy)
{
    uint64_t live = 0, given = 0, concerned = 0, least = UINT64_MAX;
    for (int i = 0; i < 5; i++) {
        live += m->lives[i];
        given += m->gave[i];
        concerned += m->lives[i] || m->gave[i];
        if (m->lives[i] && m->clock[i] < least) least = m->clock[i];
    }
    m->started |= live >= policy->quorum;
    if (!m->started) return false;
    if (policy->kind != FPS_BSP) {
        if (live == 0 || least <= m->progress) return false;
        m->progress = least;
        return true;
    }
    if (given == 0 || concerned - given > policy->backup) return false;
    memcpy(m->last_gave, m->gave, sizeof m->gave);
    memcpy(m->last_weight, m->weight, sizeof m->weight);
    memset(m->gave, 0, sizeof m->gave);
    m->progress++;
    return true;
}

static void check_same(const table *t, const model *m)
{
    static fps_decision d;
    uint32_t n = 0;
    CHECK_EQ(progress(t), m->progress);
    CHECK_EQ(fps_load32_relaxed(&t->board.started), m->started);
    fps_clock_decision(&t->roster, &d);
    CHECK_EQ(d.round, m->progress);
    for (uint32_t i = 0; i < 5; i++) {
        CHECK_EQ(fps_member_lives(&t->members[i]), m->lives[i]);
        if (m->lives[i]) CHECK_EQ(clock_of(t, i), m->clock[i]);
        if (!m->last_gave[i]) continue;
        CHECK_EQ(d.ranks[n], i);
        CHECK_EQ(d.weights[n++], m->last_weight[i]);
    }
    CHECK_EQ(d.n_given, n);
}

static void random_event(table *t, model *m, uint64_t *random)
{
    const fps_policy *policy = &t->roster.policy;
    uint32_t rank = next_random(random) % 5, dice = next_random(random) % 8, weight = next_random(random) % 100;
    bool grew, counted = false;
    if (!m->lives[rank]) {
        if (dice > 1) return;
        grew = fps_clock_enter(&t->roster, rank, dice ? FPS_MEMBER_HERE : FPS_MEMBER_AWAY);
        m->lives[rank] = true;
        m->clock[rank] = m->progress + m->gave[rank];
    } else if (dice == 0) {
        grew = fps_clock_exit(&t->roster, rank, weight % 2 ? FPS_MEMBER_FREE : FPS_MEMBER_OUT);
        m->lives[rank] = false;
    } else if (policy->kind != FPS_BSP) {
        grew = fps_clock_end_step(&t->roster, rank);
        m->clock[rank]++;
    } else {
        grew = fps_clock_give(&t->roster, rank, clock_of(t, rank), weight, &counted);
        CHECK_EQ(counted, m->clock[rank] == m->progress);
        if (counted) m->weight[rank] = weight;
        m->gave[rank] |= counted;
        m->clock[rank] = m->progress + m->gave[rank];
    }
    CHECK_EQ(grew, model_settle(m, policy));
}

static void any_run_of_events_agrees_with_a_plain_model(void)
{
    for (uint64_t seed = 0; seed < 600; seed++) {
        uint64_t random = seed;
        table t;
        model m = {0};
        lay(&t,
            (fps_policy){.kind = (uint32_t)seed % 3,
                         .backup = (uint32_t)seed / 3 % 3,
                         .quorum = (uint32_t)seed / 9 % 4,
                         .staleness = 2},
            5);
        for (int i = 0; i < 400; i++) {
            random_event(&t, &m, &random);
            check_same(&t, &m);
        }
    }
}

int main(void)
{
    static const test tests[] = {
        TEST(the_first_workers_start_at_zero),
        TEST(workers_here_and_away_live_and_others_do_not),
        TEST(progress_is_the_clock_of_the_slowest_live_worker),
        TEST(workers_elsewhere_count_as_those_here),
        TEST(a_late_joiner_starts_at_progress),
        TEST(the_exit_of_the_slowest_lets_the_others_go_on),
        TEST(progress_never_goes_back),
        TEST(settling_again_changes_nothing),
        TEST(nobody_gets_ahead_before_the_quorum_has_been_there),
        TEST(a_quorum_is_of_workers_that_live_at_once),
        TEST(once_started_fewer_than_the_quorum_go_on),
        TEST(what_a_clock_needs_depends_on_the_policy),
        TEST(a_round_closes_when_all_have_given),
        TEST(a_round_of_nobody_does_not_close),
        TEST(weights_of_nothing_and_of_the_most_are_kept),
        TEST(no_round_closes_before_the_quorum_has_been_there),
        TEST(with_backups_a_round_closes_without_the_last),
        TEST(a_late_gradient_is_dropped_and_the_clock_moves_on),
        TEST(a_second_gradient_for_one_round_is_dropped),
        TEST(what_a_dead_worker_gave_counts),
        TEST(a_dead_contributor_takes_no_backups_place),
        TEST(the_exit_of_who_did_not_give_closes_the_round),
        TEST(the_last_decision_stays_while_the_next_round_collects),
        TEST(a_decision_keeps_who_has_left),
        TEST(a_joiner_gives_to_the_open_round),
        TEST(a_joiner_whose_rank_has_given_waits_for_the_next_round),
        TEST(who_has_read_later_rounds_gives_to_the_open_one),
        TEST(nobody_catches_up_with_what_it_is_ahead_of),
        TEST(giving_twice_is_giving_once),
        TEST(half_an_event_is_finished_by_settling),
        TEST(any_run_of_events_agrees_with_a_plain_model),
    };
    return run_tests(tests, COUNT(tests));
}

/* Threads, each with a session in every shard, that run rounds while others read. `stress_rounds [rounds]`. */
#define _GNU_SOURCE
#include "team.h"
#include "version.h"

#define N_WORKERS 3
#define N_READERS 2
#define N_HELD 6 /* versions that a reader holds at most; together they leave room for the next */
#define N 1500   /* blocks, and a short one */

static uint64_t n_rounds = 2000;

typedef struct load {
    const fps_arena *arenas;
    uint32_t n_shards;
    uint32_t rank;
    fps_word32 *done; /* workers that have given all that they give */
} load;

static float value_of(uint32_t rank, uint64_t round) { return (float)(1 + (round + rank * 2) % 4); }
static uint32_t weight_of(uint32_t rank, uint64_t round) { return 1 + (uint32_t)(round + rank) % 2; }

/* Of all rounds before this one. All workers give to every round; what they give repeats itself after four rounds. */
static float sum_up_to(uint64_t round)
{
    float four = 0, sum = 0;
    for (uint64_t i = 0; i < 4; i++)
        for (uint32_t rank = 0; rank < N_WORKERS; rank++) {
            float added = value_of(rank, i) * (float)weight_of(rank, i);
            four += added;
            if (i < round % 4) sum += added;
        }
    return sum + four * (float)(round / 4);
}

static fps_status read_parts(hand *h, const fps_decision *d, uint32_t stream, float *const *outs)
{
    fps_status status = read_stream(h, d, stream, (void *const *)outs);
    if (status != FPS_MIXED) CHECK_EQ(status, FPS_OK);
    return status;
}

static void check_parts(const hand *h, uint32_t stream, float *const *outs)
{
    uint64_t round = h->parts[0].version;
    for (uint32_t i = 0; i < h->n_shards; i++) {
        CHECK_EQ(h->parts[i].version, round);
        check_all_equal(outs[i], N, stream == 2 ? outs[i][0] : (float)(stream + 1) * sum_up_to(round));
    }
}

static void *work(void *argument)
{
    load *l = argument;
    mate m;
    float *grads[5], *outs[MAX_SHARDS] = {filled(N, -1), filled(N, -1)};
    for (uint32_t i = 0; i < 5; i++) grads[i] = filled(N, (float)i);
    join_team(&m, l->arenas, l->n_shards, l->rank, 4);
    m.hand.rule.kernel = add_and_keep;
    for (uint64_t round = 0; round < n_rounds; round++) {
        CHECK_EQ(begin_round(&m, LONG_MS), FPS_OK);
        fps_decision d = last_decision(&m);
        CHECK_EQ(d.round, round);
        for (uint32_t i = 1; i <= weight_of(l->rank, round); i++) {
            fps_deposit deposit = next_deposit(&m, &d, i);
            aim(&m.hand, grads[(int)value_of(l->rank, round)], NULL);
            m.hand.call.first = l->rank % l->n_shards;
            CHECK_EQ(run_hand(&m.hand, &d, &deposit), FPS_OK);
        }
        if ((round + l->rank) % 3 == 0) { /* of the round before: nobody closes this one meanwhile */
            uint32_t stream = (uint32_t)round % 2;
            CHECK_EQ(read_parts(&m.hand, &d, stream, outs), FPS_OK);
            CHECK_EQ(m.hand.parts[0].version, round);
            check_parts(&m.hand, stream, outs);
        }
        bool counted = false;
        CHECK_EQ(give_round(&m, weight_of(l->rank, round), &counted), FPS_OK);
        CHECK(counted);
    }
    CHECK_EQ(begin_round(&m, LONG_MS), FPS_OK);
    atomic_fetch_add(l->done, 1);
    while (fps_load32_acquire(l->done) < N_WORKERS) nap_us(100); /* whoever leaves is no longer waited for */
    leave_team(&m);
    for (uint32_t i = 0; i < 5; i++) free(grads[i]);
    for (uint32_t i = 0; i < MAX_SHARDS; i++) free(outs[i]);
    return NULL;
}

static void check_version(const fps_arena *arena, uint64_t current)
{
    for (uint32_t k = 0; k <= 1; k++) {
        const uint8_t *at = fps_arena_version(arena, FPS_CURRENT_VERSION(current), k);
        check_all_equal((const float *)(const void *)at, N, (float)(k + 1) * sum_up_to(FPS_CURRENT_ROUND(current)));
    }
}

/* Reads without a lock: copies of one round of all shards, and versions that stay while they are held. */
static void *read_until_done(void *argument)
{
    load *l = argument;
    hand h, holding[N_HELD]; /* a session holds a version once */
    uint64_t held[N_HELD] = {0}, last = 0;
    uint32_t n = 0;
    float *outs[MAX_SHARDS] = {filled(N, -1), filled(N, -1)}, set_last[MAX_SHARDS] = {0};
    fps_roster roster = fps_board_roster(&l->arenas[0]);
    open_hand(&h, l->arenas, l->n_shards, 4);
    h.rule.kernel = add_and_keep;
    for (uint32_t i = 0; i < N_HELD; i++) open_hand(&holding[i], l->arenas, 1, 4);
    for (; fps_load32_acquire(l->done) < N_WORKERS; n++) {
        uint32_t i = n % N_HELD, stream = n % 3;
        if (n >= N_HELD) {
            check_version(&l->arenas[0], held[i]); /* for the second time, some rounds later */
            fps_version_unpin(&holding[i].sessions[0], FPS_CURRENT_VERSION(held[i]));
        }
        held[i] = fps_version_pin(&holding[i].sessions[0]);
        check_version(&l->arenas[0], held[i]);
        fps_decision d;
        fps_clock_decision(&roster, &d);
        if (read_parts(&h, n % 2 ? &d : NULL, stream, outs) != FPS_OK) continue;
        check_parts(&h, stream, outs);
        CHECK(h.parts[0].version >= last);
        last = h.parts[0].version;
        for (uint32_t k = 0; stream == 2 && k < l->n_shards; k++) {
            CHECK(outs[k][0] >= set_last[k]);
            set_last[k] = outs[k][0];
        }
    }
    for (uint32_t i = 0; i < N_HELD; i++) {
        if (i < n) fps_version_unpin(&holding[i].sessions[0], FPS_CURRENT_VERSION(held[i]));
        close_hand(&holding[i]);
    }
    close_hand(&h);
    for (uint32_t i = 0; i < MAX_SHARDS; i++) free(outs[i]);
    return NULL;
}

/* Sets a slot to the next number, again and again. */
static void *set_until_done(void *argument)
{
    load *l = argument;
    hand h;
    float *values = filled(N, 0);
    fps_roster roster = fps_board_roster(&l->arenas[0]);
    open_hand(&h, l->arenas, l->n_shards, 4);
    h.rule.kernel = add_and_keep;
    for (float change = 1; fps_load32_acquire(l->done) < N_WORKERS; change++) {
        fps_decision d;
        for (uint32_t i = 0; i < N; i++) values[i] = change;
        fps_clock_decision(&roster, &d);
        fps_status status = write_stream(&h, (int)change % 2 ? &d : NULL, 2, values);
        if (status != FPS_MIXED) CHECK_EQ(status, FPS_OK);
        nap_us(50);
    }
    close_hand(&h);
    free(values);
    return NULL;
}

static void check_load(uint32_t n_shards, bool sets)
{
    fps_arena arenas[MAX_SHARDS];
    pthread_t threads[N_WORKERS + N_READERS + 1];
    load loads[N_WORKERS + N_READERS + 1];
    fps_word32 done = 0;
    for (uint32_t i = 0; i < n_shards; i++) {
        fps_arena_spec spec = spec_of(N * 4, 0, N_WORKERS + N_READERS * (1 + N_HELD) + 1);
        spec.n_slots = 2;
        spec.n_members = N_WORKERS;
        spec.shard_index = i;
        spec.shard_count = n_shards;
        spec.policy = (fps_policy){.kind = FPS_BSP, .quorum = N_WORKERS};
        CHECK_EQ(fps_arena_create(&spec, &arenas[i]), FPS_OK);
    }
    uint32_t n = N_WORKERS + N_READERS + sets;
    for (uint32_t i = 0; i < n; i++) {
        loads[i] = (load){.arenas = arenas, .n_shards = n_shards, .rank = i, .done = &done};
        void *(*body)(void *) = i < N_WORKERS ? work : i < N_WORKERS + N_READERS ? read_until_done : set_until_done;
        CHECK_EQ(pthread_create(&threads[i], NULL, body, &loads[i]), 0);
    }
    for (uint32_t i = 0; i < n; i++) pthread_join(threads[i], NULL);

    hand h;
    float *outs[MAX_SHARDS] = {filled(N, -1), filled(N, -1)};
    fps_roster roster = fps_board_roster(&arenas[0]);
    fps_decision d;
    fps_clock_decision(&roster, &d);
    CHECK_EQ(d.round, n_rounds);
    open_hand(&h, arenas, n_shards, 4);
    h.rule.kernel = add_and_keep;
    for (uint32_t k = 0; k <= 1; k++) {
        CHECK_EQ(read_parts(&h, &d, k, outs), FPS_OK);
        CHECK_EQ(h.parts[0].version, n_rounds);
        check_parts(&h, k, outs);
    }
    for (uint32_t i = 0; i < n_shards; i++) {
        CHECK_EQ(fps_load_relaxed(&arenas[i].header->recovered_locks), 0);
        CHECK_EQ(fps_load_relaxed(&arenas[i].board->expelled), 0);
        CHECK_EQ(updates_of(&arenas[i]), n_rounds);
        for (uint32_t v = 0; v < FPS_MAX_VERSIONS; v++) CHECK_EQ(fps_lock_holder(&arenas[i].header->writing[v]), 0);
        for (uint32_t s = 0; s < arenas[i].layout.n_sessions; s++)
            CHECK_EQ(fps_load_relaxed(&arenas[i].seats[s].pins), 0);
    }
    close_hand(&h);
    for (uint32_t i = 0; i < n_shards; i++) drop_arena(&arenas[i]);
    for (uint32_t i = 0; i < MAX_SHARDS; i++) free(outs[i]);
}

/* One worker closes rounds as fast as it can, so that a version is written again soon after a reader has found it. */
typedef struct sprint {
    fps_arena *arena;
    fps_word32 *done;
} sprint;

#define SPRINT_N 256

static void *pin_until_done(void *argument)
{
    sprint *s = argument;
    hand h;
    open_hand(&h, s->arena, 1, 4);
    while (!fps_load32_acquire(s->done)) {
        uint64_t current = fps_version_pin(&h.sessions[0]);
        const uint8_t *at = fps_arena_version(s->arena, FPS_CURRENT_VERSION(current), 0);
        check_all_equal((const float *)(const void *)at, SPRINT_N, (float)FPS_CURRENT_ROUND(current));
        fps_version_unpin(&h.sessions[0], FPS_CURRENT_VERSION(current));
    }
    close_hand(&h);
    return NULL;
}

static void versions_are_pinned_while_rounds_pass_quickly(void)
{
    fps_arena arena = make_shard(0, SPRINT_N * 4, 0, 1, (fps_policy){0});
    pthread_t threads[N_READERS];
    fps_word32 done = 0;
    sprint s = {.arena = &arena, .done = &done};
    mate m;
    float *ones = filled(SPRINT_N, 1);
    join_team(&m, &arena, 1, 0, 4);
    for (uint32_t i = 0; i < N_READERS; i++) CHECK_EQ(pthread_create(&threads[i], NULL, pin_until_done, &s), 0);
    for (uint64_t round = 0; round < 50 * n_rounds; round++) {
        fps_decision d = last_decision(&m);
        bool counted;
        CHECK_EQ(lay_down(&m.hand, &d, next_deposit(&m, &d, 1), ones), FPS_OK);
        CHECK_EQ(give_round(&m, 1, &counted), FPS_OK);
    }
    fps_store32_release(&done, 1);
    for (uint32_t i = 0; i < N_READERS; i++) pthread_join(threads[i], NULL);
    leave_team(&m);
    drop_arena(&arena);
    free(ones);
}

static void rounds_of_one_shard_are_read_whole(void) { check_load(1, false); }
static void rounds_of_two_shards_are_read_whole(void) { check_load(2, false); }
static void rounds_are_read_whole_while_a_slot_is_set(void) { check_load(2, true); }

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(versions_are_pinned_while_rounds_pass_quickly),
        TEST(rounds_of_one_shard_are_read_whole),
        TEST(rounds_of_two_shards_are_read_whole),
        TEST(rounds_are_read_whole_while_a_slot_is_set),
    };
    if (argc > 1) n_rounds = (uint64_t)atol(argv[1]);
    return run_tests(tests, COUNT(tests));
}

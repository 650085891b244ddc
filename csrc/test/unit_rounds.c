#define _GNU_SOURCE
#include <math.h>
#include <sys/stat.h>

#include "fill.h"
#include "stripe.h"
#include "team.h"
#include "version.h"

#define N 3000 /* blocks, and a short one */

/* Workers in one process, and what they work on. */
typedef struct team {
    fps_arena arenas[MAX_SHARDS];
    uint32_t n_shards, n;
    mate mates[MAX_MATES];
    float *outs[MAX_SHARDS];
} team;

static void gather(team *t, uint32_t n, uint32_t n_shards, uint32_t n_slots, fps_policy policy)
{
    *t = (team){.n_shards = n_shards, .n = n};
    for (uint32_t i = 0; i < n_shards; i++) {
        t->arenas[i] = make_shard(i, N * 4, n_slots, MAX_MATES, policy);
        t->outs[i] = filled(N, -1);
    }
    for (uint32_t i = 0; i < n; i++) join_team(&t->mates[i], t->arenas, n_shards, i, 4);
}

static void disband(team *t)
{
    for (uint32_t i = 0; i < t->n; i++) leave_team(&t->mates[i]);
    for (uint32_t i = 0; i < t->n_shards; i++) {
        drop_arena(&t->arenas[i]);
        free(t->outs[i]);
    }
}

static const fps_policy sums = {.reduce = FPS_REDUCE_SUM}, means = {.reduce = FPS_REDUCE_MEAN};

/* Lays down `weight` gradients of this value, and gives them. Without any it brings the shards along nevertheless: the
 * decision about a round is there until the next one closes. */
static void give(mate *m, float value, uint32_t weight)
{
    fps_decision d = last_decision(m);
    float *grad = filled(N, value);
    bool counted = false;
    CHECK_EQ(begin_round(m, LONG_MS), FPS_OK);
    if (weight == 0) CHECK_EQ(reach_round(&m->hand, &d), FPS_OK);
    for (uint32_t i = 1; i <= weight; i++) CHECK_EQ(lay_down(&m->hand, &d, next_deposit(m, &d, i), grad), FPS_OK);
    CHECK_EQ(give_round(m, weight, &counted), FPS_OK);
    CHECK(counted);
    free(grad);
}

/* Each worker gives its rank times `step`, plus one. */
static float close_round(team *t, float step)
{
    float sum = 0;
    for (uint32_t i = 0; i < t->n; i++) {
        give(&t->mates[i], (float)i * step + 1, 1);
        sum += (float)i * step + 1;
    }
    return sum;
}

/* Every stream of every shard tells of gradients that make `sum`. */
static void check_team(team *t, uint64_t round, float sum)
{
    hand *h = &t->mates[0].hand;
    fps_decision d = last_decision(&t->mates[0]);
    for (uint32_t k = 0; k <= t->arenas[0].layout.n_slots; k++) {
        for (uint32_t i = 0; i < t->n_shards; i++) memset(t->outs[i], 255, N * 4);
        CHECK_EQ(read_stream(h, &d, k, (void *const *)t->outs), FPS_OK);
        for (uint32_t i = 0; i < t->n_shards; i++) {
            check_all_equal(t->outs[i], N, (float)(k + 1) * sum);
            CHECK_EQ(h->parts[i].version, round);
            CHECK_EQ(round_of(&t->arenas[i]), round);
        }
    }
}

static const float *stream_at(const fps_arena *arena, uint32_t version, uint32_t stream)
{
    return (const float *)(const void *)fps_arena_version(arena, version, stream);
}

static void check_nothing_is_claimed(const fps_arena *arena)
{
    for (uint32_t v = 0; v < FPS_MAX_VERSIONS; v++) CHECK_EQ(fps_lock_holder(&arena->header->writing[v]), 0);
    CHECK_EQ(fps_load32_relaxed(&arena->header->turn), 0);
}

static void a_round_reaches_every_stream_of_every_shard(void)
{
    for (uint32_t n_slots = 0; n_slots <= 2; n_slots++) {
        team t;
        float sum = 0;
        gather(&t, 3, 2, n_slots, sums);
        check_team(&t, 0, 0);
        for (uint32_t round = 1; round <= 5; round++) {
            sum += close_round(&t, (float)round);
            CHECK_EQ(round_of(&t.arenas[0]), round - 1); /* nobody needed it yet */
            check_team(&t, round, sum);
            for (uint32_t i = 0; i < 2; i++) {
                CHECK_EQ(updates_of(&t.arenas[i]), round);
                CHECK_EQ(version_of(&t.arenas[i]), round % 2);
                check_nothing_is_claimed(&t.arenas[i]);
            }
        }
        CHECK_EQ(fps_load_relaxed(&t.arenas[0].header->version), 0); /* of pushes: there are none */
        disband(&t);
    }
}

static int kernel_runs;

static int32_t count_and_add(const void *const *state, const void *grad, void *const *results, int64_t n, int64_t ahead,
                             const double *uniforms)
{
    kernel_runs++;
    return add_1_f32(state, grad, results, n, ahead, uniforms);
}

static void a_round_is_applied_once(void)
{
    team t;
    gather(&t, 3, 1, 1, sums);
    int blocks = (N * 4 + (int)t.arenas[0].layout.block_bytes - 1) / (int)t.arenas[0].layout.block_bytes;
    for (int i = 0; i < 3; i++) t.mates[i].hand.rule.kernel = count_and_add;
    for (int round = 1; round <= 3; round++) {
        close_round(&t, 1);
        fps_decision d = last_decision(&t.mates[0]);
        for (int i = 0; i < 6; i++) CHECK_EQ(reach_round(&t.mates[i % 3].hand, &d), FPS_OK);
        CHECK_EQ(kernel_runs, round * blocks);
    }
    disband(&t);
}

static void an_older_decision_changes_nothing(void)
{
    team t;
    gather(&t, 2, 2, 1, sums);
    float sum = close_round(&t, 1);
    fps_decision old = last_decision(&t.mates[0]);
    CHECK_EQ(reach_round(&t.mates[0].hand, &old), FPS_OK);
    sum += close_round(&t, 2);
    check_team(&t, 2, sum);
    uint64_t current = fps_load_relaxed(&t.arenas[0].header->current);
    CHECK_EQ(reach_round(&t.mates[1].hand, &old), FPS_OK);
    CHECK_EQ(reach_round(&t.mates[1].hand, NULL), FPS_OK);
    CHECK_EQ(reach_round(&t.mates[1].hand, &(fps_decision){.round = 0}), FPS_OK);
    CHECK_EQ(fps_load_relaxed(&t.arenas[0].header->current), current);
    check_team(&t, 2, sum);
    disband(&t);
}

/* Otherwise the tray that the round before needs would be written over. */
static void a_deposit_brings_the_shards_to_the_round_before_it(void)
{
    team t;
    gather(&t, 2, 2, 2, sums);
    float sum = close_round(&t, 5), *grad = filled(N, 1000);
    fps_decision d = last_decision(&t.mates[1]);
    CHECK_EQ(lay_down(&t.mates[1].hand, &d, next_deposit(&t.mates[1], &d, 1), grad), FPS_OK);
    for (uint32_t i = 0; i < 2; i++) {
        CHECK_EQ(round_of(&t.arenas[i]), 1);
        CHECK_EQ(t.mates[1].hand.parts[i].version, 2); /* the round that it is for */
        check_all_equal((const float *)(const void *)fps_arena_tray(&t.arenas[i], 1), N, 1000);
    }
    check_team(&t, 1, sum);
    free(grad);
    disband(&t);
}

static void operations_are_counted_in_their_sessions(void)
{
    team t;
    gather(&t, 2, 2, 1, sums);
    close_round(&t, 1);
    hand *h = &t.mates[0].hand;
    fps_decision d = last_decision(&t.mates[0]);
    aim(h, NULL, (void *const *)t.outs);
    CHECK_EQ(run_hand(h, &d, NULL), FPS_OK);
    for (uint32_t i = 0; i < 2; i++) {
        const fps_meters *m = &h->sessions[i].seat->meters;
        CHECK_EQ(fps_load_relaxed(&m->pushes), 1);
        CHECK_EQ(fps_load_relaxed(&m->bytes_written), N * 4);
        CHECK_EQ(fps_load_relaxed(&m->pulls), 1);
        CHECK_EQ(fps_load_relaxed(&m->bytes_read), N * 4);
    }
    disband(&t);
}

/* Numbers whose sum depends on the order in which they are added. */
static double rough(uint64_t *state, uint32_t item_bytes)
{
    *state = *state * UINT64_C(6364136223846793005) + 1442695040888963407u;
    double x = (double)(int32_t)(*state >> 32);
    x = x / (double)(UINT64_C(1) << (*state >> 20 & 31)) + 1 / ((double)(*state >> 40) + 3);
    return item_bytes == 4 ? (double)(float)x : x;
}

static double item(const void *array, uint64_t i, uint32_t item_bytes)
{
    return item_bytes == 4 ? (double)((const float *)array)[i] : ((const double *)array)[i];
}

static void set_item(void *array, uint64_t i, uint32_t item_bytes, double value)
{
    if (item_bytes == 4)
        ((float *)array)[i] = (float)value;
    else
        ((double *)array)[i] = value;
}

/* One operation in the type of the items: a double holds what float32 makes of two float32, but for its last rounding.
 */
static double rounded(double value, uint32_t item_bytes) { return item_bytes == 4 ? (double)(float)value : value; }

static void *rough_array(uint64_t n, uint32_t item_bytes, uint64_t *state)
{
    void *array = malloc(n * item_bytes);
    CHECK(array != NULL);
    for (uint64_t i = 0; i < n; i++) set_item(array, i, item_bytes, rough(state, item_bytes));
    return array;
}

#define MAX_WEIGHT 3

static void check_reduce(uint32_t reduce, uint64_t n, uint32_t item_bytes, const uint32_t *weights)
{
    static const uint32_t order[MAX_MATES] = {2, 0, 3, 1};
    fps_arena arena = make_shard(0, n * item_bytes, 0, MAX_MATES, (fps_policy){.reduce = reduce});
    mate mates[MAX_MATES];
    uint64_t random = n * 16 + item_bytes + reduce;
    void *begin = rough_array(n, item_bytes, &random), *grads[MAX_MATES][MAX_WEIGHT], *out = malloc(n * item_bytes);
    for (uint32_t r = 0; r < MAX_MATES; r++) join_team(&mates[r], &arena, 1, r, item_bytes);
    const uint32_t params = 0;
    aim(&mates[0].hand, begin, NULL);
    mates[0].hand.call.streams = &params;
    mates[0].hand.call.n_streams = 1;
    fps_fill(&mates[0].hand.call);
    fps_decision d = last_decision(&mates[0]);
    for (uint32_t i = 0; i < MAX_MATES; i++) {
        uint32_t rank = order[i];
        mate *m = &mates[rank];
        bool counted;
        for (uint32_t k = 0; k < MAX_WEIGHT; k++) grads[rank][k] = rough_array(n, item_bytes, &random);
        for (uint32_t k = 0; k < weights[rank]; k++)
            CHECK_EQ(lay_down(&m->hand, &d, next_deposit(m, &d, k + 1), grads[rank][k]), FPS_OK);
        CHECK_EQ(give_round(m, weights[rank], &counted), FPS_OK);
        CHECK(counted);
    }
    d = last_decision(&mates[1]);
    CHECK_EQ(d.n_given, MAX_MATES);
    aim(&mates[1].hand, NULL, &out);
    CHECK_EQ(run_hand(&mates[1].hand, &d, NULL), FPS_OK);
    for (uint64_t i = 0; i < n; i++) {
        double sum = 0, total = 0;
        for (uint32_t r = 0; r < MAX_MATES; r++) {
            double tray = 0;
            for (uint32_t k = 0; k < weights[r]; k++)
                tray = k == 0 ? item(grads[r][k], i, item_bytes)
                              : rounded(tray + item(grads[r][k], i, item_bytes), item_bytes);
            if (weights[r] > 0) sum = total > 0 ? rounded(sum + tray, item_bytes) : tray;
            total += weights[r];
        }
        if (reduce != FPS_REDUCE_SUM) sum = rounded(sum / total, item_bytes);
        double expected = sum;
        if (reduce != FPS_REDUCE_PARAMS) expected = rounded(item(begin, i, item_bytes) + sum, item_bytes);
        CHECK_FLOAT(item(out, i, item_bytes), expected);
    }
    for (uint32_t r = 0; r < MAX_MATES; r++) {
        leave_team(&mates[r]);
        for (uint32_t k = 0; k < MAX_WEIGHT; k++) free(grads[r][k]);
    }
    drop_arena(&arena);
    free(begin);
    free(out);
}

static void check_reduces(uint32_t reduce, uint32_t item_bytes)
{
    static const uint64_t sizes[] = {1, 1023, 1024, 1025, 5000};
    static const uint32_t weights[][MAX_MATES] = {{1, 1, 1, 1}, {1, 2, 3, 1}, {0, 1, 0, 3},
                                                  {0, 0, 3, 0}, {0, 1, 0, 0}, {1, 0, 0, 1}};
    for (size_t i = 0; i < COUNT(sizes) * COUNT(weights); i++)
        check_reduce(reduce, sizes[i % COUNT(sizes)], item_bytes, weights[i / COUNT(sizes)]);
}

static void sums_are_added_in_the_order_of_ranks(void)
{
    check_reduces(FPS_REDUCE_SUM, 4);
    check_reduces(FPS_REDUCE_SUM, 8);
}

static void means_are_over_the_gradients_not_the_workers(void)
{
    check_reduces(FPS_REDUCE_MEAN, 4);
    check_reduces(FPS_REDUCE_MEAN, 8);
}

static void parameters_that_are_given_are_averaged_and_take_the_place_of_the_old(void)
{
    check_reduces(FPS_REDUCE_PARAMS, 4);
    check_reduces(FPS_REDUCE_PARAMS, 8);
}

/* Two runs of different types and rules in one shard, with gaps: each is reduced in its own type. */
static void runs_of_both_types_in_one_shard_are_reduced_in_their_own(void)
{
    fps_arena arena = make_shard(0, 4000 + 40 + 8 * 2000, 1, 2, means);
    mate mates[2];
    const fps_rule rules[] = {rule_of(add_f32, 0), rule_of(add_1_f64, 1)};
    const fps_span spans[] = {{.position = 8, .bytes = 4000, .buffer = 0, .rule = 0, .item_bytes = 4},
                              {.position = 4032, .bytes = 16000, .buffer = 1, .rule = 1, .item_bytes = 8}};
    double uniforms[2 * FPS_UNIFORMS];
    uint64_t random = 5;
    void *grads[2][2], *outs[2] = {malloc(4000), malloc(16000)};
    for (uint32_t r = 0; r < 2; r++) {
        join_team(&mates[r], &arena, 1, r, 4);
        grads[r][0] = rough_array(1000, 4, &random);
        grads[r][1] = rough_array(2000, 8, &random);
    }
    for (uint32_t r = 0; r < 2; r++) {
        fps_decision d = last_decision(&mates[r]);
        fps_deposit deposit = next_deposit(&mates[r], &d, 1);
        hand *h = &mates[r].hand;
        bool counted;
        aim(h, grads[r], NULL);
        h->parts[0].spans = spans;
        h->parts[0].n_spans = 2;
        h->call.grads = (const void *const *)grads[r];
        CHECK_EQ(run_hand(h, &d, &deposit), FPS_OK);
        CHECK_EQ(give_round(&mates[r], 1, &counted), FPS_OK);
    }
    fps_decision d = last_decision(&mates[0]);
    hand *h = &mates[0].hand;
    for (uint32_t slot = 0; slot < 2; slot++) {
        const uint32_t streams[] = {slot == 0 ? 0 : FPS_NO_STREAM, slot};
        aim(h, NULL, outs);
        h->parts[0].spans = spans;
        h->parts[0].n_spans = 2;
        h->parts[0].uniforms = uniforms;
        h->call.rules = rules;
        h->call.n_rules = 2;
        h->call.outs = outs;
        h->call.streams = streams;
        h->call.n_streams = 1;
        h->call.kind = FPS_GET;
        memset(outs[0], 0, 4000);
        CHECK_EQ(run_hand(h, &d, NULL), FPS_OK);
        for (uint64_t i = 0; i < 1000; i++) {
            double mean = rounded(rounded(item(grads[0][0], i, 4) + item(grads[1][0], i, 4), 4) / 2, 4);
            CHECK_FLOAT(item(outs[0], i, 4), slot == 0 ? mean : 0);
        }
        for (uint64_t i = 0; i < 2000; i++)
            CHECK_FLOAT(item(outs[1], i, 8), (slot + 1) * ((item(grads[0][1], i, 8) + item(grads[1][1], i, 8)) / 2));
    }
    for (uint32_t r = 0; r < 2; r++) {
        leave_team(&mates[r]);
        free(grads[r][0]);
        free(grads[r][1]);
        free(outs[r]);
    }
    drop_arena(&arena);
}

/* Parameters count rounds, and the slot keeps the step that its rule was told, and the next one what stood before. */
static int32_t stamp(const void *const *state, const void *grad, void *const *results, int64_t n, int64_t ahead,
                     const double *uniforms)
{
    CHECK(isinf(uniforms[FPS_MAX_UNIFORMS]) && uniforms[FPS_MAX_UNIFORMS] > 0);
    CHECK_FLOAT(uniforms[FPS_MAX_UNIFORMS + 1], 1.0); /* clipped on their way into the tray, and not again */
    add_f32(state, grad, results, n, ahead, uniforms);
    for (int64_t i = 0; i < n; i++) {
        ((float *)results[1])[i] = (float)uniforms[0];
        ((float *)results[2])[i] = ((const float *)state[1])[i] + (float)uniforms[1];
    }
    return 0;
}

static int32_t prepare_stamp(const double *hyper, double step, double *uniforms)
{
    uniforms[0] = step;
    uniforms[1] = hyper[0];
    return 0;
}

static void check_stamps(team *t, float step, float before_and_hyper)
{
    fps_decision d = last_decision(&t->mates[0]);
    CHECK_EQ(read_stream(&t->mates[0].hand, &d, 1, (void *const *)t->outs), FPS_OK);
    check_all_equal(t->outs[0], N, step);
    CHECK_EQ(read_stream(&t->mates[0].hand, &d, 2, (void *const *)t->outs), FPS_OK);
    check_all_equal(t->outs[0], N, before_and_hyper);
}

static void the_step_of_a_rule_counts_rounds_with_gradients(void)
{
    team t;
    gather(&t, 2, 1, 2, means);
    for (int i = 0; i < 2; i++) {
        t.mates[i].hand.rule.kernel = stamp;
        t.mates[i].hand.rule.prepare = prepare_stamp;
    }
    const double hyper = 100;
    const fps_wait wait = wait_ms(LONG_MS);
    close_round(&t, 1);
    check_stamps(&t, 1, 0);
    give(&t.mates[0], 9, 0);
    give(&t.mates[1], 9, 0);
    check_stamps(&t, 1, 0);
    CHECK_EQ(round_of(&t.arenas[0]), 2);
    CHECK_EQ(updates_of(&t.arenas[0]), 1);
    close_round(&t, 1);
    check_stamps(&t, 2, 1);
    close_round(&t, 1);
    CHECK_EQ(fps_dense_configure(&t.arenas[0], 0, 1, &hyper, &wait), FPS_OK);
    check_stamps(&t, 3, 102); /* configured before anybody applied it */
    CHECK_EQ(updates_of(&t.arenas[0]), 3);
    disband(&t);
}

static void a_round_without_a_gradient_changes_nothing_but_its_number(void)
{
    team t;
    gather(&t, 2, 2, 1, means);
    float mean = close_round(&t, 3) / 2;
    check_team(&t, 1, mean);
    uint32_t version = version_of(&t.arenas[0]);
    for (uint32_t round = 2; round <= 4; round++) {
        give(&t.mates[0], 7, 0);
        give(&t.mates[1], 7, 0);
        check_team(&t, round, mean);
        for (uint32_t i = 0; i < 2; i++) {
            CHECK_EQ(version_of(&t.arenas[i]), version);
            CHECK_EQ(updates_of(&t.arenas[i]), 1);
            check_nothing_is_claimed(&t.arenas[i]);
        }
    }
    give(&t.mates[0], 7, 0); /* its tray holds what it gave to the first round, and does not count */
    give(&t.mates[1], 50, 1);
    check_team(&t, 5, mean + 50);
    CHECK_EQ(updates_of(&t.arenas[0]), 2);
    CHECK(version_of(&t.arenas[0]) != version);
    disband(&t);
}

/* Means of parameters leave slots as they are, and those lie in the new version, too. */
static void slots_are_carried_along_where_parameters_are_given(void)
{
    team t;
    gather(&t, 2, 1, 2, (fps_policy){.reduce = FPS_REDUCE_PARAMS});
    for (uint32_t k = 1; k <= 2; k++) {
        float *values = filled(N, 10 * (float)k);
        CHECK_EQ(write_stream(&t.mates[0].hand, NULL, k, values), FPS_OK);
        free(values);
    }
    for (uint32_t round = 1; round <= 3; round++) {
        float mean = close_round(&t, (float)round) / 2;
        fps_decision d = last_decision(&t.mates[1]);
        for (uint32_t k = 0; k <= 2; k++) {
            CHECK_EQ(read_stream(&t.mates[1].hand, &d, k, (void *const *)t.outs), FPS_OK);
            check_all_equal(t.outs[0], N, k == 0 ? mean : 10 * (float)k);
        }
        CHECK_EQ(updates_of(&t.arenas[0]), round);
    }
    disband(&t);
}

static void a_version_is_written_beside_the_one_before(void)
{
    team t;
    gather(&t, 2, 1, 2, sums);
    float before = close_round(&t, 1);
    check_team(&t, 1, before);
    uint32_t version = version_of(&t.arenas[0]);
    float after = before + close_round(&t, 2);
    check_team(&t, 2, after);
    CHECK(version_of(&t.arenas[0]) != version);
    for (uint32_t k = 0; k <= 2; k++) { /* still there: nobody needed its memory */
        check_all_equal(stream_at(&t.arenas[0], version, k), N, (float)(k + 1) * before);
        check_all_equal(stream_at(&t.arenas[0], version_of(&t.arenas[0]), k), N, (float)(k + 1) * after);
    }
    CHECK_EQ(fps_load_relaxed(&t.arenas[0].header->updates[version]), 1);
    disband(&t);
}

static void a_pinned_version_does_not_change_and_its_memory_is_used_again_when_it_is_let_go(void)
{
    team t;
    hand reader;
    gather(&t, 2, 1, 2, sums);
    open_hand(&reader, t.arenas, 1, 4);
    fps_arena *arena = &t.arenas[0];
    float held = close_round(&t, 1), sum = held;
    check_team(&t, 1, sum);
    uint64_t current = fps_version_pin(&reader.sessions[0]);
    CHECK_EQ(current, FPS_CURRENT(1, 1));
    CHECK_EQ(fps_load_relaxed(&reader.sessions[0].seat->pins), 2);
    for (uint32_t round = 2; round <= 20; round++) {
        sum += close_round(&t, (float)round);
        check_team(&t, round, sum);
        CHECK_EQ(version_of(arena), round % 2 ? 2 : 0); /* the two that are left of three */
        for (uint32_t k = 0; k <= 2; k++) check_all_equal(stream_at(arena, 1, k), N, (float)(k + 1) * held);
        CHECK_EQ(fps_load_relaxed(&arena->header->updates[1]), 1);
        CHECK_EQ(fps_load32_relaxed(&arena->header->backed), round == 2 ? 3 : 7);
    }
    fps_version_unpin(&reader.sessions[0], 1);
    CHECK_EQ(fps_load_relaxed(&reader.sessions[0].seat->pins), 0);
    sum += close_round(&t, 1);
    check_team(&t, 21, sum);
    CHECK_EQ(version_of(arena), 1);
    check_all_equal(stream_at(arena, 1, 2), N, 3 * sum);
    close_hand(&reader);
    disband(&t);
}

/* A session that reads a newer version keeps the one that it holds. */
static void a_session_pins_several_versions(void)
{
    team t;
    hand reader;
    gather(&t, 1, 1, 0, sums);
    open_hand(&reader, t.arenas, 1, 4);
    for (uint32_t round = 0; round < 3; round++) {
        CHECK_EQ(fps_version_pin(&reader.sessions[0]), FPS_CURRENT(round, round));
        CHECK_EQ(fps_load_relaxed(&reader.sessions[0].seat->pins), (2u << round) - 1);
        give(&t.mates[0], 1, 1);
        check_team(&t, round + 1, (float)round + 1);
    }
    fps_version_unpin(&reader.sessions[0], 1);
    CHECK_EQ(fps_load_relaxed(&reader.sessions[0].seat->pins), 5);
    for (uint32_t round = 3; round < 8; round++) {
        give(&t.mates[0], 1, 1);
        check_team(&t, round + 1, (float)round + 1);
        CHECK_EQ(version_of(&t.arenas[0]), round % 2 ? 1 : 3);
        check_all_equal(stream_at(&t.arenas[0], 0, 0), N, 0);
        check_all_equal(stream_at(&t.arenas[0], 2, 0), N, 2);
    }
    close_hand(&reader);
    disband(&t);
}

static void operations_let_their_pins_go(void)
{
    team t;
    gather(&t, 2, 2, 1, sums);
    for (int round = 0; round < 3; round++) {
        close_round(&t, 1);
        fps_decision d = last_decision(&t.mates[0]), far = {.round = d.round + 2};
        CHECK_EQ(reach_round(&t.mates[0].hand, &d), FPS_OK);
        CHECK_EQ(reach_round(&t.mates[0].hand, &far), FPS_MIXED);
        CHECK_EQ(write_stream(&t.mates[0].hand, NULL, 1, t.outs[0]), FPS_OK);
        CHECK_EQ(read_stream(&t.mates[0].hand, NULL, 1, (void *const *)t.outs), FPS_OK);
        for (uint32_t i = 0; i < 2; i++) {
            for (uint32_t seat = 0; seat < t.arenas[i].layout.n_sessions; seat++)
                CHECK_EQ(fps_load_relaxed(&t.arenas[i].seats[seat].pins), 0);
            check_nothing_is_claimed(&t.arenas[i]);
        }
    }
    disband(&t);
}

/* Pins every version, the current one among them; then a round is closed that has nowhere to go. */
static void hold_every_version(team *t, hand *reader)
{
    fps_session *s = &reader->sessions[0];
    for (uint32_t round = 0; round < FPS_MAX_VERSIONS; round++) {
        CHECK_EQ(fps_version_pin(s), FPS_CURRENT(round, round));
        close_round(t, 1);
        fps_decision d = last_decision(&t->mates[0]);
        if (round + 1 < FPS_MAX_VERSIONS) CHECK_EQ(reach_round(&t->mates[0].hand, &d), FPS_OK);
    }
    CHECK_EQ(fps_load_relaxed(&s->seat->pins), 0xffff);
    CHECK_EQ(fps_load32_relaxed(&t->arenas[0].header->backed), 0xffff);
}

typedef struct late {
    hand *hand;
    const fps_decision *decision;
    fps_word32 done;
    fps_status status;
} late;

static void *reach_late(void *argument)
{
    late *l = argument;
    l->status = reach_round(l->hand, l->decision);
    fps_store32_release(&l->done, 1);
    return NULL;
}

static int call_off(void *state)
{
    fps_count(state, 1);
    return 1;
}

static void a_round_waits_while_every_version_is_held(void)
{
    team t;
    hand reader;
    gather(&t, 2, 1, 1, sums);
    open_hand(&reader, t.arenas, 1, 4);
    hold_every_version(&t, &reader);
    hand *h = &t.mates[0].hand;
    fps_decision d = last_decision(&t.mates[0]);
    CHECK_EQ(d.round, 16);

    int64_t start = fps_now_ns();
    aim(h, NULL, NULL);
    h->call.wait = wait_ms(SHORT_MS);
    CHECK_EQ(run_hand(h, &d, NULL), FPS_HELD);
    CHECK_EQ(h->at, 0);
    CHECK(fps_now_ns() - start >= SHORT_MS * 1000000);
    h->call.wait = (fps_wait){.deadline_ns = FPS_NO_WAIT};
    CHECK_EQ(run_hand(h, &d, NULL), FPS_HELD);
    fps_word asked = 0;
    h->call.wait = (fps_wait){.deadline_ns = FPS_NEVER, .interrupted = call_off, .state = &asked};
    CHECK_EQ(run_hand(h, &d, NULL), FPS_INTERRUPTED);
    CHECK_EQ(fps_load_relaxed(&asked), 1);
    CHECK_EQ(fps_lock_holder(&t.arenas[0].stripes[0].lock), 0); /* nobody is kept out meanwhile */
    check_nothing_is_claimed(&t.arenas[0]);
    CHECK_EQ(round_of(&t.arenas[0]), 15);
    aim_at_stream(h, 1, t.outs[0], NULL);
    h->call.wait = (fps_wait){.deadline_ns = FPS_NO_WAIT};
    CHECK_EQ(run_hand(h, NULL, NULL), FPS_HELD); /* nor is there room for a set */

    late l = {.hand = h, .decision = &d};
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, reach_late, &l), 0);
    nap_us(20000);
    CHECK_EQ(fps_load32_acquire(&l.done), 0);
    fps_version_unpin(&reader.sessions[0], 7);
    pthread_join(thread, NULL);
    CHECK_EQ(l.status, FPS_OK);
    CHECK_EQ(fps_load_relaxed(&t.arenas[0].header->current), FPS_CURRENT(16, 7));
    check_team(&t, 16, 16 * 3);
    for (uint32_t v = 0; v < FPS_MAX_VERSIONS; v++)
        check_all_equal(stream_at(&t.arenas[0], v, 1), N, 2 * 3 * (v == 7 ? 16 : (float)v));
    close_hand(&reader);
    disband(&t);
}

/* Another process that comes to something and stays there. */
typedef struct other {
    const fps_arena *arenas;
    uint32_t n_shards;
    fps_word32 *ready;
} other;

static other other_of(team *t)
{
    return (other){.arenas = t->arenas, .n_shards = t->n_shards, .ready = share(sizeof(fps_word32))};
}

static void drop_other(other *o) { munmap(o->ready, sizeof *o->ready); }

static void pin_and_stay(void *argument)
{
    other *o = argument;
    hand h;
    open_hand(&h, o->arenas, 1, 4);
    fps_version_pin(&h.sessions[0]);
    fps_store32_release(o->ready, 1);
    for (;;) pause();
}

static void a_pin_of_a_dead_process_holds_nothing(void)
{
    team t;
    gather(&t, 1, 1, 0, sums);
    other o = other_of(&t);
    pid_t pid = start_process(pin_and_stay, &o);
    await(o.ready, 1);
    for (uint32_t round = 1; round <= 4; round++) {
        give(&t.mates[0], 1, 1);
        check_team(&t, round, (float)round);
        CHECK_EQ(version_of(&t.arenas[0]), round % 2 ? 1 : 2);
    }
    kill_process(pid);
    give(&t.mates[0], 1, 1);
    check_team(&t, 5, 5);
    CHECK_EQ(version_of(&t.arenas[0]), 0);
    drop_other(&o);
    disband(&t);
}

static void a_pin_of_a_closed_session_holds_nothing_and_its_seat_begins_without(void)
{
    team t;
    hand reader;
    gather(&t, 1, 1, 0, sums);
    open_hand(&reader, t.arenas, 1, 4);
    fps_version_pin(&reader.sessions[0]);
    uint32_t seat = reader.sessions[0].index;
    close_hand(&reader);
    for (uint32_t round = 1; round <= 2; round++) {
        give(&t.mates[0], 1, 1);
        check_team(&t, round, (float)round);
    }
    CHECK_EQ(version_of(&t.arenas[0]), 0);
    open_hand(&reader, t.arenas, 1, 4);
    CHECK_EQ(reader.sessions[0].index, seat);
    CHECK_EQ(fps_load_relaxed(&reader.sessions[0].seat->pins), 0);
    close_hand(&reader);
    disband(&t);
}

static int32_t die_in_kernel(const void *const *state, const void *grad, void *const *results, int64_t n, int64_t ahead,
                             const double *uniforms)
{
    (void)state, (void)grad, (void)results, (void)n, (void)ahead, (void)uniforms;
    die();
    return 0;
}

static void apply_and_die(void *argument)
{
    other *o = argument;
    hand h;
    fps_decision d;
    fps_roster roster = fps_board_roster(o->arenas);
    fps_clock_decision(&roster, &d);
    open_hand(&h, o->arenas, 1, 4);
    h.rule.kernel = die_in_kernel;
    reach_round(&h, &d);
    fprintf(stderr, "an application survived its death\n");
}

static void a_version_that_a_dead_process_was_writing_is_taken_over(void)
{
    team t;
    gather(&t, 2, 1, 1, sums);
    other o = other_of(&t);
    float sum = close_round(&t, 1);
    expect_killed(start_process(apply_and_die, &o));
    CHECK(fps_lock_abandoned(&t.arenas[0].header->writing[1]));
    CHECK_EQ(fps_load32_relaxed(&t.arenas[0].header->turn), 3);
    CHECK_EQ(fps_load_relaxed(&t.arenas[0].seats[2].pins), 1);
    CHECK_EQ(round_of(&t.arenas[0]), 0);
    check_team(&t, 1, sum);
    CHECK_EQ(version_of(&t.arenas[0]), 1);
    check_nothing_is_claimed(&t.arenas[0]);
    CHECK_EQ(fps_load32_relaxed(&t.arenas[0].header->backed), 3);
    CHECK(!fps_lock_abandoned(&t.arenas[0].header->writing[1]));
    sum += close_round(&t, 2);
    check_team(&t, 2, sum);
    CHECK_EQ(version_of(&t.arenas[0]), 0); /* what it had pinned */
    drop_other(&o);
    disband(&t);
}

static void a_version_that_somebody_writes_is_passed_over(void)
{
    team t;
    gather(&t, 2, 1, 1, sums);
    fps_header *header = t.arenas[0].header;
    const fps_wait no_wait = {.deadline_ns = FPS_NO_WAIT};
    bool abandoned;
    CHECK_EQ(fps_lock_acquire(&header->writing[1], &no_wait, &abandoned), FPS_OK);
    memset(fps_arena_version(&t.arenas[0], 1, 0), 0x77, N * 4);
    float sum = 0;
    for (uint32_t round = 1; round <= 3; round++) {
        sum += close_round(&t, 1);
        check_team(&t, round, sum);
        CHECK_EQ(version_of(&t.arenas[0]), round % 2 ? 2 : 0);
    }
    CHECK_EQ(fps_arena_version(&t.arenas[0], 1, 0)[N * 4 - 1], 0x77);
    fps_lock_release(&header->writing[1]);
    fps_store32_relaxed(&header->turn, UINT32_MAX); /* nonsense is nobody's */
    sum += close_round(&t, 1);
    check_team(&t, 4, sum);
    CHECK_EQ(version_of(&t.arenas[0]), 0);
    sum += close_round(&t, 1);
    check_team(&t, 5, sum);
    CHECK_EQ(version_of(&t.arenas[0]), 1);
    disband(&t);
}

/* The seat is alive again before anybody has looked whose turn it is: its dead owner's must not stay. */
static void a_seat_that_is_taken_after_a_death_claims_nothing(void)
{
    team t;
    hand h[MAX_MATES + 4];
    gather(&t, 2, 1, 1, sums);
    other o = other_of(&t);
    close_round(&t, 1);
    expect_killed(start_process(apply_and_die, &o));
    CHECK_EQ(fps_load32_relaxed(&t.arenas[0].header->turn), 3);
    uint32_t n = 0;
    for (; n < t.arenas[0].layout.n_sessions - 2; n++) open_hand(&h[n], t.arenas, 1, 4); /* free seats come first */
    CHECK_EQ(h[n - 1].sessions[0].index, 2);
    CHECK_EQ(fps_load_relaxed(&t.arenas[0].seats[2].pins), 0);
    check_nothing_is_claimed(&t.arenas[0]);
    while (n-- > 0) close_hand(&h[n]);
    drop_other(&o);
    disband(&t);
}

static void a_session_that_is_adopted_claims_nothing(void)
{
    team t;
    fps_session adopted;
    gather(&t, 2, 1, 1, sums);
    other o = other_of(&t);
    float sum = close_round(&t, 1);
    expect_killed(start_process(apply_and_die, &o));
    CHECK_EQ(adopt_session(&t.arenas[0], 2, &adopted), FPS_OK);
    CHECK_EQ(fps_load_relaxed(&adopted.seat->pins), 0);
    check_nothing_is_claimed(&t.arenas[0]);
    check_team(&t, 1, sum);
    CHECK_EQ(version_of(&t.arenas[0]), 1);
    fps_session_close(&adopted);
    drop_other(&o);
    disband(&t);
}

/* Trays without a board: what a deposit does is told by its numbers alone. */
static void check_row(const fps_arena *arena, uint32_t rank, float value, uint64_t round, uint64_t number)
{
    check_all_equal((const float *)(const void *)fps_arena_tray(arena, rank), N, value);
    CHECK_EQ(fps_load_relaxed(&arena->trays[rank].round), round);
    CHECK_EQ(fps_load_relaxed(&arena->trays[rank].number), number);
}

static fps_status put(team *t, uint64_t generation, uint64_t attempt, uint64_t round, uint32_t number, float value)
{
    float *grad = filled(N, value);
    fps_deposit d = {.rank = 1, .generation = generation, .attempt = attempt, .round = round, .number = number};
    fps_status status = lay_down(&t->mates[0].hand, NULL, d, grad);
    free(grad);
    return status;
}

static void a_deposit_that_comes_twice_or_late_changes_nothing(void)
{
    team t;
    gather(&t, 1, 2, 0, sums);
    CHECK_EQ(put(&t, 5, 3, 0, 1, 7), FPS_OK);
    for (uint32_t i = 0; i < 2; i++) check_row(&t.arenas[i], 1, 7, 0, 1);
    CHECK_EQ(put(&t, 5, 3, 0, 1, 8), FPS_OK);
    CHECK_EQ(put(&t, 5, 3, 0, 2, 8), FPS_OK);
    CHECK_EQ(put(&t, 5, 2, 9, 1, 8), FPS_OK);
    for (uint32_t i = 0; i < 2; i++) check_row(&t.arenas[i], 1, 7, 0, 1);
    CHECK_EQ(put(&t, 5, 4, 0, 1, 9), FPS_OK); /* the first of a round takes the place of all */
    for (uint32_t i = 0; i < 2; i++) check_row(&t.arenas[i], 1, 9, 0, 1);
    for (uint32_t i = 0; i < 2; i++) CHECK_EQ(fps_load_relaxed(&t.arenas[i].trays[1].attempt), 4);
    disband(&t);
}

static void a_deposit_of_an_older_generation_is_dropped(void)
{
    team t;
    gather(&t, 1, 2, 0, sums);
    CHECK_EQ(put(&t, 5, 9, 0, 1, 7), FPS_OK);
    CHECK_EQ(put(&t, 4, 10, 0, 1, 8), FPS_EXPELLED);
    CHECK_EQ(put(&t, 4, 10, 0, 2, 8), FPS_EXPELLED);
    for (uint32_t i = 0; i < 2; i++) check_row(&t.arenas[i], 1, 7, 0, 1);
    CHECK_EQ(put(&t, 6, 1, 0, 2, 8), FPS_EXPELLED); /* it does not go on from what another one gave */
    CHECK_EQ(put(&t, 6, 1, 0, 1, 8), FPS_OK);       /* its attempts begin again */
    CHECK_EQ(put(&t, 5, 99, 0, 2, 9), FPS_EXPELLED);
    for (uint32_t i = 0; i < 2; i++) {
        check_row(&t.arenas[i], 1, 8, 0, 1);
        CHECK_EQ(fps_load_relaxed(&t.arenas[i].trays[1].attempt), 1);
        CHECK_EQ(fps_load_relaxed(&t.arenas[i].trays[1].generation), 6);
    }
    disband(&t);
}

static void gradients_of_one_round_follow_each_other(void)
{
    team t;
    gather(&t, 1, 1, 0, sums);
    CHECK_EQ(put(&t, 1, 1, 0, 2, 1), FPS_EXPELLED);
    CHECK_EQ(put(&t, 1, 2, 0, 1, 1), FPS_OK);
    CHECK_EQ(put(&t, 1, 3, 0, 3, 1), FPS_EXPELLED);
    CHECK_EQ(put(&t, 1, 4, 1, 1, 1), FPS_MIXED); /* the round before has not been applied: its tray is needed */
    check_row(&t.arenas[0], 1, 1, 0, 1);
    CHECK_EQ(put(&t, 1, 5, 0, 2, 10), FPS_OK);
    CHECK_EQ(put(&t, 1, 5, 0, 2, 10), FPS_OK);
    CHECK_EQ(put(&t, 1, 6, 0, 2, 10), FPS_EXPELLED);
    check_row(&t.arenas[0], 1, 11, 0, 2);
    CHECK_EQ(put(&t, 1, 7, 0, 3, 100), FPS_OK);
    check_row(&t.arenas[0], 1, 111, 0, 3);
    fps_store_relaxed(&t.arenas[0].header->current, FPS_CURRENT(1, 0));
    CHECK_EQ(put(&t, 1, 8, 1, 2, 4), FPS_EXPELLED);
    CHECK_EQ(put(&t, 1, 9, 1, 1, 4), FPS_OK);
    check_row(&t.arenas[0], 1, 4, 1, 1);
    disband(&t);
}

/* An attempt that got as far as the first shard only is finished by the next one, which changes nothing of the first.
 */
static void a_deposit_that_was_broken_off_is_finished_by_its_second_try(void)
{
    team t;
    gather(&t, 1, 2, 0, sums);
    fps_deposit d = {.rank = 1, .number = 1, .generation = 1, .attempt = 1};
    float *grad = filled(N, 3);
    hand *h = &t.mates[0].hand;
    bool abandoned;
    const fps_wait wait = wait_ms(LONG_MS);
    CHECK_EQ(fps_lock_acquire(&t.arenas[1].trays[1].lock, &wait, &abandoned), FPS_OK);
    aim(h, grad, NULL);
    h->call.wait = wait_ms(SHORT_MS);
    CHECK_EQ(run_hand(h, NULL, &d), FPS_TIMEOUT);
    CHECK_EQ(h->at, 1);
    CHECK_EQ(h->parts[0].done, 1);
    CHECK_EQ(h->parts[1].done, 0);
    h->call.wait = (fps_wait){.deadline_ns = FPS_NO_WAIT};
    CHECK_EQ(run_hand(h, NULL, &d), FPS_BUSY);
    fps_lock_release(&t.arenas[1].trays[1].lock);
    CHECK_EQ(run_hand(h, NULL, &d), FPS_OK);
    CHECK_EQ(fps_load_relaxed(&h->sessions[0].seat->meters.pushes), 1);
    aim(h, grad, NULL);
    CHECK_EQ(run_hand(h, NULL, &d), FPS_OK);
    for (uint32_t i = 0; i < 2; i++) check_row(&t.arenas[i], 1, 3, 0, 1);
    d.rank = MAX_MATES; /* which is not there */
    d.attempt = 2;
    CHECK_EQ(lay_down(h, NULL, d, grad), FPS_BAD_DECISION);
    free(grad);
    disband(&t);
}

static void a_decision_that_names_no_member_is_refused(void)
{
    team t;
    gather(&t, 2, 1, 1, sums);
    fps_decision d = {.round = 1, .n_given = 1, .ranks = {MAX_MATES}, .weights = {1}};
    for (uint32_t rank = MAX_MATES; rank < FPS_MAX_MEMBERS; rank += 50) {
        d.ranks[0] = rank;
        CHECK_EQ(reach_round(&t.mates[0].hand, &d), FPS_BAD_DECISION);
    }
    d.n_given = FPS_MAX_MEMBERS + 1;
    CHECK_EQ(reach_round(&t.mates[0].hand, &d), FPS_BAD_DECISION);
    CHECK_EQ(round_of(&t.arenas[0]), 0);
    check_nothing_is_claimed(&t.arenas[0]);
    disband(&t);
}

/* Somebody changes hyper-parameters, and takes long. */
static void a_round_does_not_wait_for_a_change_of_hyper_parameters(void)
{
    team t;
    bool abandoned;
    gather(&t, 1, 1, 1, sums);
    hand *h = &t.mates[0].hand;
    give(&t.mates[0], 3, 1);
    fps_decision d = last_decision(&t.mates[0]);
    CHECK_EQ(fps_lock_acquire(&t.arenas[0].stripes[0].lock, &(fps_wait){.deadline_ns = FPS_NEVER}, &abandoned), FPS_OK);
    aim(h, NULL, NULL);
    h->call.wait = wait_ms(SHORT_MS);
    CHECK_EQ(run_hand(h, &d, NULL), FPS_OK);
    fps_lock_release(&t.arenas[0].stripes[0].lock);
    check_team(&t, 1, 3);
    disband(&t);
}

static double clipped(double x, double scale, double limit)
{
    x *= scale;
    return x < -limit ? -limit : x > limit ? limit : x;
}

static void check_clipping(uint32_t item_bytes, double scale, double limit)
{
    static const double values[] = {0, 1, -1, 0.25, -0.25, 3, -3, 1e30, -1e30};
    const double special[] = {(double)INFINITY, -(double)INFINITY, (double)NAN};
    const uint64_t n = 2000;
    fps_arena arena = make_shard(0, n * item_bytes, 0, 1, sums);
    hand h;
    void *grad = malloc(n * item_bytes);
    const void *tray = fps_arena_tray(&arena, 0);
    open_hand(&h, &arena, 1, item_bytes);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t k = i % (COUNT(values) + COUNT(special));
        set_item(grad, i, item_bytes, k < COUNT(values) ? values[k] : special[k - COUNT(values)]);
    }
    for (uint32_t number = 1; number <= 3; number++) {
        fps_deposit d = {.number = number, .attempt = number, .generation = 1};
        aim(&h, grad, NULL);
        h.call.scale = scale;
        h.call.limit = limit;
        CHECK_EQ(run_hand(&h, NULL, &d), FPS_OK);
        for (uint64_t i = 0; i < n; i++) {
            double once = item_bytes == 4
                              ? (double)(float)clipped(item(grad, i, 4), (double)(float)scale, (double)(float)limit)
                              : clipped(item(grad, i, 8), scale, limit);
            double sum = once, got = item(tray, i, item_bytes);
            for (uint32_t k = 1; k < number; k++) sum = rounded(sum + once, item_bytes);
            CHECK_EQ(isnan(got) != 0, isnan(sum) != 0);
            CHECK_EQ(isnan(sum) != 0, isnan(item(grad, i, item_bytes)) || isnan(scale));
            if (!isnan(sum)) CHECK_FLOAT(got, sum);
        }
    }
    close_hand(&h);
    drop_arena(&arena);
    free(grad);
}

static void gradients_are_clipped_on_their_way_into_the_row_and_nan_stays_nan(void)
{
    for (uint32_t item_bytes = 4; item_bytes <= 8; item_bytes += 4) {
        check_clipping(item_bytes, 1, 0.5);
        check_clipping(item_bytes, 0.1, 0.2);
        check_clipping(item_bytes, 7, 2);
        check_clipping(item_bytes, 0.3, (double)INFINITY);
        check_clipping(item_bytes, 1, (double)INFINITY);
        check_clipping(item_bytes, (double)NAN, 1);
    }
}

static void parameters_that_are_given_are_not_clipped(void)
{
    team t;
    gather(&t, 1, 1, 0, (fps_policy){.reduce = FPS_REDUCE_PARAMS});
    hand *h = &t.mates[0].hand;
    fps_decision d = last_decision(&t.mates[0]);
    float *params = filled(N, 50);
    for (uint32_t number = 1; number <= 2; number++) {
        fps_deposit deposit = next_deposit(&t.mates[0], &d, number);
        aim(h, params, NULL);
        h->call.limit = 1;
        h->call.scale = 0.5;
        CHECK_EQ(run_hand(h, &d, &deposit), FPS_OK);
        check_all_equal((const float *)(const void *)fps_arena_tray(&t.arenas[0], 0), N, 50 * (float)number);
    }
    free(params);
    disband(&t);
}

/* Brings one of two shards a round further than the other. */
static void reach_alone(hand *h, uint32_t shard, const fps_decision *d)
{
    aim(h, NULL, NULL);
    h->call.parts = &h->parts[shard];
    h->call.n_parts = 1;
    CHECK_EQ(run_hand(h, d, NULL), FPS_OK);
}

static void shards_at_different_rounds_are_not_read_together(void)
{
    for (uint32_t ahead = 0; ahead < 2; ahead++) {
        team t;
        gather(&t, 2, 2, 1, sums);
        hand *h = &t.mates[0].hand;
        float sum = close_round(&t, 4);
        fps_decision d = last_decision(&t.mates[0]);
        reach_alone(&t.mates[1].hand, ahead, &d);
        CHECK_EQ(round_of(&t.arenas[ahead]), 1);
        CHECK_EQ(round_of(&t.arenas[1 - ahead]), 0);
        for (uint32_t k = 0; k <= 1; k++) {
            CHECK_EQ(read_stream(h, NULL, k, (void *const *)t.outs), FPS_MIXED);
            for (uint32_t i = 0; i < 2; i++) check_all_equal(t.outs[i], N, -1);
        }
        CHECK_EQ(fps_load_relaxed(&h->sessions[0].seat->meters.pulls), 0);
        CHECK_EQ(fps_load_relaxed(&h->sessions[0].seat->pins), 0);
        check_team(&t, 1, sum);
        sum += close_round(&t, 5);
        fps_decision next = last_decision(&t.mates[0]);
        reach_alone(&t.mates[1].hand, ahead, &next);
        CHECK_EQ(read_stream(h, &d, 0, (void *const *)t.outs), FPS_MIXED); /* an old decision does not help */
        check_team(&t, 2, sum);
        disband(&t);
    }
}

static void a_decision_of_two_rounds_ahead_is_not_brought_about(void)
{
    team t;
    gather(&t, 2, 2, 1, sums);
    hand *h = &t.mates[0].hand;
    float sum = close_round(&t, 1), *grad = filled(N, 5);
    check_team(&t, 1, sum);
    fps_decision ahead = last_decision(&t.mates[0]);
    ahead.round += 2;
    CHECK_EQ(reach_round(h, &ahead), FPS_MIXED);
    CHECK_EQ(read_stream(h, &ahead, 0, (void *const *)t.outs), FPS_MIXED);
    CHECK_EQ(write_stream(h, &ahead, 1, grad), FPS_MIXED);
    CHECK_EQ(lay_down(h, &ahead, next_deposit(&t.mates[0], &ahead, 1), grad), FPS_MIXED);
    check_row(&t.arenas[0], 0, 1, 0, 1);
    for (uint32_t i = 0; i < 2; i++) CHECK_EQ(fps_lock_holder(&t.arenas[i].stripes[0].lock), 0);
    check_team(&t, 1, sum);
    free(grad);
    disband(&t);
}

static void hold_the_turn(void *argument)
{
    other *o = argument;
    fps_session s;
    CHECK_EQ(try_session(&o->arenas[0], &s), FPS_OK);
    fps_store32_relaxed(&o->arenas[0].header->turn, s.index + 1);
    fps_store32_release(o->ready, 1);
    for (;;) pause();
}

static void a_busy_shard_is_passed_over_and_waited_for_at_last_if_it_may_be(void)
{
    for (uint32_t first = 0; first < 2; first++) {
        team t;
        gather(&t, 2, 2, 0, sums);
        hand *h = &t.mates[0].hand;
        other o = other_of(&t);
        float sum = close_round(&t, 1);
        fps_decision d = last_decision(&t.mates[0]);
        pid_t pid = start_process(hold_the_turn, &o);
        await(o.ready, 1);
        aim(h, NULL, NULL);
        h->call.first = first;
        h->call.wait = (fps_wait){.deadline_ns = FPS_NO_WAIT};
        CHECK_EQ(run_hand(h, &d, NULL), FPS_BUSY);
        CHECK_EQ(h->at, 0);
        CHECK_EQ(round_of(&t.arenas[1]), 1);
        CHECK_EQ(round_of(&t.arenas[0]), 0);
        h->call.wait = wait_ms(SHORT_MS);
        CHECK_EQ(run_hand(h, &d, NULL), FPS_TIMEOUT);
        CHECK_EQ(h->at, 0);
        CHECK_EQ(round_of(&t.arenas[1]), 1);
        CHECK_EQ(round_of(&t.arenas[0]), 0);
        kill_process(pid);
        check_team(&t, 1, sum);
        drop_other(&o);
        disband(&t);
    }
}

static void setting_a_slot_keeps_the_round_and_makes_a_version(void)
{
    team t;
    hand reader;
    gather(&t, 2, 2, 2, sums);
    open_hand(&reader, t.arenas, 1, 4);
    float sum = close_round(&t, 1), *nines = filled(N, 9);
    check_team(&t, 1, sum);
    hand *h = &t.mates[1].hand;
    uint32_t before = FPS_CURRENT_VERSION(fps_version_pin(&reader.sessions[0]));
    CHECK_EQ(write_stream(h, NULL, 2, nines), FPS_OK);
    for (uint32_t i = 0; i < 2; i++) {
        CHECK_EQ(round_of(&t.arenas[i]), 1);
        CHECK(version_of(&t.arenas[i]) != before);
        CHECK_EQ(updates_of(&t.arenas[i]), 1);
        CHECK_EQ(h->parts[i].version, 1);
        CHECK_EQ(h->parts[i].done, 1);
        check_nothing_is_claimed(&t.arenas[i]);
        for (uint32_t k = 0; k <= 2; k++)
            check_all_equal(stream_at(&t.arenas[i], version_of(&t.arenas[i]), k), N, k == 2 ? 9 : (float)(k + 1) * sum);
    }
    check_all_equal(stream_at(&t.arenas[0], before, 2), N, 3 * sum);
    CHECK_EQ(read_stream(h, NULL, 2, (void *const *)t.outs), FPS_OK);
    check_all_equal(t.outs[1], N, 9);
    uint64_t current = fps_load_relaxed(&t.arenas[0].header->current);
    CHECK_EQ(run_hand(h, NULL, NULL), FPS_OK); /* the same read again */
    CHECK_EQ(fps_load_relaxed(&t.arenas[0].header->current), current);

    float more = close_round(&t, 2);
    fps_decision d = last_decision(&t.mates[0]);
    for (uint32_t k = 0; k <= 2; k++) {
        CHECK_EQ(read_stream(h, &d, k, (void *const *)t.outs), FPS_OK);
        check_all_equal(t.outs[0], N, k == 2 ? 9 + 3 * more : (float)(k + 1) * (sum + more));
        CHECK_EQ(h->parts[0].version, 2);
    }
    CHECK_EQ(updates_of(&t.arenas[0]), 2);
    free(nines);
    close_hand(&reader);
    disband(&t);
}

/* A set comes behind the round that its decision names. */
static void a_set_is_not_lost_in_a_round_that_has_closed(void)
{
    team t;
    gather(&t, 2, 1, 1, sums);
    float sum = close_round(&t, 1), *nines = filled(N, 9);
    fps_decision d = last_decision(&t.mates[0]);
    CHECK_EQ(write_stream(&t.mates[0].hand, &d, 1, nines), FPS_OK);
    CHECK_EQ(t.mates[0].hand.parts[0].version, 1);
    check_all_equal(stream_at(&t.arenas[0], version_of(&t.arenas[0]), 0), N, sum);
    check_all_equal(stream_at(&t.arenas[0], version_of(&t.arenas[0]), 1), N, 9);
    CHECK_EQ(run_hand(&t.mates[0].hand, &d, NULL), FPS_OK); /* it is done */
    CHECK_EQ(write_stream(&t.mates[0].hand, NULL, FPS_NO_STREAM, nines), FPS_OK);
    CHECK_EQ(read_stream(&t.mates[0].hand, NULL, FPS_NO_STREAM, (void *const *)t.outs), FPS_OK);
    check_all_equal(t.outs[0], N, -1);
    check_all_equal(stream_at(&t.arenas[0], version_of(&t.arenas[0]), 0), N, sum);
    check_all_equal(stream_at(&t.arenas[0], version_of(&t.arenas[0]), 1), N, 9);
    free(nines);
    disband(&t);
}

static void a_closed_arena_is_told(void)
{
    for (uint32_t shard = 0; shard < 2; shard++) {
        team t;
        gather(&t, 2, 2, 1, sums);
        hand *h = &t.mates[0].hand;
        float *grad = filled(N, 1);
        close_round(&t, 1);
        fps_decision d = last_decision(&t.mates[0]);
        fps_arena_retire(&t.arenas[shard]);
        CHECK_EQ(reach_round(h, &d), FPS_CLOSED);
        CHECK_EQ(h->at, shard);
        CHECK_EQ(lay_down(h, NULL, next_deposit(&t.mates[0], &d, 1), grad), FPS_CLOSED);
        CHECK_EQ(h->at, shard);
        CHECK_EQ(write_stream(h, NULL, 1, grad), FPS_CLOSED);
        CHECK_EQ(h->at, shard);
        if (shard == 1) reach_alone(h, 0, &d);
        aim(h, NULL, (void *const *)t.outs);
        h->call.parts = &h->parts[shard];
        h->call.n_parts = 1;
        CHECK_EQ(run_hand(h, NULL, NULL), FPS_CLOSED);
        free(grad);
        disband(&t);
    }
}

static int64_t memory_of(const fps_arena *arena)
{
    struct stat file;
    CHECK_EQ(fstat(arena->fd, &file), 0);
    return file.st_blocks * 512;
}

/* An operation that has to wait, and what it came to. */
typedef struct waiting {
    hand *hand;
    const fps_decision *decision;
    const fps_deposit *deposit;
    fps_status status;
} waiting;

static void *run_waiting(void *argument)
{
    waiting *w = argument;
    w->status = run_hand(w->hand, w->decision, w->deposit);
    return NULL;
}

static void who_waited_is_told_that_the_arena_closed(void)
{
    for (int kind = 0; kind < 3; kind++) { /* a round, a set, a deposit */
        team t;
        gather(&t, 2, 1, 1, sums);
        hand *h = &t.mates[0].hand;
        float *values = filled(N, 9);
        bool abandoned;
        close_round(&t, 1);
        fps_decision d = last_decision(&t.mates[0]);
        fps_deposit deposit = next_deposit(&t.mates[0], &d, 1);
        pthread_mutex_t *lock = &t.arenas[0].trays[0].lock;
        const fps_wait wait = wait_ms(LONG_MS);
        pthread_t thread;
        waiting w = {.hand = h, .decision = kind == 0 ? &d : NULL, .deposit = kind == 2 ? &deposit : NULL};
        if (kind == 1)
            aim_at_stream(h, 1, values, NULL);
        else
            aim(h, kind == 2 ? values : NULL, NULL);
        CHECK_EQ(fps_lock_acquire(lock, &wait, &abandoned), FPS_OK);
        fps_store32_relaxed(&t.arenas[0].header->turn, kind == 2 ? 0 : t.mates[1].hand.sessions[0].index + 1);
        CHECK_EQ(pthread_create(&thread, NULL, run_waiting, &w), 0);
        nap_us(20000);
        fps_arena_retire(&t.arenas[0]);
        int64_t memory = memory_of(&t.arenas[0]);
        fps_lock_release(lock);
        pthread_join(thread, NULL);
        CHECK_EQ(w.status, FPS_CLOSED);
        CHECK_EQ(memory_of(&t.arenas[0]), memory); /* what was given back stays so */
        free(values);
        disband(&t);
    }
}

#define PATIENCE_MS 60

static void whose_turn_it_is_is_passed_after_its_time(void)
{
    team t;
    gather(&t, 2, 1, 1, (fps_policy){.straggler_ns = PATIENCE_MS * INT64_C(1000000)});
    hand *h = &t.mates[0].hand;
    other o = other_of(&t);
    float sum = close_round(&t, 1);
    fps_decision d = last_decision(&t.mates[0]);
    pid_t pid = start_process(hold_the_turn, &o);
    await(o.ready, 1);
    aim(h, NULL, NULL);
    h->call.wait = wait_ms(PATIENCE_MS / 3);
    CHECK_EQ(run_hand(h, &d, NULL), FPS_TIMEOUT);
    h->call.wait = (fps_wait){.deadline_ns = FPS_NO_WAIT};
    CHECK_EQ(run_hand(h, &d, NULL), FPS_BUSY);
    CHECK_EQ(round_of(&t.arenas[0]), 0);
    int64_t start = fps_now_ns();
    check_team(&t, 1, sum);
    CHECK(fps_now_ns() - start >= PATIENCE_MS * 1000000);
    CHECK_EQ(write_stream(h, NULL, 1, t.outs[0]), FPS_OK);
    CHECK_EQ(fps_load32_relaxed(&t.arenas[0].header->turn), 0); /* nobody waits for it again */
    kill_process(pid);
    drop_other(&o);
    disband(&t);
}

static void without_a_limit_whose_turn_it_is_is_waited_for(void)
{
    team t;
    gather(&t, 2, 1, 1, sums);
    other o = other_of(&t);
    float sum = close_round(&t, 1);
    fps_decision d = last_decision(&t.mates[0]);
    pid_t pid = start_process(hold_the_turn, &o);
    await(o.ready, 1);
    aim(&t.mates[0].hand, NULL, NULL);
    t.mates[0].hand.call.wait = wait_ms(3 * SHORT_MS);
    CHECK_EQ(run_hand(&t.mates[0].hand, &d, NULL), FPS_TIMEOUT);
    CHECK_EQ(round_of(&t.arenas[0]), 0);
    kill_process(pid);
    check_team(&t, 1, sum);
    drop_other(&o);
    disband(&t);
}

static bool stops;

static int32_t stop_in_kernel(const void *const *state, const void *grad, void *const *results, int64_t n,
                              int64_t ahead, const double *uniforms)
{
    if (stops) raise(SIGSTOP);
    stops = false;
    return add_1_f32(state, grad, results, n, ahead, uniforms);
}

static void apply_and_be_stopped(void *argument)
{
    other *o = argument;
    mate m;
    bool counted;
    join_team(&m, o->arenas, o->n_shards, 1, 4);
    m.hand.rule.kernel = stop_in_kernel;
    fps_store32_release(o->ready, 1);
    await(o->ready, 2);
    give(&m, 10, 1);
    fps_decision d = last_decision(&m);
    stops = true;
    CHECK_EQ(reach_round(&m.hand, &d), FPS_OK);
    CHECK(!stops);
    check_nothing_is_claimed(&o->arenas[0]);
    CHECK_EQ(round_of(&o->arenas[0]), 4); /* without it */
    CHECK_EQ(give_round(&m, 1, &counted), FPS_EXPELLED);
    fps_wait wait = wait_ms(LONG_MS);
    CHECK_EQ(fps_worker_return(&m.worker, &wait, &m.worker.generation), FPS_OK);
    fps_store32_release(o->ready, 3);
    await(o->ready, 4);
    give(&m, 100, 1);
    leave_team(&m);
}

/* It has the turn, a version and a pin. The others go on, and what it makes when it goes on is seen by nobody. */
static void who_is_stopped_while_it_applies_a_round_is_passed(void)
{
    team t;
    gather(&t, 1, 1, 1, (fps_policy){.quorum = 2, .straggler_ns = PATIENCE_MS * INT64_C(1000000)});
    other o = other_of(&t);
    fps_arena *arena = &t.arenas[0];
    int status;
    pid_t pid = start_process(apply_and_be_stopped, &o);
    await(o.ready, 1);
    give(&t.mates[0], 1, 1);
    fps_store32_release(o.ready, 2);
    CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
    CHECK(WIFSTOPPED(status));
    CHECK(fps_load32_relaxed(&arena->header->turn) != 0);
    CHECK_EQ(fps_lock_holder(&arena->header->writing[1]), (uint32_t)pid);
    float sum = 11;
    for (uint32_t round = 1; round <= 4; round++) {
        check_team(&t, round, sum);
        CHECK_EQ(fps_load32_relaxed(&arena->header->turn), 0); /* it is waited for once */
        CHECK_EQ(version_of(arena), round % 2 ? 2 : 3);        /* 0 is pinned by the stopped one, 1 is claimed */
        if (round == 4) break;
        give(&t.mates[0], (float)round, 1);
        sum += (float)round;
        CHECK_EQ(begin_round(&t.mates[0], LONG_MS), FPS_OK);
    }
    check_all_equal(stream_at(arena, 0, 0), N, 0);
    CHECK_EQ(kill(pid, SIGCONT), 0);
    await(o.ready, 3);
    check_team(&t, 4, sum);
    give(&t.mates[0], 1000, 1);
    fps_store32_release(o.ready, 4);
    expect_success(pid);
    check_team(&t, 5, sum + 1100);
    check_nothing_is_claimed(arena);
    drop_other(&o);
    disband(&t);
}

static void memory_comes_when_it_is_needed(void)
{
    const uint32_t n = 1 << 18;
    fps_arena arena = make_shard(0, n * 4, 1, 2, sums);
    const fps_layout *l = &arena.layout;
    mate mates[2];
    hand reader;
    float *grad = filled(n, 1);
    int64_t tray = (int64_t)l->tray_stride, version = (int64_t)l->version_stride, slack = 64 * FPS_PAGE;
    for (uint32_t r = 0; r < 2; r++) join_team(&mates[r], &arena, 1, r, 4);
    open_hand(&reader, &arena, 1, 4);
    int64_t at_first = memory_of(&arena);
    for (uint32_t round = 0; round < 6; round++) {
        for (uint32_t r = 0; r < 2; r++) {
            fps_decision d = last_decision(&mates[r]);
            bool counted;
            uint32_t weight = r == 0 || round >= 3;
            if (weight) CHECK_EQ(lay_down(&mates[r].hand, &d, next_deposit(&mates[r], &d, 1), grad), FPS_OK);
            CHECK_EQ(give_round(&mates[r], weight, &counted), FPS_OK);
        }
        fps_decision d = last_decision(&mates[0]);
        CHECK_EQ(reach_round(&reader, &d), FPS_OK);
        CHECK_EQ(fps_load32_relaxed(&arena.trays[0].backed), 1);
        CHECK_EQ(fps_load32_relaxed(&arena.trays[1].backed), round >= 3);
        CHECK_EQ(fps_load32_relaxed(&arena.header->backed), 3);
        int64_t took = memory_of(&arena) - at_first, expected = tray * (1 + (round >= 3));
        CHECK(took >= expected - slack && took <= expected + slack);
    }
    uint32_t held = FPS_CURRENT_VERSION(fps_version_pin(&reader.sessions[0]));
    for (uint32_t i = 0; i < 4; i++) {
        CHECK_EQ(fps_arena_state(&arena), FPS_OK);
        for (uint32_t r = 0; r < 2; r++) {
            fps_decision d = last_decision(&mates[r]);
            bool counted;
            CHECK_EQ(lay_down(&mates[r].hand, &d, next_deposit(&mates[r], &d, 1), grad), FPS_OK);
            CHECK_EQ(give_round(&mates[r], 1, &counted), FPS_OK);
        }
    }
    fps_version_unpin(&reader.sessions[0], held);
    CHECK_EQ(fps_load32_relaxed(&arena.header->backed), 7);
    int64_t took = memory_of(&arena) - at_first, expected = 2 * tray + version;
    CHECK(took >= expected - slack && took <= expected + slack);
    close_hand(&reader);
    for (uint32_t r = 0; r < 2; r++) leave_team(&mates[r]);
    drop_arena(&arena);
    free(grad);
}

static uint32_t random_number(uint64_t *state, uint32_t n)
{
    *state = *state * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (uint32_t)((*state >> 33) % n);
}

/* What was given to the open round, by rank; whether somebody is there and has still to give. */
typedef struct ledger {
    bool here[MAX_MATES], gave[MAX_MATES];
    float value[MAX_MATES];
    uint32_t weight[MAX_MATES];
    uint64_t round;
    float sum;
} ledger;

static void settle(ledger *l, uint32_t backup)
{
    uint32_t given = 0, missing = 0;
    for (uint32_t i = 0; i < MAX_MATES; i++) {
        given += l->gave[i];
        missing += l->here[i] && !l->gave[i];
    }
    if (given == 0 || missing > backup) return;
    for (uint32_t i = 0; i < MAX_MATES; i++) {
        if (l->gave[i]) l->sum += l->value[i] * (float)l->weight[i];
        l->gave[i] = false;
    }
    l->round++;
}

/* Workers come, give, read and go, in any order. */
static void any_run_of_rounds_agrees_with_a_plain_ledger(void)
{
    for (uint64_t seed = 0; seed < 40; seed++) {
        uint64_t random = seed;
        uint32_t backup = (uint32_t)seed % 3;
        team t;
        ledger l = {0};
        gather(&t, 0, 2, (uint32_t)seed / 3 % 3, (fps_policy){.backup = backup});
        for (int step = 0; step < 120; step++) {
            uint32_t rank = random_number(&random, MAX_MATES), dice = random_number(&random, 12);
            mate *m = &t.mates[rank];
            if (!l.here[rank]) {
                if (dice > 5) continue;
                join_team(m, t.arenas, 2, rank, 4);
                l.here[rank] = true;
            } else if (dice == 0) {
                leave_team(m);
                l.here[rank] = false;
            } else if (dice < 9 && !l.gave[rank]) {
                fps_wait wait = wait_ms(LONG_MS);
                CHECK_EQ(fps_worker_catch_up(&m->worker, l.round, &wait), FPS_OK);
                l.gave[rank] = true;
                l.value[rank] = (float)(1 + random_number(&random, 9));
                l.weight[rank] = random_number(&random, 4);
                give(m, l.value[rank], l.weight[rank]);
            } else {
                fps_decision d = last_decision(m);
                uint32_t k = random_number(&random, t.arenas[0].layout.n_slots + 1);
                CHECK_EQ(read_stream(&m->hand, &d, k, (void *const *)t.outs), FPS_OK);
                for (uint32_t i = 0; i < 2; i++) {
                    check_all_equal(t.outs[i], N, (float)(k + 1) * l.sum);
                    CHECK_EQ(m->hand.parts[i].version, l.round);
                }
                continue;
            }
            settle(&l, backup);
            CHECK_EQ(fps_load_relaxed(&t.arenas[0].board->progress), l.round);
        }
        for (uint32_t i = 0; i < MAX_MATES; i++)
            if (l.here[i]) leave_team(&t.mates[i]);
        disband(&t);
    }
}

int main(void)
{
    static const test tests[] = {
        TEST(a_round_reaches_every_stream_of_every_shard),
        TEST(a_round_is_applied_once),
        TEST(an_older_decision_changes_nothing),
        TEST(a_deposit_brings_the_shards_to_the_round_before_it),
        TEST(operations_are_counted_in_their_sessions),
        TEST(sums_are_added_in_the_order_of_ranks),
        TEST(means_are_over_the_gradients_not_the_workers),
        TEST(parameters_that_are_given_are_averaged_and_take_the_place_of_the_old),
        TEST(runs_of_both_types_in_one_shard_are_reduced_in_their_own),
        TEST(the_step_of_a_rule_counts_rounds_with_gradients),
        TEST(a_round_without_a_gradient_changes_nothing_but_its_number),
        TEST(slots_are_carried_along_where_parameters_are_given),
        TEST(a_version_is_written_beside_the_one_before),
        TEST(a_pinned_version_does_not_change_and_its_memory_is_used_again_when_it_is_let_go),
        TEST(a_session_pins_several_versions),
        TEST(operations_let_their_pins_go),
        TEST(a_round_waits_while_every_version_is_held),
        TEST(a_pin_of_a_dead_process_holds_nothing),
        TEST(a_pin_of_a_closed_session_holds_nothing_and_its_seat_begins_without),
        TEST(a_version_that_a_dead_process_was_writing_is_taken_over),
        TEST(a_version_that_somebody_writes_is_passed_over),
        TEST(a_seat_that_is_taken_after_a_death_claims_nothing),
        TEST(a_session_that_is_adopted_claims_nothing),
        TEST(a_deposit_that_comes_twice_or_late_changes_nothing),
        TEST(a_deposit_of_an_older_generation_is_dropped),
        TEST(gradients_of_one_round_follow_each_other),
        TEST(a_deposit_that_was_broken_off_is_finished_by_its_second_try),
        TEST(gradients_are_clipped_on_their_way_into_the_row_and_nan_stays_nan),
        TEST(parameters_that_are_given_are_not_clipped),
        TEST(shards_at_different_rounds_are_not_read_together),
        TEST(a_decision_that_names_no_member_is_refused),
        TEST(a_round_does_not_wait_for_a_change_of_hyper_parameters),
        TEST(a_decision_of_two_rounds_ahead_is_not_brought_about),
        TEST(a_busy_shard_is_passed_over_and_waited_for_at_last_if_it_may_be),
        TEST(setting_a_slot_keeps_the_round_and_makes_a_version),
        TEST(a_set_is_not_lost_in_a_round_that_has_closed),
        TEST(a_closed_arena_is_told),
        TEST(who_waited_is_told_that_the_arena_closed),
        TEST(whose_turn_it_is_is_passed_after_its_time),
        TEST(without_a_limit_whose_turn_it_is_is_waited_for),
        TEST(who_is_stopped_while_it_applies_a_round_is_passed),
        TEST(memory_comes_when_it_is_needed),
        TEST(any_run_of_rounds_agrees_with_a_plain_ledger),
    };
    return run_tests(tests, COUNT(tests));
}

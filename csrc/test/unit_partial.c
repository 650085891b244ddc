/* Partial operations: on some of the arrays, each of which has an update count of its own. */
#define _GNU_SOURCE

#include "check.h"
#include "fill.h"
#include "stripe.h"
#include "team.h"

#define N_LEAVES 4
#define N 2500 /* elements of an array: more than two stripes of 4096 bytes */
#define ALL 0xfu

static int32_t prepare_step(const double *hyper, double step, double *uniforms)
{
    uniforms[0] = step;
    uniforms[1] = hyper[0];
    return 0;
}

/* The parameters add up the steps that they have seen: a number that tells which these were. */
static int32_t add_step(const void *const *state, const void *grad, void *const *results, int64_t n, int64_t ahead,
                        const double *uniforms)
{
    const float *g = grad;
    (void)ahead;
    for (int64_t i = 0; i < n; i++)
        ((float *)results[0])[i] = ((const float *)state[0])[i] + g[i] * (float)(uniforms[0] * uniforms[0]);
    return 0;
}

/* A shard of N_LEAVES arrays, and one operation at a time. It stays where it is. */
typedef struct world {
    fps_arena arena;
    fps_session session;
    fps_span spans[N_LEAVES], some[N_LEAVES];
    fps_rule rule;
    const void *grads[N_LEAVES];
    void *outs[N_LEAVES];
    double uniforms[FPS_UNIFORMS];
    fps_part part;
    fps_call call;
    uint32_t at;
    double expected[N_LEAVES]; /* of every element */
    uint64_t steps[N_LEAVES];
} world;

static float ones[N], out[N_LEAVES][N];

static void open_world(world *w, uint64_t stripe_bytes, uint32_t isolation)
{
    *w = (world){.rule = {.kernel = add_step, .prepare = prepare_step}};
    fps_arena_spec spec = spec_of(N_LEAVES * N * sizeof(float), stripe_bytes, 4);
    spec.n_leaves = N_LEAVES;
    spec.isolation = isolation;
    CHECK_EQ(fps_arena_create(&spec, &w->arena), FPS_OK);
    w->session = open_session(&w->arena);
    for (uint32_t i = 0; i < N; i++) ones[i] = 1;
    for (uint32_t i = 0; i < N_LEAVES; i++)
        w->spans[i] = (fps_span){
            .position = i * N * sizeof(float), .bytes = N * sizeof(float), .buffer = i, .item_bytes = 4, .leaf = i};
}

static void close_world(world *w)
{
    fps_session_close(&w->session);
    drop_arena(&w->arena);
}

/* `which`: bit i for array i; ALL makes it an operation that is not partial. */
static void aim_world(world *w, fps_session *session, fps_kind kind, uint32_t which)
{
    w->part = (fps_part){
        .session = session, .spans = w->spans, .n_spans = N_LEAVES, .some = w->some, .uniforms = w->uniforms};
    for (uint32_t i = 0; i < N_LEAVES; i++) {
        w->grads[i] = ones;
        w->outs[i] = out[i];
        if (which >> i & 1) w->some[w->part.n_some++] = w->spans[i];
    }
    w->call = (fps_call){.kind = kind,
                         .partial = which != ALL,
                         .grads = w->grads,
                         .outs = w->outs,
                         .rules = &w->rule,
                         .n_rules = 1,
                         .limit = (double)INFINITY,
                         .scale = 1,
                         .parts = &w->part,
                         .n_parts = 1,
                         .wait = {.deadline_ns = FPS_NEVER}};
}

static void expect_push_of(world *w, uint32_t which)
{
    for (uint32_t i = 0; i < N_LEAVES; i++) {
        if (!(which >> i & 1)) continue;
        w->steps[i]++;
        w->expected[i] += (double)(w->steps[i] * w->steps[i]);
    }
}

static void push_some(world *w, uint32_t which)
{
    aim_world(w, &w->session, FPS_PUSH, which);
    CHECK_EQ(fps_dense_run(&w->call, &w->at), FPS_OK);
    expect_push_of(w, which);
}

static void check_world(world *w)
{
    for (uint32_t i = 0; i < N_LEAVES; i++)
        for (uint32_t k = 0; k < N; k++) {
            float found;
            memcpy(&found, w->arena.params + w->spans[i].position + k * sizeof found, sizeof found);
            CHECK_FLOAT((double)found, w->expected[i]);
        }
}

static const uint32_t MIXED[] = {ALL, 2, 5, ALL, 8, 8, ALL, 7, 0, 1, ALL, ALL};

static void each_array_counts_the_pushes_that_had_it(void)
{
    for (uint32_t i = 0; i < 6; i++) {
        world w;
        uint64_t partials = 0;
        open_world(&w, i % 3 == 0 ? 4096 : i % 3 == 1 ? 16384 : 0, i < 3 ? FPS_ISOLATION_SHARD : FPS_ISOLATION_NONE);
        for (uint32_t k = 0, counted = 0; k < COUNT(MIXED); k++) {
            push_some(&w, MIXED[k]);
            counted += MIXED[k] != 0;
            partials += MIXED[k] != 0 && MIXED[k] != ALL;
            CHECK_EQ(w.part.version, counted); /* one of no arrays changes nothing */
            CHECK_EQ(fps_load_relaxed(&w.arena.header->version), counted);
            CHECK_EQ(fps_load_relaxed(&w.arena.header->partials), partials);
            check_world(&w);
        }
        close_world(&w);
    }
}

static void get_or_set(world *w, fps_kind kind, uint32_t which, uint64_t *steps)
{
    static const uint32_t params = 0;
    aim_world(w, &w->session, kind, which);
    w->call.streams = &params;
    w->call.n_streams = 1;
    w->call.n_buffers = N_LEAVES;
    w->part.steps = steps;
    CHECK_EQ(fps_dense_run(&w->call, &w->at), FPS_OK);
}

static void check_steps(world *w)
{
    uint64_t steps[N_LEAVES];
    get_or_set(w, FPS_GET, ALL, steps);
    for (uint32_t i = 0; i < N_LEAVES; i++) CHECK_EQ(steps[i], w->steps[i]);
}

/* What is set is what is read and what the next pushes go on with, and no update count of a shard decreases. */
static void steps_are_read_and_set(void)
{
    static const uint64_t given[][N_LEAVES] = {{9, 9, 9, 9}, {2, 2, 2, 2}, {0, 30, 1, 7}, {0, 0, 0, 0}, {5, 4, 40, 5}};
    for (uint32_t i = 0; i < 6 * COUNT(given); i++) {
        const uint32_t which = i % 2 ? ALL : 6;
        world w;
        open_world(&w, i % 3 == 0 ? 4096 : 0, i / COUNT(given) % 2 ? FPS_ISOLATION_SHARD : FPS_ISOLATION_NONE);
        for (uint32_t k = 0; k < COUNT(MIXED); k++) {
            const uint64_t before = fps_load_relaxed(&w.arena.header->version);
            uint64_t steps[N_LEAVES], n = 0;
            push_some(&w, MIXED[k]);
            check_steps(&w);
            if (k % 4 != i % 4) continue;
            for (uint32_t leaf = 0; leaf < N_LEAVES; leaf++) {
                if (!(which >> leaf & 1)) continue;
                steps[n++] = w.steps[leaf] = given[i % COUNT(given)][leaf];
                w.expected[leaf] = 1; /* the values of a set are ones */
            }
            get_or_set(&w, FPS_SET, which, steps);
            check_world(&w);
            check_steps(&w);
            CHECK(fps_load_relaxed(&w.arena.header->version) >= before);
            CHECK_EQ(fps_load_relaxed(&w.arena.header->version), w.part.version);
        }
        check_world(&w);
        close_world(&w);
    }
}

/* Arrays at one step have no counts to look up. */
static void a_set_of_all_arrays_brings_them_to_one_step(void)
{
    uint64_t steps[N_LEAVES] = {100, 100, 100, 100};
    world w;
    open_world(&w, 4096, FPS_ISOLATION_SHARD);
    push_some(&w, 1);
    push_some(&w, ALL);
    get_or_set(&w, FPS_SET, ALL, steps);
    CHECK_EQ(fps_load_relaxed(&w.arena.header->version), 100);
    CHECK_EQ(fps_load_relaxed(&w.arena.header->partials), 0);
    steps[2] = 90;
    fps_fill(&w.call);
    CHECK_EQ(fps_load_relaxed(&w.arena.header->version), 100);
    CHECK_EQ(fps_load_relaxed(&w.arena.header->partials), 10);
    for (uint32_t i = 0; i < N_LEAVES; i++) w.steps[i] = steps[i];
    check_steps(&w);
    close_world(&w);
}

static void a_partial_pull_reads_its_arrays_and_no_other_one(void)
{
    world w;
    open_world(&w, 4096, FPS_ISOLATION_SHARD);
    push_some(&w, ALL);
    push_some(&w, 2);
    for (uint32_t which = 0; which < ALL; which++) {
        for (uint32_t i = 0; i < N_LEAVES; i++)
            for (uint32_t k = 0; k < N; k++) out[i][k] = -1;
        aim_world(&w, &w.session, FPS_PULL, which);
        CHECK_EQ(fps_dense_run(&w.call, &w.at), FPS_OK);
        CHECK_EQ(w.part.version, 2);
        for (uint32_t i = 0; i < N_LEAVES; i++)
            for (uint32_t k = 0; k < N; k++) CHECK_FLOAT((double)out[i][k], which >> i & 1 ? w.expected[i] : -1.0);
    }
    close_world(&w);
}

static void a_partial_push_pull_returns_what_it_made(void)
{
    world w;
    open_world(&w, 4096, FPS_ISOLATION_SHARD);
    push_some(&w, 6);
    aim_world(&w, &w.session, FPS_PUSH_PULL, 4);
    CHECK_EQ(fps_dense_run(&w.call, &w.at), FPS_OK);
    expect_push_of(&w, 4);
    for (uint32_t k = 0; k < N; k++) CHECK_FLOAT((double)out[2][k], 5.0); /* the steps 1 and 2, squared */
    check_world(&w);
    close_world(&w);
}

/* The stripe in which array 2 has its middle. */
static uint32_t middle_of_array_2(const world *w)
{
    return (uint32_t)((w->spans[2].position + w->spans[2].bytes / 2) / w->arena.layout.stripe_bytes);
}

/* What another process does: holds the lock of a stripe while it is told to. */
typedef struct holding {
    world *w;
    uint32_t stripe;
    fps_word32 *held, *released;
} holding;

static void hold(void *argument)
{
    const holding *h = argument;
    const fps_wait wait = wait_ms(20000);
    CHECK_EQ(fps_stripe_enter(&h->w->arena, h->stripe, &wait), FPS_OK);
    fps_store32_release(h->held, 1);
    await(h->released, 1);
    fps_stripe_leave(&h->w->arena, h->stripe);
}

/* A push stops in the middle of an array, and others pass before it is resumed: the array keeps the step with which its
 * first half was updated, although its count has grown. */
static void a_resumed_push_goes_on_with_the_step_of_its_array(void)
{
    world w;
    fps_word32 *words = share(2 * sizeof *words);
    open_world(&w, 4096, FPS_ISOLATION_SHARD);
    push_some(&w, 4);
    holding h = {.w = &w, .stripe = middle_of_array_2(&w), .held = &words[0], .released = &words[1]};
    pid_t child = start_process(hold, &h);
    await(h.held, 1);
    aim_world(&w, &w.session, FPS_PUSH, 12);
    w.call.wait = wait_ms(5);
    CHECK_EQ(fps_dense_run(&w.call, &w.at), FPS_TIMEOUT);
    CHECK(w.part.position > w.spans[2].position && w.part.position < w.spans[2].position + w.spans[2].bytes);
    const fps_part stopped = w.part;
    double kept[FPS_UNIFORMS];
    memcpy(kept, w.uniforms, sizeof kept);
    fps_store32_release(h.released, 1);
    expect_success(child);

    fps_session theirs = open_session(&w.arena);
    aim_world(&w, &theirs, FPS_PUSH, 4);
    CHECK_EQ(fps_dense_run(&w.call, &w.at), FPS_OK);
    CHECK_FLOAT(w.uniforms[0], 3.0);
    fps_session_close(&theirs);

    const double changed = 7;
    const fps_wait wait = wait_ms(20000);
    CHECK_EQ(fps_dense_configure(&w.arena, 0, 1, &changed, &wait), FPS_OK);
    aim_world(&w, &w.session, FPS_PUSH, 12);
    w.part = stopped;
    memcpy(w.uniforms, kept, sizeof kept);
    CHECK_EQ(fps_dense_run(&w.call, &w.at), FPS_OK);
    CHECK_FLOAT(w.uniforms[0], 1.0); /* of array 3, */
    CHECK_FLOAT(w.uniforms[1], 0.0); /* with the hyper-parameters that the push began with */
    expect_push_of(&w, 4);
    expect_push_of(&w, 12);
    check_world(&w);
    CHECK_EQ(fps_load_relaxed(&fps_arena_counts(&w.arena, 0)[2]), 3);
    CHECK_EQ(fps_load_relaxed(&w.arena.header->partials), 3);
    munmap(words, 2 * sizeof *words);
    close_world(&w);
}

/* Dies with the lock of the first stripe, having recorded a partial push of which only the first count is made. */
static void die_between_the_counts(void *argument)
{
    const fps_session *session = argument;
    const fps_arena *arena = session->arena;
    const fps_wait wait = wait_ms(20000);
    CHECK_EQ(fps_stripe_enter(arena, 0, &wait), FPS_OK);
    fps_store32_relaxed(&arena->stripes[0].writer, session->index + 1);
    fps_store_relaxed(&session->seat->begun_version, 3);
    fps_store_relaxed(&session->seat->begun_partials, 2);
    fps_store_relaxed(&session->seat->begun_seq, 77);
    fps_store_relaxed(&arena->header->version, 3);
    die();
}

static void a_death_between_the_counts_of_a_shard_leaves_them_right(void)
{
    world w;
    open_world(&w, 4096, FPS_ISOLATION_SHARD);
    push_some(&w, ALL);
    push_some(&w, 2);
    fps_session theirs = open_session(&w.arena);
    expect_killed(start_process(die_between_the_counts, &theirs));
    push_some(&w, ALL); /* at the second step of array 0, the third one of array 1 */
    check_world(&w);
    CHECK_EQ(fps_load_relaxed(&w.arena.header->version), 4);
    CHECK_EQ(fps_load_relaxed(&w.arena.header->partials), 2);
    fps_session_close(&theirs);
    close_world(&w);
}

/* Of a round, each array gets the sum of what workers gave of it; of those that nobody gave, nothing changes. */
static void a_round_adds_up_what_each_worker_gave(void)
{
    static const uint32_t GIVEN[][3] = {{ALL, 0, 0}, {2, 4, 0}, {2, 6, ALL}, {0, 0, 8}, {ALL, ALL, ALL}};
    world w;
    fps_arena_spec spec = spec_of(N_LEAVES * N * sizeof(float), 0, 8);
    fps_decision decision = {0};
    open_world(&w, 4096, FPS_ISOLATION_SHARD);
    fps_session_close(&w.session);
    drop_arena(&w.arena);
    spec.n_leaves = N_LEAVES;
    spec.n_members = 3;
    spec.policy = (fps_policy){.kind = FPS_BSP};
    CHECK_EQ(fps_arena_create(&spec, &w.arena), FPS_OK);
    w.session = open_session(&w.arena);
    for (uint32_t round = 0; round < COUNT(GIVEN); round++) {
        for (uint32_t rank = 0; rank < 3; rank++)
            for (uint32_t twice = 0; twice < 2; twice++) { /* the first time of array 0 alone, where it is given */
                uint32_t which = twice ? GIVEN[round][rank] : GIVEN[round][rank] & 1;
                fps_deposit deposit = {.rank = rank,
                                       .number = 1 + twice,
                                       .generation = 1,
                                       .attempt = 2 * round + twice + 1,
                                       .round = round};
                aim_world(&w, &w.session, FPS_PUSH, which);
                CHECK_EQ(fps_rounds_run(&w.call, &decision, &deposit, &w.at), FPS_OK);
            }
        decision = (fps_decision){.round = round + 1, .n_given = 3, .ranks = {0, 1, 2}, .weights = {2, 2, 2}};
        for (uint32_t i = 0; i < N_LEAVES; i++) {
            uint32_t given = 0;
            for (uint32_t rank = 0; rank < 3; rank++) given += (GIVEN[round][rank] >> i & 1) * (i == 0 ? 2 : 1);
            w.steps[i] += given > 0;
            w.expected[i] += given * (double)(w.steps[i] * w.steps[i]);
        }
        aim_world(&w, &w.session, FPS_PULL, ALL);
        CHECK_EQ(fps_rounds_run(&w.call, &decision, NULL, &w.at), FPS_OK);
        for (uint32_t i = 0; i < N_LEAVES; i++)
            for (uint32_t k = 0; k < N; k++) CHECK_FLOAT((double)out[i][k], w.expected[i]);
        out[1][0] = -1;
        aim_world(&w, &w.session, FPS_PULL, 4);
        CHECK_EQ(fps_rounds_run(&w.call, &decision, NULL, &w.at), FPS_OK);
        CHECK_FLOAT((double)out[1][0], -1.0);
    }
    close_world(&w);
}

int main(void)
{
    const test tests[] = {
        TEST(each_array_counts_the_pushes_that_had_it),
        TEST(steps_are_read_and_set),
        TEST(a_set_of_all_arrays_brings_them_to_one_step),
        TEST(a_partial_pull_reads_its_arrays_and_no_other_one),
        TEST(a_partial_push_pull_returns_what_it_made),
        TEST(a_resumed_push_goes_on_with_the_step_of_its_array),
        TEST(a_death_between_the_counts_of_a_shard_leaves_them_right),
        TEST(a_round_adds_up_what_each_worker_gave),
    };
    return run_tests(tests, COUNT(tests));
}

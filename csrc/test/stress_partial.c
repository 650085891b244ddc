/* Threads that push some of the arrays of a shard, or all, and read parameters with their update counts.
 * `stress_partial [operations per thread]`. */
#define _GNU_SOURCE
#include <math.h>

#include "check.h"

#define N_THREADS 4u
#define N_LEAVES 4u
#define ALL 0xfu

static long operations = 2000;

/* A push adds ones, and every piece of it comes at the step that the array has reached. */
static int32_t prepare_step(const double *hyper, double step, double *uniforms)
{
    (void)hyper;
    uniforms[0] = step;
    return 0;
}

static int32_t add_at_its_step(const void *const *state, const void *grad, void *const *results, int64_t n,
                               int64_t ahead, const double *uniforms)
{
    const float *p = state[0], *g = grad;
    (void)ahead;
    for (int64_t i = 0; i < n; i++) {
        CHECK_FLOAT(p[i], uniforms[0] - 1);
        ((float *)results[0])[i] = p[i] + g[i];
    }
    return 0;
}

static int32_t add_nothing(const void *const *state, const void *grad, void *const *results, int64_t n, int64_t ahead,
                           const double *uniforms)
{
    (void)state, (void)grad, (void)results, (void)n, (void)ahead, (void)uniforms;
    return 0;
}

typedef struct load {
    fps_arena *arena;
    uint64_t n; /* elements of an array */
    fps_kernel kernel;
    uint32_t role;
    uint64_t wholes, partials, of_leaf[N_LEAVES]; /* partial pushes that had it */
} load;

/* Runs one operation. `steps`, of a get: those of the arrays. */
static void operate(const load *l, fps_session *session, fps_kind kind, uint32_t which, const float *ones,
                    float *const *outs, uint64_t *steps)
{
    static const uint32_t params = 0;
    fps_span spans[N_LEAVES], some[N_LEAVES];
    const void *grads[N_LEAVES] = {ones, ones, ones, ones};
    double uniforms[FPS_UNIFORMS];
    fps_rule rule = {.kernel = l->kernel, .prepare = prepare_step};
    uint32_t at, n_some = 0;
    for (uint32_t i = 0; i < N_LEAVES; i++) {
        spans[i] = (fps_span){.position = i * l->n * sizeof(float),
                              .bytes = l->n * sizeof(float),
                              .buffer = i,
                              .item_bytes = 4,
                              .leaf = i};
        if (which >> i & 1) some[n_some++] = spans[i];
    }
    fps_part part = {.session = session,
                     .spans = spans,
                     .n_spans = N_LEAVES,
                     .some = some,
                     .n_some = n_some,
                     .uniforms = uniforms,
                     .steps = steps};
    fps_call call = {.kind = kind,
                     .partial = which != ALL,
                     .grads = grads,
                     .outs = (void *const *)outs,
                     .rules = &rule,
                     .n_rules = 1,
                     .streams = steps ? &params : NULL,
                     .n_streams = steps != NULL,
                     .n_buffers = N_LEAVES,
                     .limit = (double)INFINITY,
                     .scale = 1,
                     .parts = &part,
                     .n_parts = 1,
                     .wait = {.deadline_ns = FPS_NEVER}};
    CHECK_EQ(fps_dense_run(&call, &at), FPS_OK);
}

static void push_some(load *l, fps_session *session, uint32_t which, const float *ones)
{
    operate(l, session, FPS_PUSH, which, ones, NULL, NULL);
    if (which == ALL) {
        l->wholes++;
        return;
    }
    l->partials++;
    for (uint32_t i = 0; i < N_LEAVES; i++) l->of_leaf[i] += which >> i & 1;
}

/* Every array is what its update count says, and none goes back. */
static void get_all(load *l, fps_session *session, float *const *outs, uint64_t *last)
{
    uint64_t steps[N_LEAVES];
    operate(l, session, FPS_GET, ALL, NULL, outs, steps);
    for (uint32_t i = 0; i < N_LEAVES; i++) {
        check_all_equal(outs[i], l->n, (float)steps[i]);
        CHECK(steps[i] >= last[i]);
        last[i] = steps[i];
    }
}

/* Of a partial pull each array is a whole number of pushes. */
static void pull_some(load *l, fps_session *session, uint32_t which, float *const *outs)
{
    operate(l, session, FPS_PULL, which, NULL, outs, NULL);
    for (uint32_t i = 0; i < N_LEAVES; i++)
        if (which >> i & 1) check_all_equal(outs[i], l->n, outs[i][0]);
}

static void *work(void *argument)
{
    load *l = argument;
    float *ones = filled(l->n, 1), *outs[N_LEAVES];
    uint64_t last[N_LEAVES] = {0};
    for (uint32_t i = 0; i < N_LEAVES; i++) outs[i] = filled(l->n, -1);
    fps_session s = open_session(l->arena);
    for (long i = 0; i < operations; i++) {
        const uint32_t which = 1 + (uint32_t)i * 7 % (ALL - 1); /* some of them */
        const uint32_t turn = l->role == 3 ? (uint32_t)i % 4 : l->role;
        if (turn == 0) push_some(l, &s, which, ones);
        if (turn == 1) push_some(l, &s, i % 3 ? ALL : which, ones);
        if (l->kernel == add_nothing) continue;
        if (turn == 2) get_all(l, &s, outs, last);
        if (turn == 3) pull_some(l, &s, which, outs);
    }
    fps_session_close(&s);
    for (uint32_t i = 0; i < N_LEAVES; i++) free(outs[i]);
    free(ones);
    return NULL;
}

static void check_load(uint64_t n, uint64_t stripe_bytes, uint32_t isolation)
{
    fps_arena arena;
    fps_arena_spec spec = spec_of(N_LEAVES * n * sizeof(float), stripe_bytes, N_THREADS);
    const bool locks = isolation == FPS_ISOLATION_SHARD;
    spec.n_leaves = N_LEAVES;
    spec.isolation = isolation;
    CHECK_EQ(fps_arena_create(&spec, &arena), FPS_OK);
    pthread_t threads[N_THREADS];
    load loads[N_THREADS];
    for (uint32_t i = 0; i < N_THREADS; i++) {
        loads[i] = (load){.arena = &arena, .n = n, .kernel = locks ? add_at_its_step : add_nothing, .role = i};
        CHECK_EQ(pthread_create(&threads[i], NULL, work, &loads[i]), 0);
    }
    uint64_t wholes = 0, partials = 0, of_leaf[N_LEAVES] = {0};
    for (uint32_t i = 0; i < N_THREADS; i++) {
        pthread_join(threads[i], NULL);
        wholes += loads[i].wholes;
        partials += loads[i].partials;
        for (uint32_t k = 0; k < N_LEAVES; k++) of_leaf[k] += loads[i].of_leaf[k];
    }
    CHECK_EQ(fps_load_relaxed(&arena.header->version), wholes + partials);
    CHECK_EQ(fps_load_relaxed(&arena.header->partials), partials);
    for (uint32_t k = 0; k < N_LEAVES; k++) {
        CHECK_EQ(fps_load_relaxed(&fps_arena_counts(&arena, 0)[k]), of_leaf[k]);
        const float *found = (const float *)(const void *)arena.params + k * n;
        if (locks) check_all_equal(found, n, (float)(wholes + of_leaf[k]));
    }
    drop_arena(&arena);
}

static void arrays_on_one_stripe_are_at_their_update_counts(void) { check_load(500, 16384, FPS_ISOLATION_SHARD); }
static void arrays_on_two_stripes_are_at_their_update_counts(void) { check_load(500, 4096, FPS_ISOLATION_SHARD); }
static void arrays_on_many_stripes_are_at_their_update_counts(void) { check_load(2500, 4096, FPS_ISOLATION_SHARD); }
#ifndef __SANITIZE_THREAD__ /* its pushes race on purpose */
static void without_locks_each_push_is_counted_once(void) { check_load(500, 0, FPS_ISOLATION_NONE); }
#endif

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(arrays_on_one_stripe_are_at_their_update_counts),
        TEST(arrays_on_two_stripes_are_at_their_update_counts),
        TEST(arrays_on_many_stripes_are_at_their_update_counts),
#ifndef __SANITIZE_THREAD__
        TEST(without_locks_each_push_is_counted_once),
#endif
    };
    if (argc > 1) operations = atol(argv[1]);
    return run_tests(tests, COUNT(tests));
}

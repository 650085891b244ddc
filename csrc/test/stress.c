/* Threads, each with a session, on one shard. `stress [operations per thread]`. */
#define _GNU_SOURCE
#include "check.h"

#define N_THREADS 4

static long operations = 2000;

typedef struct load {
    fps_arena *arena;
    uint64_t n;
    uint32_t role; /* pushes, pulls, push_pulls, or all of them in turn */
    uint64_t pushes;
} load;

/* Pushes of ones: a state is a whole number of pushes when all its elements are equal, and the one that `version`
 * names when they equal it. */
static void check_state(const whole *w, const float *out, uint64_t n, float *last)
{
    for (uint64_t i = 1; i < n; i++) CHECK_FLOAT(out[i], out[0]);
    CHECK(out[0] >= *last);
    CHECK_FLOAT((double)w->part.version, out[0]);
    *last = out[0];
}

static void *work(void *argument)
{
    load *l = argument;
    float *ones = filled(l->n, 1), *out = filled(l->n, -1), last = 0;
    fps_session s = open_session(l->arena);
    whole w;
    for (long i = 0; i < operations; i++) {
        uint32_t kind = l->role == 3 ? (uint32_t)(i % 3) : l->role;
        prepare(&w, &s, kind == 1 ? NULL : ones, kind == 0 ? NULL : out);
        CHECK_EQ(run(&w), FPS_OK);
        l->pushes += kind != 1;
        if (kind != 0) check_state(&w, out, l->n, &last);
    }
    fps_session_close(&s);
    free(ones);
    free(out);
    return NULL;
}

static void check_load(uint64_t n, uint64_t stripe_bytes)
{
    fps_arena arena = make_arena(n * 4, stripe_bytes, N_THREADS);
    pthread_t threads[N_THREADS];
    load loads[N_THREADS];
    for (uint32_t i = 0; i < N_THREADS; i++) {
        loads[i] = (load){.arena = &arena, .n = n, .role = i};
        CHECK_EQ(pthread_create(&threads[i], NULL, work, &loads[i]), 0);
    }
    uint64_t pushes = 0;
    for (uint32_t i = 0; i < N_THREADS; i++) {
        pthread_join(threads[i], NULL);
        pushes += loads[i].pushes;
    }
    float *out = filled(n, -1);
    fps_session s = open_session(&arena);
    CHECK_EQ(pull(&s, out), FPS_OK);
    check_all_equal(out, n, (float)pushes);
    CHECK_EQ(fps_load_relaxed(&arena.header->version), pushes);
    CHECK_EQ(fps_load_relaxed(&arena.header->recovered_locks), 0);
    for (uint32_t i = 0; i < arena.layout.n_stripes; i++) {
        CHECK_EQ(fps_load32_relaxed(&arena.stripes[i].writer), 0);
        CHECK_EQ(fps_load_relaxed(&arena.stripes[i].sequence) % 2, 0);
    }
    fps_session_close(&s);
    drop_arena(&arena);
    free(out);
}

static void one_element_is_a_whole_number_of_pushes(void) { check_load(1, 4096); }
static void one_stripe_is_a_whole_number_of_pushes(void) { check_load(3000, 16384); }
static void two_stripes_are_a_whole_number_of_pushes(void) { check_load(2000, 4096); }
static void many_stripes_are_a_whole_number_of_pushes(void) { check_load(8191, 4096); }

/* Two slots, whose pulls are checked like those of parameters, and somebody who changes all hyper-parameters of the row
 * at once, again and again: a push finds all of them from one change, and none from an earlier one than the push
 * before.
 */
typedef struct slotted_load {
    load load;
    fps_word *latest; /* the change that the newest push saw; that push holds the lock of stripe 0 */
    fps_word32 *done;
} slotted_load;

static _Thread_local fps_word *latest_seen;

static int32_t prepare_from_one_change(const double *hyper, double step, double *uniforms)
{
    for (int i = 1; i < (int)FPS_MAX_HYPER; i++) CHECK_FLOAT(hyper[i], hyper[0]);
    CHECK(hyper[0] >= (double)fps_load_relaxed(latest_seen));
    fps_store_relaxed(latest_seen, (uint64_t)hyper[0]);
    uniforms[0] = step;
    return 0;
}

/* The step of every block of a push is the version that it made. */
static int32_t add_as_prepared(const void *const *state, const void *grad, void *const *results, int64_t n,
                               int64_t ahead, const double *uniforms)
{
    CHECK_FLOAT(((const float *)state[0])[0], uniforms[0] - 1);
    return add_2_f32(state, grad, results, n, ahead, uniforms);
}

static void check_slot(const whole *w, const float *out, uint64_t n, uint32_t stream)
{
    for (uint64_t i = 0; i < n; i++) CHECK_FLOAT(out[i], (double)w->part.version * (stream + 1));
}

static void *work_with_slots(void *argument)
{
    slotted_load *l = argument;
    uint64_t n = l->load.n;
    float *ones = filled(n, 1), *out = filled(n, -1), last = 0;
    fps_session s = open_session(l->load.arena);
    whole w;
    latest_seen = l->latest;
    for (long i = 0; i < operations; i++) {
        uint32_t kind = l->load.role == 3 ? (uint32_t)(i % 4) : l->load.role;
        if (kind == 3 || (kind == 1 && i % 2)) {
            uint32_t stream = 1 + (uint32_t)i / 4 % 2;
            prepare_stream(&w, &s, stream, NULL, out);
            CHECK_EQ(run(&w), FPS_OK);
            check_slot(&w, out, n, stream);
            continue;
        }
        prepare(&w, &s, kind == 1 ? NULL : ones, kind == 0 ? NULL : out);
        w.rule.kernel = add_as_prepared;
        w.rule.prepare = prepare_from_one_change;
        CHECK_EQ(run(&w), FPS_OK);
        l->load.pushes += kind != 1;
        if (kind != 0) check_state(&w, out, n, &last);
    }
    fps_session_close(&s);
    free(ones);
    free(out);
    return NULL;
}

static void *configure_until_done(void *argument)
{
    slotted_load *l = argument;
    double values[FPS_MAX_HYPER], got[FPS_MAX_HYPER];
    const fps_wait wait = {.deadline_ns = FPS_NEVER};
    for (double change = 1; !fps_load32_acquire(l->done); change++) {
        for (int i = 0; i < (int)FPS_MAX_HYPER; i++) values[i] = change;
        CHECK_EQ(fps_dense_configure(l->load.arena, 0, UINT32_MAX, values, &wait), FPS_OK);
        fps_dense_hyper(l->load.arena, 0, got);
        CHECK_EQ(memcmp(got, values, sizeof got), 0); /* nobody else changes them */
        if ((int)change % 8 == 0) nap_us(50);
    }
    return NULL;
}

static void check_load_with_slots(uint64_t n, uint64_t stripe_bytes)
{
    fps_arena arena = make_arena_with_slots(n * 4, stripe_bytes, N_THREADS, 2);
    pthread_t threads[N_THREADS], configuring;
    slotted_load loads[N_THREADS];
    fps_word latest = 0;
    fps_word32 done = 0;
    for (uint32_t i = 0; i < N_THREADS; i++) {
        loads[i] = (slotted_load){.load = {.arena = &arena, .n = n, .role = i}, .latest = &latest, .done = &done};
        CHECK_EQ(pthread_create(&threads[i], NULL, work_with_slots, &loads[i]), 0);
    }
    CHECK_EQ(pthread_create(&configuring, NULL, configure_until_done, &loads[0]), 0);
    uint64_t pushes = 0;
    for (uint32_t i = 0; i < N_THREADS; i++) {
        pthread_join(threads[i], NULL);
        pushes += loads[i].load.pushes;
    }
    fps_store32_release(&done, 1);
    pthread_join(configuring, NULL);
    float *out = filled(n, -1);
    fps_session s = open_session(&arena);
    for (uint32_t k = 0; k <= 2; k++) {
        CHECK_EQ(pull_stream(&s, k, out), FPS_OK);
        check_all_equal(out, n, (float)((k + 1) * pushes));
    }
    CHECK_EQ(fps_load_relaxed(&arena.header->version), pushes);
    CHECK_EQ(fps_load_relaxed(&arena.header->recovered_locks), 0);
    fps_session_close(&s);
    drop_arena(&arena);
    free(out);
}

static void slots_of_one_stripe_are_a_whole_number_of_pushes(void) { check_load_with_slots(3000, 16384); }
static void slots_of_many_stripes_are_a_whole_number_of_pushes(void) { check_load_with_slots(6000, 4096); }

/* Without locks, too, a push has one whole set of hyper-parameters. */
static int32_t prepare_from_one_set(const double *hyper, double step, double *uniforms)
{
    (void)step, (void)uniforms;
    for (int i = 1; i < (int)FPS_MAX_HYPER; i++) CHECK_FLOAT(hyper[i], hyper[0]);
    return 0;
}

static void *push_without_locks(void *argument)
{
    slotted_load *l = argument;
    float *ones = filled(l->load.n, 1);
    fps_session s = open_session(l->load.arena);
    whole w;
    for (long i = 0; i < operations; i++) {
        prepare(&w, &s, ones, NULL);
        w.rule.prepare = prepare_from_one_set;
        w.part.n_spans = 0; /* on elements there are races, as there should be */
        CHECK_EQ(run(&w), FPS_OK);
    }
    fps_session_close(&s);
    free(ones);
    return NULL;
}

static void hogwild_pushes_have_whole_sets_of_hyper_parameters(void)
{
    fps_arena arena;
    fps_arena_spec spec = spec_of(400, 0, N_THREADS);
    spec.isolation = FPS_ISOLATION_NONE;
    CHECK_EQ(fps_arena_create(&spec, &arena), FPS_OK);
    pthread_t threads[N_THREADS], configuring;
    fps_word32 done = 0;
    slotted_load l = {.load = {.arena = &arena, .n = 100}, .done = &done};
    for (uint32_t i = 0; i < N_THREADS; i++) CHECK_EQ(pthread_create(&threads[i], NULL, push_without_locks, &l), 0);
    CHECK_EQ(pthread_create(&configuring, NULL, configure_until_done, &l), 0);
    for (uint32_t i = 0; i < N_THREADS; i++) pthread_join(threads[i], NULL);
    fps_store32_release(&done, 1);
    pthread_join(configuring, NULL);
    CHECK_EQ(fps_load_relaxed(&arena.header->version), N_THREADS * operations);
    drop_arena(&arena);
}

/* Shards in one call: each is consistent in itself, whichever was busy. */
typedef struct pair {
    fps_arena *arenas;
    uint32_t first;
} pair;

#define PAIR_N 3000

static void *push_to_both(void *argument)
{
    pair *p = argument;
    float *ones = filled(PAIR_N, 1), *outs[2] = {filled(PAIR_N, 0), filled(PAIR_N, 0)}, last[2] = {0, 0};
    fps_session s[2] = {open_session(&p->arenas[0]), open_session(&p->arenas[1])};
    fps_span spans[2];
    whole w;
    uint32_t at;
    for (long i = 0; i < operations; i++) {
        prepare(&w, &s[0], ones, outs[0]);
        const void *grads[2] = {ones, ones};
        fps_part parts[2];
        double uniforms[2][FPS_UNIFORMS];
        for (uint32_t k = 0; k < 2; k++) {
            spans[k] = w.span;
            spans[k].buffer = k;
            parts[k] = (fps_part){.session = &s[k], .spans = &spans[k], .n_spans = 1, .uniforms = uniforms[k]};
        }
        w.call.grads = grads;
        w.call.outs = (void *const *)outs;
        w.call.parts = parts;
        w.call.n_parts = 2;
        w.call.first = p->first;
        CHECK_EQ(fps_dense_run(&w.call, &at), FPS_OK);
        for (uint32_t k = 0; k < 2; k++) {
            w.part = parts[k];
            check_state(&w, outs[k], PAIR_N, &last[k]);
        }
    }
    for (int k = 0; k < 2; k++) {
        fps_session_close(&s[k]);
        free(outs[k]);
    }
    free(ones);
    return NULL;
}

static void two_shards_in_one_call_are_each_a_whole_number_of_pushes(void)
{
    fps_arena arenas[2] = {make_arena(PAIR_N * 4, 4096, N_THREADS), make_arena(PAIR_N * 4, 16384, N_THREADS)};
    pthread_t threads[N_THREADS];
    pair pairs[N_THREADS];
    for (uint32_t i = 0; i < N_THREADS; i++) {
        pairs[i] = (pair){.arenas = arenas, .first = i % 2};
        CHECK_EQ(pthread_create(&threads[i], NULL, push_to_both, &pairs[i]), 0);
    }
    for (uint32_t i = 0; i < N_THREADS; i++) pthread_join(threads[i], NULL);
    for (int k = 0; k < 2; k++) {
        CHECK_EQ(fps_load_relaxed(&arenas[k].header->version), N_THREADS * operations);
        drop_arena(&arenas[k]);
    }
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(one_element_is_a_whole_number_of_pushes),
        TEST(one_stripe_is_a_whole_number_of_pushes),
        TEST(two_stripes_are_a_whole_number_of_pushes),
        TEST(many_stripes_are_a_whole_number_of_pushes),
        TEST(slots_of_one_stripe_are_a_whole_number_of_pushes),
        TEST(slots_of_many_stripes_are_a_whole_number_of_pushes),
        TEST(hogwild_pushes_have_whole_sets_of_hyper_parameters),
        TEST(two_shards_in_one_call_are_each_a_whole_number_of_pushes),
    };
    if (argc > 1) operations = atol(argv[1]);
    return run_tests(tests, COUNT(tests));
}

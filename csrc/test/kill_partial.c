/* Processes that die in a push of some of the arrays. `kill_partial [seed]`. */
#define _GNU_SOURCE
#include <math.h>

#include "check.h"
#include "step.h"
#include "stripe.h"

#define N_LEAVES 4u
#define N 600u     /* elements of an array, which lies over two stripes or more */
#define PUSHED 10u /* bit i: whether array i is pushed */
#define N_PUSHED 2u
#define DEATHS short_or_long(24, 60)

/* The parameters count the pushes. The rule has a step, so each array's count is looked up. */
static int32_t prepare_step(const double *hyper, double step, double *uniforms)
{
    (void)hyper;
    uniforms[0] = step;
    return 0;
}

static int32_t add(const void *const *state, const void *grad, void *const *results, int64_t n, int64_t ahead,
                   const double *uniforms)
{
    (void)ahead, (void)uniforms;
    for (int64_t i = 0; i < n; i++) ((float *)results[0])[i] = ((const float *)state[0])[i] + ((const float *)grad)[i];
    return 0;
}

typedef struct shard {
    fps_arena arena;
    fps_span spans[N_LEAVES], some[N_LEAVES];
    float ones[N];
} shard;

static void make_shard(shard *s, uint64_t stripe_bytes)
{
    fps_arena_spec spec = spec_of(N_LEAVES * N * sizeof(float), stripe_bytes, 2);
    spec.n_leaves = N_LEAVES;
    CHECK_EQ(fps_arena_create(&spec, &s->arena), FPS_OK);
    for (uint32_t i = 0; i < N; i++) s->ones[i] = 1;
    for (uint32_t i = 0, n = 0; i < N_LEAVES; i++) {
        s->spans[i] = (fps_span){
            .position = i * N * sizeof(float), .bytes = N * sizeof(float), .buffer = i, .item_bytes = 4, .leaf = i};
        if (PUSHED >> i & 1) s->some[n++] = s->spans[i];
    }
}

static void push_arrays(shard *s, fps_session *session, bool partial, uint64_t seq)
{
    const void *grads[N_LEAVES] = {s->ones, s->ones, s->ones, s->ones};
    double uniforms[FPS_UNIFORMS];
    fps_rule rule = {.kernel = add, .prepare = prepare_step};
    uint32_t at;
    fps_part part = {.session = session,
                     .spans = s->spans,
                     .n_spans = N_LEAVES,
                     .some = s->some,
                     .n_some = N_PUSHED,
                     .uniforms = uniforms,
                     .seq = seq};
    fps_call call = {.kind = FPS_PUSH,
                     .partial = partial,
                     .grads = grads,
                     .rules = &rule,
                     .n_rules = 1,
                     .limit = (double)INFINITY,
                     .scale = 1,
                     .parts = &part,
                     .n_parts = 1,
                     .wait = {.deadline_ns = FPS_NEVER}};
    CHECK_EQ(fps_dense_run(&call, &at), FPS_OK);
}

static void push_stepped(void *argument)
{
    shard *s = argument;
    fps_session session = open_session(&s->arena);
    CHECK_EQ(session.index, 1);
    be_stepped();
    push_arrays(s, &session, true, 0);
    _exit(0);
}

static uint64_t count_of(const shard *s, uint32_t leaf)
{
    return fps_load_relaxed(&fps_arena_counts(&s->arena, 0)[leaf]);
}

/* How many elements of an array, from the first on, have had so many pushes; the others one less. */
static uint32_t elements_with(const shard *s, uint32_t leaf, uint64_t pushes)
{
    const float *at = (const float *)(const void *)(s->arena.params + s->spans[leaf].position);
    uint32_t n = 0;
    for (uint32_t i = 0; i < N; i++) {
        if (at[i] >= (float)pushes) CHECK_EQ(n++, i);
        CHECK_FLOAT(at[i], (float)(pushes - (n <= i)));
    }
    return n;
}

/* Of `wholes` pushes of all arrays and `partials` of some, of which the last one died and is retried. An array that was
 * counted, but of which no piece was changed, is counted again by the retry: it skips a step. `skipped` says how many.
 */
static void check_death(shard *s, uint64_t wholes, uint64_t partials, uint64_t *skipped)
{
    const fps_header *header = s->arena.header;
    const fps_seat *seat = &s->arena.seats[1];
    fps_session adopted;
    CHECK_EQ(adopt_session(&s->arena, 1, &adopted), FPS_OK); /* which repairs */
    const bool begun = fps_load_relaxed(&seat->begun_seq) == partials;
    CHECK(begun || fps_load_relaxed(&seat->begun_seq) == partials - 1);
    CHECK_EQ(fps_load_relaxed(&header->version), wholes + partials - !begun);
    CHECK_EQ(fps_load_relaxed(&header->partials), partials - !begun);
    for (uint32_t i = 0; i < N_LEAVES; i++) {
        const bool pushed = PUSHED >> i & 1;
        const uint64_t of_it = pushed ? partials : 0, count = count_of(s, i) - skipped[i];
        const uint32_t changed = elements_with(s, i, wholes + of_it);
        CHECK(count == of_it || (pushed && count == of_it - 1 && changed == 0));
        skipped[i] += pushed && count == of_it && changed == 0;
    }
    push_arrays(s, &adopted, true, partials);
    CHECK_EQ(fps_load_relaxed(&header->version), wholes + partials);
    CHECK_EQ(fps_load_relaxed(&header->partials), partials);
    for (uint32_t i = 0; i < N_LEAVES; i++) {
        const uint64_t of_it = PUSHED >> i & 1 ? partials : 0;
        CHECK_EQ(elements_with(s, i, wholes + of_it), N);
        CHECK_EQ(count_of(s, i), of_it + skipped[i]);
    }
    fps_session_close(&adopted);
}

static void a_death_at_any_instruction_leaves_whole_pieces_and_the_counts_of_the_shard_right(void)
{
    for (uint32_t world = 0; world < 2; world++) {
        shard s;
        uint64_t all = 0, skipped[N_LEAVES] = {0};
        make_shard(&s, world ? 4096 : 16384);
        fps_session witness = open_session(&s.arena);
        push_arrays(&s, &witness, false, 0);
        for (uint32_t nth = 0; nth <= DEATHS; nth++) {
            const uint64_t from = nth ? all * (nth - 1) / DEATHS : 0, behind = all * nth / DEATHS;
            const uint64_t at = nth ? from + (uint64_t)random() % (behind - from + 1) : UINT64_MAX;
            const uint64_t steps = step_and_kill(push_stepped, &s, at, NULL);
            if (nth == 0) all = steps;
            check_death(&s, 1, nth + UINT64_C(1), skipped);
        }
        printf("  partial push: %ju instructions\n", (uintmax_t)all);
        fps_session_close(&witness);
        drop_arena(&s.arena);
    }
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(a_death_at_any_instruction_leaves_whole_pieces_and_the_counts_of_the_shard_right),
    };
    const uint32_t seed = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : (uint32_t)getpid();
    printf("seed %u\n", seed);
    srandom(seed);
    return run_tests(tests, COUNT(tests));
}

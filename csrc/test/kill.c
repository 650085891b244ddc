/* Processes that die in the middle of a push. `kill [seed]`. */
#define _GNU_SOURCE
#include "check.h"
#include "step.h"
#include "stripe.h"

#define N (5 * 2048 - 100) /* five stripes of two blocks, the last one short; or one stripe */
#define BLOCK_N (FPS_BLOCK_BYTES / 4)
#define N_BLOCKS ((N + BLOCK_N - 1) / BLOCK_N)
#define ONE_STRIPE 65536
#define MANY_STRIPES 8192

static uint32_t seed;
static const float *deadly; /* a kernel that comes to this parameter kills its process */
static uint8_t *trap;       /* or lets the copy behind it die: of a write to this page */
static uint32_t slots_of_kernel;
static uint32_t slots_written = FPS_NO_STREAM; /* fewer than the arena has */
static uint32_t turns;                         /* of a kernel's busy loop per element */

static void protect(uint8_t *at);

/* The trap is set behind the kernel: its own results may lie on the same page. */
static int32_t add_or_die(const void *const *state, const void *grad, void *const *results, int64_t n, int64_t ahead,
                          const double *uniforms)
{
    const float *g = grad;
    bool here = deadly >= (const float *)state[0] && deadly < (const float *)state[0] + n;
    (void)ahead, (void)uniforms;
    for (uint32_t k = 0; k <= slots_of_kernel; k++) {
        const float *p = state[k];
        float *r = results[k];
        for (int64_t i = 0; i < n; i++) {
            if (here && !trap && k == slots_of_kernel && (const float *)state[0] + i == deadly) die();
            for (volatile uint32_t t = 0; t < turns; t++) {
            }
            r[i] = p[i] + (float)(k + 1) * g[i];
        }
    }
    if (here && trap) protect(trap);
    return 0;
}

static void die_of_signal(int signal_number)
{
    (void)signal_number;
    die();
}

typedef enum way { IN_KERNEL, BEFORE_COPY, IN_COPY } way;

typedef struct death {
    fps_arena *arena;
    way way;
    uint32_t block;
    uint32_t element; /* of the block, for IN_KERNEL */
    uint32_t stream;  /* whose copy it is, for the others: those before it have been copied */
    bool first_push;  /* dies in its first push, else in its second */
} death;

static void protect(uint8_t *at)
{
    uint8_t *page = at - (uintptr_t)at % FPS_PAGE;
    signal(SIGSEGV, die_of_signal);
    CHECK_EQ(mprotect(page, FPS_PAGE, PROT_READ), 0);
}

/* A block lies over two pages: a write-protected second one stops the copy behind the commit, half-way at best. */
static uint8_t *trap_of(const death *d, uint64_t at)
{
    uint8_t *block = fps_arena_stream(d->arena, d->stream) + at;
    if (d->way == IN_KERNEL) return NULL;
    return d->way == BEFORE_COPY ? block : block - (uintptr_t)block % FPS_PAGE + FPS_PAGE;
}

static void push_and_die(void *argument)
{
    death *d = argument;
    float *ones = filled(N, 1);
    whole w;
    fps_session s = open_session(d->arena);
    CHECK_EQ(s.index, 1);
    if (!d->first_push) CHECK_EQ(push(&s, ones), FPS_OK);
    uint64_t at = (uint64_t)d->block * FPS_BLOCK_BYTES;
    deadly = (const float *)(void *)(d->arena->params + at) + d->element;
    trap = trap_of(d, at);
    slots_of_kernel = slots_written != FPS_NO_STREAM ? slots_written : d->arena->layout.n_slots;
    prepare(&w, &s, ones, NULL);
    w.rule = (fps_rule){.kernel = add_or_die, .prepare = prepare_nothing, .n_slots = slots_of_kernel};
    run(&w);
    fprintf(stderr, "a push survived its death in block %u\n", d->block);
}

typedef struct scene {
    fps_arena arena;
    fps_session witness;
    float *ones, *out;
} scene;

static void make_scene_with_slots(scene *s, uint64_t stripe_bytes, uint32_t n_sessions, uint32_t n_slots)
{
    s->arena = make_arena_with_slots(N * 4, stripe_bytes, n_sessions, n_slots);
    CHECK_EQ(s->arena.layout.block_bytes, FPS_BLOCK_BYTES);
    s->witness = open_session(&s->arena);
    s->ones = filled(N, 1);
    s->out = filled(N, -1);
}

static void make_scene(scene *s, uint64_t stripe_bytes) { make_scene_with_slots(s, stripe_bytes, 2, 0); }

static void drop_scene(scene *s)
{
    fps_session_close(&s->witness);
    drop_arena(&s->arena);
    free(s->ones);
    free(s->out);
}

/* Every stream tells of `before` pushes up to element n, of `behind` from there on. */
static void check_streams(scene *s, uint64_t n, uint32_t before, uint32_t behind)
{
    for (uint32_t k = 0; k <= s->arena.layout.n_slots; k++) {
        CHECK_EQ(pull_stream(&s->witness, k, s->out), FPS_OK);
        check_all_equal(s->out, n, (float)((k + 1) * before));
        check_all_equal(s->out + n, N - n, (float)((k + 1) * behind));
    }
}

static void check_at_rest(const fps_arena *arena)
{
    for (uint32_t i = 0; i < arena->layout.n_stripes; i++) {
        CHECK_EQ(fps_load_relaxed(&arena->stripes[i].sequence) % 2, 0);
        CHECK_EQ(fps_load32_relaxed(&arena->stripes[i].writer), 0);
        CHECK_EQ(fps_lock_holder(&arena->stripes[i].lock), 0);
        CHECK(!fps_lock_abandoned(&arena->stripes[i].lock));
    }
}

static void retry(scene *s, uint64_t seq, whole *w, bool pulls, fps_session *adopted)
{
    CHECK_EQ(adopt_session(&s->arena, 1, adopted), FPS_OK);
    CHECK_EQ(adopted->seq, seq);
    prepare(w, adopted, s->ones, pulls ? s->out : NULL);
    w->part.seq = seq;
    for (uint64_t i = 0; i < N; i++) s->out[i] = -1;
    CHECK_EQ(run(w), FPS_OK);
}

/* What a witness finds when it comes before the retry: whole blocks, up to where the record says. */
static void check_partial_state(scene *s, const death *d)
{
    uint32_t finished = d->block + (d->way != IN_KERNEL);
    CHECK_EQ(pull(&s->witness, s->out), FPS_OK);
    uint64_t done = (uint64_t)finished * BLOCK_N < N ? (uint64_t)finished * BLOCK_N : N;
    check_all_equal(s->out, done, 2);
    check_all_equal(s->out + done, N - done, 1);
    check_streams(s, done, 2, 1);
    check_at_rest(&s->arena);
    bool complete = done == N;
    CHECK_EQ(fps_load_relaxed(&s->arena.header->interrupted_pushes), !complete);
    CHECK_EQ(fps_load_relaxed(&s->arena.seats[1].interrupted_seq), complete ? 0 : 2);
    if (complete) return;
    CHECK_EQ(fps_load_relaxed(&s->arena.header->interrupted_at), done * 4);
    CHECK_EQ(fps_load_relaxed(&s->arena.header->interrupted_pid), fps_load32_relaxed(&s->arena.seats[1].pid));
}

static void check_death_with_slots(uint64_t stripe_bytes, uint32_t n_slots, death d, bool witness_first, bool pulls)
{
    scene s;
    whole w;
    fps_session adopted;
    make_scene_with_slots(&s, stripe_bytes, 2, n_slots);
    d.arena = &s.arena;
    expect_killed(start_process(push_and_die, &d));
    if (witness_first) check_partial_state(&s, &d);
    retry(&s, 2, &w, pulls, &adopted);
    if (pulls) check_all_equal(s.out, N, 2);
    check_streams(&s, N, 2, 2);
    CHECK_EQ(fps_load_relaxed(&s.arena.header->version), 2);
    CHECK_EQ(push(&adopted, s.ones), FPS_OK);
    check_streams(&s, N, 3, 3);
    CHECK(fps_load_relaxed(&s.arena.header->interrupted_pushes) <= 1);
    check_at_rest(&s.arena);
    fps_session_close(&adopted);
    drop_scene(&s);
}

static void check_death(uint64_t stripe_bytes, death d, bool witness_first, bool pulls)
{
    check_death_with_slots(stripe_bytes, 0, d, witness_first, pulls);
}

static void check_deaths(uint64_t stripe_bytes, way how, uint32_t from_block, bool witness_first, bool pulls)
{
    for (uint32_t b = from_block; b < N_BLOCKS; b++)
        check_death(stripe_bytes, (death){.way = how, .block = b, .element = b % 3 * 400}, witness_first, pulls);
}

static void a_death_in_a_kernel_changes_nothing_of_its_block(void)
{
    check_deaths(MANY_STRIPES, IN_KERNEL, 0, true, false);
    check_deaths(ONE_STRIPE, IN_KERNEL, 0, true, false);
}

static void a_retry_after_a_death_in_a_kernel_applies_the_push_once(void)
{
    check_deaths(MANY_STRIPES, IN_KERNEL, 0, false, false);
    check_deaths(ONE_STRIPE, IN_KERNEL, 0, false, false);
}

static void a_committed_block_is_finished_by_whoever_comes(void)
{
    check_deaths(MANY_STRIPES, IN_COPY, 0, true, false);
    check_deaths(ONE_STRIPE, IN_COPY, 0, true, false);
    check_death(ONE_STRIPE, (death){.way = BEFORE_COPY}, true, false);
}

static void a_retry_finishes_a_committed_block_and_goes_on_behind_it(void)
{
    check_deaths(MANY_STRIPES, IN_COPY, 1, false, false);
    check_deaths(ONE_STRIPE, IN_COPY, 1, false, false);
}

static void a_retry_after_the_first_block_was_committed_applies_it_once(void)
{
    check_death(ONE_STRIPE, (death){.way = BEFORE_COPY}, false, false);
    check_death(ONE_STRIPE, (death){.way = IN_COPY}, false, false);
    check_death(MANY_STRIPES, (death){.way = BEFORE_COPY}, false, false);
}

static void check_deaths_with_slots(way how, uint32_t stream, bool witness_first, bool pulls)
{
    for (uint32_t b = 0; b < N_BLOCKS; b++) {
        death d = {.way = how, .block = b, .stream = stream, .element = b % 3 * 400};
        check_death_with_slots(b % 2 ? ONE_STRIPE : MANY_STRIPES, 2, d, witness_first, pulls);
        check_death_with_slots(b % 2 ? MANY_STRIPES : ONE_STRIPE, 2, d, !witness_first, pulls);
    }
}

static void a_death_in_a_kernel_changes_nothing_of_its_block_in_any_stream(void)
{
    check_deaths_with_slots(IN_KERNEL, 0, true, false);
}

static void a_block_that_is_committed_but_not_copied_is_finished_in_all_streams(void)
{
    check_deaths_with_slots(BEFORE_COPY, 0, true, false);
    check_deaths_with_slots(IN_COPY, 0, true, false);
}

static void a_death_between_the_copies_of_two_streams_is_finished_in_all_of_them(void)
{
    check_deaths_with_slots(BEFORE_COPY, 1, true, false);
    check_deaths_with_slots(BEFORE_COPY, 2, true, false);
}

static void a_death_in_the_copy_of_a_slot_is_finished_in_all_streams(void)
{
    check_deaths_with_slots(IN_COPY, 1, true, false);
    check_deaths_with_slots(IN_COPY, 2, true, false);
}

static void a_retried_push_pull_with_slots_pulls_all_of_the_shard(void)
{
    check_deaths_with_slots(IN_KERNEL, 0, true, true);
    check_deaths_with_slots(BEFORE_COPY, 2, true, true);
}

/* The rule of fifteen slots has the longest redo block, and the largest stream number that a record holds. */
static void a_death_in_the_copy_of_the_last_of_all_slots_is_finished(void)
{
    for (uint32_t b = 0; b < N_BLOCKS; b += 3) {
        death d = {.way = IN_COPY, .block = b, .stream = FPS_MAX_SLOTS};
        check_death_with_slots(MANY_STRIPES, FPS_MAX_SLOTS, d, true, false);
        d.stream = 7;
        check_death_with_slots(ONE_STRIPE, FPS_MAX_SLOTS, d, false, false);
    }
}

/* Blocks of a shard whose rule has fewer slots than the arena: the repair may not touch the other streams. */
static void a_repair_leaves_streams_alone_that_the_push_did_not_write(void)
{
    for (uint32_t b = 0; b < N_BLOCKS; b++) {
        scene s;
        make_scene_with_slots(&s, b % 2 ? ONE_STRIPE : MANY_STRIPES, 2, 2);
        slots_written = 1;
        death d = {.arena = &s.arena, .way = IN_COPY, .block = b, .stream = b % 3 % 2};
        expect_killed(start_process(push_and_die, &d));
        slots_written = FPS_NO_STREAM;
        uint64_t done = (uint64_t)(b + 1) * BLOCK_N < N ? (uint64_t)(b + 1) * BLOCK_N : N;
        const uint32_t after_death[] = {2, 2, 1};
        for (uint32_t k = 0; k <= 2; k++) {
            CHECK_EQ(pull_stream(&s.witness, k, s.out), FPS_OK);
            check_all_equal(s.out, done, (float)((k + 1) * after_death[k]));
            check_all_equal(s.out + done, N - done, (float)(k + 1));
        }
        drop_scene(&s);
    }
}

/* Sets a stream to nines and dies in it. Before that it pushed, and after that somebody else: the other streams of its
 * redo block hold what was true once. */
static void set_and_die(void *argument)
{
    death *d = argument;
    float *ones = filled(N, 1), *nines = filled(N, 9);
    fps_session s = open_session(d->arena), other = open_session(d->arena);
    CHECK_EQ(s.index, 1);
    CHECK_EQ(push(&s, ones), FPS_OK);
    CHECK_EQ(push(&other, ones), FPS_OK);
    fps_session_close(&other);
    protect(trap_of(d, (uint64_t)d->block * FPS_BLOCK_BYTES));
    set_stream(&s, d->stream, nines);
    fprintf(stderr, "a set survived its death in block %u\n", d->block);
}

static void check_set_streams(scene *s, uint32_t stream, uint64_t done)
{
    for (uint32_t k = 0; k <= 2; k++) {
        CHECK_EQ(pull_stream(&s->witness, k, s->out), FPS_OK);
        check_all_equal(s->out, done, k == stream ? 9 : (float)(2 * (k + 1)));
        check_all_equal(s->out + done, N - done, (float)(2 * (k + 1)));
    }
}

static void check_death_in_set(uint64_t stripe_bytes, death d, bool witness_first)
{
    scene s;
    whole w;
    fps_session adopted;
    make_scene_with_slots(&s, stripe_bytes, 3, 2);
    d.arena = &s.arena;
    expect_killed(start_process(set_and_die, &d));
    uint64_t done = (uint64_t)(d.block + 1) * BLOCK_N < N ? (uint64_t)(d.block + 1) * BLOCK_N : N;
    if (witness_first) {
        check_set_streams(&s, d.stream, done);
        check_at_rest(&s.arena);
        CHECK_EQ(fps_load_relaxed(&s.arena.header->interrupted_pushes), done < N);
        CHECK_EQ(fps_load_relaxed(&s.arena.header->version), 2);
    }
    CHECK_EQ(adopt_session(&s.arena, 1, &adopted), FPS_OK);
    CHECK_EQ(adopted.seq, 2);
    float *nines = filled(N, 9);
    prepare_stream(&w, &adopted, d.stream, nines, NULL);
    w.part.seq = 2;
    CHECK_EQ(run(&w), FPS_OK);
    free(nines);
    check_set_streams(&s, d.stream, N);
    CHECK_EQ(fps_load_relaxed(&s.arena.header->version), 2);
    CHECK_EQ(push(&adopted, s.ones), FPS_OK);
    CHECK_EQ(fps_load_relaxed(&s.arena.header->version), 3);
    check_at_rest(&s.arena);
    fps_session_close(&adopted);
    drop_scene(&s);
}

static void a_death_while_a_stream_is_set_leaves_whole_blocks_and_is_retried(void)
{
    for (uint32_t stream = 0; stream <= 2; stream++) {
        check_death_in_set(ONE_STRIPE, (death){.way = BEFORE_COPY, .stream = stream}, true);
        check_death_in_set(MANY_STRIPES, (death){.way = BEFORE_COPY, .stream = stream}, false);
        for (uint32_t b = 0; b < N_BLOCKS; b++) {
            death d = {.way = IN_COPY, .block = b, .stream = stream};
            check_death_in_set(MANY_STRIPES, d, b % 2);
            check_death_in_set(ONE_STRIPE, d, b % 2 == 0);
        }
    }
}

/* Parameters count pushes, and the slot keeps the step of the last one. */
static int32_t stamp(const void *const *state, const void *grad, void *const *results, int64_t n, int64_t ahead,
                     const double *uniforms)
{
    bool here = deadly >= (const float *)state[0] && deadly < (const float *)state[0] + n;
    add_f32(state, grad, results, n, ahead, uniforms);
    for (int64_t i = 0; i < n; i++) ((float *)results[1])[i] = (float)uniforms[0];
    if (here && !trap) die();
    if (here) protect(trap);
    return 0;
}

static int32_t prepare_stamp(const double *hyper, double step, double *uniforms)
{
    (void)hyper;
    uniforms[0] = step;
    return 0;
}

static void prepare_stamping(whole *w, fps_session *session, const float *grad)
{
    prepare(w, session, grad, NULL);
    w->rule.kernel = stamp;
    w->rule.prepare = prepare_stamp;
}

static void stamp_and_die(void *argument)
{
    death *d = argument;
    whole w;
    float *ones = filled(N, 1);
    fps_session s = open_session(d->arena);
    for (int i = 0; i < 2; i++) {
        if (i == 1) {
            uint64_t at = (uint64_t)d->block * FPS_BLOCK_BYTES;
            deadly = (const float *)(void *)(d->arena->params + at);
            trap = trap_of(d, at);
        }
        prepare_stamping(&w, &s, ones);
        run(&w);
    }
    fprintf(stderr, "a push survived its death in block %u\n", d->block);
}

static void a_retry_has_the_step_that_the_push_began_with(void)
{
    for (uint32_t i = 0; i < 4 * N_BLOCKS; i++) {
        scene s;
        whole w;
        fps_session adopted;
        uint32_t b = i / 4, passing = i % 2 ? 3 : 0, finished = b + (i % 4 >= 2);
        make_scene_with_slots(&s, b % 2 ? ONE_STRIPE : MANY_STRIPES, 2, 1);
        death d = {.arena = &s.arena, .way = i % 4 >= 2 ? BEFORE_COPY : IN_KERNEL, .block = b, .stream = 1};
        expect_killed(start_process(stamp_and_die, &d));
        for (uint32_t k = 0; k < passing; k++) {
            prepare_stamping(&w, &s.witness, s.ones);
            CHECK_EQ(run(&w), FPS_OK);
            CHECK_EQ(w.part.version, 3 + k);
        }
        CHECK_EQ(adopt_session(&s.arena, 1, &adopted), FPS_OK);
        CHECK_EQ(fps_load_relaxed(&adopted.seat->begun_version), 2);
        prepare_stamping(&w, &adopted, s.ones);
        w.part.seq = adopted.seq;
        CHECK_EQ(run(&w), FPS_OK);
        uint64_t done = (uint64_t)finished * BLOCK_N < N ? (uint64_t)finished * BLOCK_N : N;
        if (done < N) CHECK_FLOAT(w.uniforms[0], 2.0);
        CHECK_EQ(fps_load_relaxed(&s.arena.header->version), 2 + passing);
        CHECK_EQ(pull(&s.witness, s.out), FPS_OK);
        check_all_equal(s.out, N, (float)(2 + passing));
        CHECK_EQ(pull_stream(&s.witness, 1, s.out), FPS_OK);
        check_all_equal(s.out, done, passing ? 5 : 2); /* who came later stamped it last */
        check_all_equal(s.out + done, N - done, 2);
        prepare_stamping(&w, &adopted, s.ones);
        CHECK_EQ(run(&w), FPS_OK);
        CHECK_FLOAT(w.uniforms[0], 3.0 + passing);
        check_at_rest(&s.arena);
        fps_session_close(&adopted);
        drop_scene(&s);
    }
}

/* Whoever comes first repairs, and that may be somebody who changes a hyper-parameter. */
static void configure_repairs_the_stripe_that_a_dead_push_was_in(void)
{
    for (uint32_t stream = 0; stream <= 2; stream++) {
        scene s;
        const fps_wait no_wait = {.deadline_ns = FPS_NO_WAIT};
        make_scene_with_slots(&s, ONE_STRIPE, 2, 2);
        death d = {.arena = &s.arena, .way = IN_COPY, .block = 3, .stream = stream};
        expect_killed(start_process(push_and_die, &d));
        CHECK_EQ(fps_dense_configure(&s.arena, 0, 1, (double[FPS_MAX_HYPER]){1}, &no_wait), FPS_OK);
        check_at_rest(&s.arena);
        CHECK_EQ(fps_load_relaxed(&s.arena.header->recovered_locks), 1);
        CHECK_EQ(fps_load_relaxed(&s.arena.header->interrupted_pushes), 1);
        check_streams(&s, 4 * BLOCK_N, 2, 1);
        drop_scene(&s);
    }
}

static void a_retried_push_pull_pulls_all_of_the_shard(void)
{
    check_deaths(MANY_STRIPES, IN_KERNEL, 0, true, true);
    check_deaths(ONE_STRIPE, IN_COPY, 1, true, true);
}

static void the_version_counts_a_retried_push_once(void)
{
    for (uint32_t b = 0; b < N_BLOCKS; b++) {
        scene s;
        whole w;
        fps_session adopted;
        make_scene(&s, MANY_STRIPES);
        death d = {.arena = &s.arena, .way = IN_KERNEL, .block = N_BLOCKS - 1 - b}; /* block 0 last */
        expect_killed(start_process(push_and_die, &d));
        retry(&s, 2, &w, false, &adopted);
        CHECK_EQ(fps_load_relaxed(&s.arena.header->version), 2);
        fps_session_close(&adopted);
        drop_scene(&s);
    }
}

static void a_death_in_the_first_push_of_a_session_is_retried(void)
{
    scene s;
    whole w;
    fps_session adopted;
    make_scene(&s, MANY_STRIPES);
    death d = {.arena = &s.arena, .way = IN_KERNEL, .block = 3, .first_push = true};
    expect_killed(start_process(push_and_die, &d));
    retry(&s, 1, &w, false, &adopted);
    CHECK_EQ(pull(&s.witness, s.out), FPS_OK);
    check_all_equal(s.out, N, 1);
    fps_session_close(&adopted);
    drop_scene(&s);
}

static void a_push_that_passes_a_dead_one_is_kept_by_the_retry(void)
{
    for (uint32_t b = 1; b < N_BLOCKS; b++) {
        scene s;
        whole w;
        fps_session adopted;
        make_scene(&s, b % 2 ? MANY_STRIPES : ONE_STRIPE);
        death d = {.arena = &s.arena, .way = b % 3 ? IN_KERNEL : IN_COPY, .block = b};
        expect_killed(start_process(push_and_die, &d));
        CHECK_EQ(push(&s.witness, s.ones), FPS_OK);
        retry(&s, 2, &w, false, &adopted);
        CHECK_EQ(pull(&s.witness, s.out), FPS_OK);
        check_all_equal(s.out, N, 3);
        fps_session_close(&adopted);
        drop_scene(&s);
    }
}

static void check_blocks(const float *out)
{
    for (uint32_t b = 0; b < N_BLOCKS; b++)
        for (uint32_t i = b * BLOCK_N; i < (b + 1) * BLOCK_N && i < N; i++) CHECK_FLOAT(out[i], out[b * BLOCK_N]);
}

/* The seat's next owner uses the same redo block. */
static void a_seat_taken_after_a_death_leaves_whole_blocks(void)
{
    for (uint32_t b = 0; b < N_BLOCKS; b++) {
        scene s;
        make_scene(&s, MANY_STRIPES);
        death d = {.arena = &s.arena, .way = IN_COPY, .block = b};
        expect_killed(start_process(push_and_die, &d));
        fps_session next = open_session(&s.arena);
        CHECK_EQ(next.index, 1);
        CHECK_EQ(push(&next, s.ones), FPS_OK);
        CHECK_EQ(pull(&s.witness, s.out), FPS_OK);
        check_blocks(s.out);
        CHECK_FLOAT(s.out[b * BLOCK_N], 3);
        fps_session_close(&next);
        drop_scene(&s);
    }
}

static void an_adopter_that_does_not_retry_leaves_whole_blocks(void)
{
    for (uint32_t b = 0; b < N_BLOCKS; b++) {
        scene s;
        fps_session adopted;
        make_scene(&s, MANY_STRIPES);
        death d = {.arena = &s.arena, .way = IN_COPY, .block = b};
        expect_killed(start_process(push_and_die, &d));
        CHECK_EQ(adopt_session(&s.arena, 1, &adopted), FPS_OK);
        fps_session_close(&adopted);
        fps_session next = open_session(&s.arena);
        CHECK_EQ(push(&next, s.ones), FPS_OK);
        CHECK_EQ(pull(&s.witness, s.out), FPS_OK);
        check_blocks(s.out);
        CHECK_FLOAT(s.out[b * BLOCK_N], 3);
        fps_session_close(&next);
        drop_scene(&s);
    }
}

/* The worker dies at the lock of stripe `at`, which the witness holds, with the lock of the stripe before in its hand.
 */
static void kill_at_stripe(scene *s, uint32_t at)
{
    fps_wait no_wait = {.deadline_ns = FPS_NO_WAIT};
    death d = {.arena = &s->arena, .block = N_BLOCKS};
    CHECK_EQ(fps_stripe_enter(&s->arena, at, &no_wait), FPS_OK);
    d.first_push = true;
    pid_t pid = start_process(push_and_die, &d);
    while (fps_load_acquire(&s->arena.seats[1].position) < (uint64_t)at * MANY_STRIPES) nap_us(100);
    kill_process(pid);
    fps_stripe_leave(&s->arena, at);
}

/* Dies of the write that counts it: its record says that it began, and the shard's version does not know of it. */
static void push_and_die_uncounted(void *argument)
{
    death *d = argument;
    float *ones = filled(N, 1);
    whole w;
    fps_session s = open_session(d->arena);
    CHECK_EQ(s.index, 1);
    prepare_stamping(&w, &s, ones);
    CHECK_EQ(run(&w), FPS_OK);
    protect((uint8_t *)d->arena->header);
    prepare_stamping(&w, &s, ones);
    run(&w);
    fprintf(stderr, "a push survived its death at the entry\n");
}

static void a_push_that_died_while_it_was_counted_has_a_number_of_its_own(void)
{
    for (int i = 0; i < 4; i++) {
        scene s;
        whole w;
        fps_session adopted;
        make_scene_with_slots(&s, i % 2 ? ONE_STRIPE : MANY_STRIPES, 2, 1);
        death d = {.arena = &s.arena};
        expect_killed(start_process(push_and_die_uncounted, &d));
        CHECK_EQ(fps_load_relaxed(&s.arena.seats[1].begun_seq), 2);
        uint64_t passing = i < 2 ? 0 : 2;
        for (uint64_t k = 0; k < passing; k++) {
            prepare_stamping(&w, &s.witness, s.ones);
            CHECK_EQ(run(&w), FPS_OK);
            CHECK_EQ(w.part.version, 3 + k);
        }
        CHECK_EQ(adopt_session(&s.arena, 1, &adopted), FPS_OK);
        prepare_stamping(&w, &adopted, s.ones);
        w.part.seq = adopted.seq;
        CHECK_EQ(run(&w), FPS_OK);
        CHECK_FLOAT(w.uniforms[0], 2.0);
        CHECK_EQ(fps_load_relaxed(&s.arena.header->version), 2 + passing);
        CHECK_EQ(pull(&s.witness, s.out), FPS_OK);
        check_all_equal(s.out, N, (float)(2 + passing));
        check_at_rest(&s.arena);
        fps_session_close(&adopted);
        drop_scene(&s);
    }
}

static void a_death_between_two_stripes_is_retried(void)
{
    for (uint32_t at = 1; at < 5; at++) {
        scene s;
        whole w;
        fps_session adopted;
        make_scene(&s, MANY_STRIPES);
        kill_at_stripe(&s, at);
        retry(&s, 1, &w, false, &adopted);
        CHECK_EQ(pull(&s.witness, s.out), FPS_OK);
        check_all_equal(s.out, N, 1);
        check_at_rest(&s.arena);
        fps_session_close(&adopted);
        drop_scene(&s);
    }
}

/* The retry goes on behind the stripe that the dead worker marked, and the mark now names a session that lives. */
static void a_live_push_is_not_recorded_as_interrupted(void)
{
    scene s;
    whole w;
    fps_session adopted;
    make_scene(&s, MANY_STRIPES);
    kill_at_stripe(&s, 3);
    retry(&s, 1, &w, false, &adopted);
    CHECK_EQ(push(&adopted, s.ones), FPS_OK);
    CHECK(fps_load_relaxed(&adopted.seat->interrupted_seq) <= 1);
    CHECK(fps_load_relaxed(&s.arena.header->interrupted_pid) != (uint64_t)getpid());
    fps_session_close(&adopted);
    drop_scene(&s);
}

/* A push of four short pieces, each but the third behind a gap, over two stripes. */
#define N_PIECES 4u
#define PIECE_BYTES 64u
#define STEP_DEATHS short_or_long(24, 60)

static const uint64_t pieces[N_PIECES] = {64, 4096, 8192, 12288 + 128};

static void push_pieces(fps_session *session, const float *ones, uint64_t seq)
{
    fps_span spans[N_PIECES];
    whole w;
    prepare(&w, session, ones, NULL);
    for (uint32_t i = 0; i < N_PIECES; i++)
        spans[i] = (fps_span){.position = pieces[i], .bytes = PIECE_BYTES, .item_bytes = 4};
    w.part.spans = spans;
    w.part.n_spans = N_PIECES;
    w.part.seq = seq;
    CHECK_EQ(run(&w), FPS_OK);
}

static void push_stepped(void *argument)
{
    scene *s = argument;
    fps_session session = open_session(&s->arena);
    CHECK_EQ(session.index, 1);
    be_stepped();
    push_pieces(&session, s->ones, 0);
    _exit(0);
}

/* How many pieces have had so many pushes, from the first on; the others one less. No piece is torn. */
static uint32_t pieces_with(const scene *s, uint64_t pushes)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < N_PIECES; i++) {
        const float first = *(const float *)(const void *)(s->arena.params + pieces[i]);
        for (uint32_t k = 0; k <= s->arena.layout.n_slots; k++) {
            const float *at = (const float *)(const void *)(fps_arena_stream(&s->arena, k) + pieces[i]);
            check_all_equal(at, PIECE_BYTES / 4, (float)(k + 1) * first);
            CHECK_FLOAT(at[PIECE_BYTES / 4], 0);
        }
        if (first >= (float)pushes) CHECK_EQ(n++, i);
        CHECK_FLOAT(first, (float)(pushes - (n <= i)));
    }
    return n;
}

/* The record tells which pieces were changed, and a retry changes the others. */
static void check_stepped(scene *s, uint64_t pushes)
{
    const fps_seat *seat = &s->arena.seats[1];
    fps_session adopted;
    CHECK_EQ(adopt_session(&s->arena, 1, &adopted), FPS_OK); /* which repairs */
    const uint64_t begun = fps_load_relaxed(&seat->begun_seq), position = fps_load_relaxed(&seat->position);
    const uint32_t changed = pieces_with(s, pushes);
    CHECK(begun == pushes || (begun == pushes - 1 && changed == 0));
    for (uint32_t i = 0; i < N_PIECES && begun == pushes; i++) CHECK_EQ(position > pieces[i], i < changed);
    push_pieces(&adopted, s->ones, pushes);
    CHECK_EQ(pieces_with(s, pushes), N_PIECES);
    for (uint32_t i = 0; i < s->arena.layout.n_stripes; i++) { /* a lock that it held without a mark is taken over */
        CHECK_EQ(fps_stripe_enter(&s->arena, i, &(fps_wait){.deadline_ns = FPS_NO_WAIT}), FPS_OK);
        fps_stripe_leave(&s->arena, i);
    }
    check_at_rest(&s->arena);
    CHECK_EQ(fps_load_relaxed(&s->arena.header->version), pushes);
    CHECK_EQ(fps_load_relaxed(&seat->applied_seq), pushes);
    fps_session_close(&adopted);
}

static void a_death_at_any_instruction_of_a_push_leaves_whole_blocks_and_says_which(void)
{
    for (uint32_t n_slots = 0; n_slots <= 2; n_slots += 2) {
        scene s;
        uint64_t all = 0;
        make_scene_with_slots(&s, n_slots ? MANY_STRIPES : ONE_STRIPE, 2, n_slots);
        for (uint32_t nth = 0; nth <= STEP_DEATHS; nth++) {
            const uint64_t from = nth ? all * (nth - 1) / STEP_DEATHS : 0, behind = all * nth / STEP_DEATHS;
            const uint64_t at = nth ? from + (uint64_t)random() % (behind - from + 1) : UINT64_MAX;
            const uint64_t steps = step_and_kill(push_stepped, &s, at, NULL);
            if (nth == 0) all = steps;
            check_stepped(&s, nth + UINT64_C(1));
        }
        printf("  push of pieces: %ju instructions\n", (uintmax_t)all);
        drop_scene(&s);
    }
}

/* Three workers push ones to two shards in one call, until they are told to stop or die. */
#define N_WORKERS 3
#define N_ARENAS 4 /* of many stripes and of one, without slots and with two */
#define SLOTS_OF_ARENA(k) ((uint32_t)(k) / 2 * 2)
#define ROUNDS 240

typedef struct board {
    fps_word32 stop;
    fps_word32 operations[N_WORKERS];
    fps_word longest_ns[N_WORKERS];
} board;

typedef struct crowd {
    fps_arena arenas[N_ARENAS];
    fps_session witness[N_ARENAS];
    board *board;
    uint32_t worker;
    bool slow;
    float *ones, *out;
} crowd;

static void check_growing_blocks(const float *out, float *last)
{
    check_blocks(out);
    for (uint32_t b = 0; b < N_BLOCKS; b++) {
        CHECK(out[b * BLOCK_N] >= last[b]);
        last[b] = out[b * BLOCK_N];
    }
}

static int32_t add_0_or_die(const void *const *state, const void *grad, void *const *results, int64_t n, int64_t ahead,
                            const double *uniforms)
{
    slots_of_kernel = 0;
    return add_or_die(state, grad, results, n, ahead, uniforms);
}

static int32_t add_2_or_die(const void *const *state, const void *grad, void *const *results, int64_t n, int64_t ahead,
                            const double *uniforms)
{
    slots_of_kernel = 2;
    return add_or_die(state, grad, results, n, ahead, uniforms);
}

static void work_until_told(void *argument)
{
    crowd *c = argument;
    board *shared = c->board;
    fps_session s[N_ARENAS];
    fps_span spans[N_ARENAS];
    whole w;
    uint32_t at;
    float last[N_ARENAS][3][N_BLOCKS] = {{{0}}};
    const fps_rule rules[] = {{.kernel = add_0_or_die, .prepare = prepare_nothing},
                              {.kernel = add_2_or_die, .prepare = prepare_nothing, .n_slots = 2}};
    const void *grads[N_ARENAS];
    double uniforms[N_ARENAS][2 * FPS_UNIFORMS];
    turns = c->slow ? 10 : 0;
    for (int k = 0; k < N_ARENAS; k++) s[k] = open_session(&c->arenas[k]);
    while (!fps_load32_acquire(&shared->stop)) {
        fps_part parts[N_ARENAS];
        prepare(&w, &s[0], c->ones, NULL);
        for (uint32_t k = 0; k < N_ARENAS; k++) {
            spans[k] = w.span;
            parts[k] = (fps_part){.session = &s[k], .spans = &spans[k], .n_spans = 1, .uniforms = uniforms[k]};
            spans[k].buffer = k;
            spans[k].rule = SLOTS_OF_ARENA(k) > 0;
            grads[k] = c->ones;
        }
        w.call.rules = rules;
        w.call.n_rules = COUNT(rules);
        w.call.grads = grads;
        w.call.parts = parts;
        w.call.n_parts = N_ARENAS;
        w.call.first = c->worker % N_ARENAS;
        int64_t start = fps_now_ns();
        CHECK_EQ(fps_dense_run(&w.call, &at), FPS_OK);
        uint64_t took = (uint64_t)(fps_now_ns() - start);
        if (took > fps_load_relaxed(&shared->longest_ns[c->worker]))
            fps_store_relaxed(&shared->longest_ns[c->worker], took);
        for (uint32_t k = 0; k < N_ARENAS; k++) {
            for (uint32_t stream = 0; stream <= SLOTS_OF_ARENA(k); stream++) {
                CHECK_EQ(pull_stream(&s[k], stream, c->out), FPS_OK);
                check_growing_blocks(c->out, last[k][stream]);
            }
        }
        fps_store32_release(&shared->operations[c->worker], fps_load32_relaxed(&shared->operations[c->worker]) + 1);
    }
    for (int k = 0; k < N_ARENAS; k++) fps_session_close(&s[k]);
}

/* Adopts whatever the dead worker held and retries; answers how many pushes all seats have numbered. */
static uint64_t retry_all(crowd *c, int k)
{
    fps_arena *arena = &c->arenas[k];
    uint64_t pushes = 0;
    for (uint32_t i = 0; i < arena->layout.n_sessions; i++) {
        fps_session adopted;
        whole w;
        fps_status status = adopt_session(arena, i, &adopted);
        if (status == FPS_OK) {
            prepare(&w, &adopted, c->ones, NULL);
            w.part.seq = adopted.seq;
            if (adopted.seq > 0) CHECK_EQ(run(&w), FPS_OK);
            fps_session_close(&adopted);
        } else {
            CHECK_EQ(status, FPS_NOT_ABANDONED);
        }
        CHECK_EQ(fps_load_relaxed(&arena->seats[i].applied_seq), fps_load_relaxed(&arena->seats[i].begun_seq));
        pushes += fps_load_relaxed(&arena->seats[i].begun_seq);
    }
    return pushes;
}

/* Nobody pushes: what one pull finds the next one finds, too. */
static void check_that_streams_agree(const fps_arena *arena)
{
    const float *params = (const float *)(const void *)arena->params;
    for (uint32_t k = 1; k <= arena->layout.n_slots; k++)
        for (uint64_t i = 0; i < N; i++)
            CHECK_FLOAT(((const float *)(const void *)fps_arena_stream(arena, k))[i], (float)(k + 1) * params[i]);
}

static bool check_after_death(crowd *c, int k, uint64_t interrupted_before)
{
    fps_arena *arena = &c->arenas[k];
    CHECK_EQ(pull(&c->witness[k], c->out), FPS_OK);
    check_blocks(c->out);
    check_that_streams_agree(arena);
    bool partial = c->out[0] > c->out[N - 1];
    uint64_t interrupted = fps_load_relaxed(&arena->header->interrupted_pushes) - interrupted_before;
    CHECK(interrupted <= 1);
    if (partial) CHECK_EQ(interrupted, 1);
    if (partial) CHECK_FLOAT(c->out[fps_load_relaxed(&arena->header->interrupted_at) / 4], c->out[N - 1]);
    uint64_t pushes = retry_all(c, k);
    CHECK_EQ(pull(&c->witness[k], c->out), FPS_OK);
    check_all_equal(c->out, N, (float)pushes);
    check_that_streams_agree(arena);
    check_at_rest(arena);
    return partial;
}

static void random_deaths_lose_nothing_and_stop_nobody(void)
{
    crowd c = {.board = share(sizeof *c.board), .ones = filled(N, 1), .out = filled(N, -1)};
    int partial = 0;
    uint64_t longest = 0, interrupted[N_ARENAS];
    for (uint32_t k = 0; k < N_ARENAS; k++) {
        c.arenas[k] = make_arena_with_slots(N * 4, k % 2 ? ONE_STRIPE : MANY_STRIPES, N_WORKERS + 1, SLOTS_OF_ARENA(k));
        c.witness[k] = open_session(&c.arenas[k]);
    }
    srandom(seed);
    for (int round = 0; round < ROUNDS; round++) {
        pid_t pids[N_WORKERS];
        uint32_t before[N_WORKERS], victim = (uint32_t)random() % N_WORKERS;
        memset(c.board, 0, sizeof *c.board);
        c.slow = round % 2;
        for (int k = 0; k < N_ARENAS; k++) interrupted[k] = fps_load_relaxed(&c.arenas[k].header->interrupted_pushes);
        for (c.worker = 0; c.worker < N_WORKERS; c.worker++) pids[c.worker] = start_process(work_until_told, &c);
        await(&c.board->operations[victim], 1);
        nap_us(random() % 2000);
        kill_process(pids[victim]);
        for (uint32_t i = 0; i < N_WORKERS; i++) before[i] = fps_load32_acquire(&c.board->operations[i]);
        for (uint32_t i = 0; i < N_WORKERS; i++)
            if (i != victim) await(&c.board->operations[i], before[i] + 2);
        fps_store32_release(&c.board->stop, 1);
        for (uint32_t i = 0; i < N_WORKERS; i++) {
            if (i != victim) expect_success(pids[i]);
            uint64_t took = fps_load_relaxed(&c.board->longest_ns[i]);
            if (took > longest) longest = took;
        }
        for (int k = 0; k < N_ARENAS; k++) partial += check_after_death(&c, k, interrupted[k]);
    }
    printf("  seed %u: %d deaths, %d left a push half-way; the longest push took %.1f ms\n", seed, ROUNDS, partial,
           (double)longest / 1e6);
    CHECK(longest < 1000000000); /* no limit on speed: a lock that nobody recovers is never free again */
    for (int k = 0; k < N_ARENAS; k++) {
        fps_session_close(&c.witness[k]);
        drop_arena(&c.arenas[k]);
    }
    free(c.ones);
    free(c.out);
    munmap(c.board, sizeof *c.board);
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(a_death_in_a_kernel_changes_nothing_of_its_block),
        TEST(a_retry_after_a_death_in_a_kernel_applies_the_push_once),
        TEST(a_committed_block_is_finished_by_whoever_comes),
        TEST(a_retry_finishes_a_committed_block_and_goes_on_behind_it),
        TEST(a_retry_after_the_first_block_was_committed_applies_it_once),
        TEST(a_retried_push_pull_pulls_all_of_the_shard),
        TEST(a_death_in_a_kernel_changes_nothing_of_its_block_in_any_stream),
        TEST(a_block_that_is_committed_but_not_copied_is_finished_in_all_streams),
        TEST(a_death_between_the_copies_of_two_streams_is_finished_in_all_of_them),
        TEST(a_death_in_the_copy_of_a_slot_is_finished_in_all_streams),
        TEST(a_retried_push_pull_with_slots_pulls_all_of_the_shard),
        TEST(a_death_in_the_copy_of_the_last_of_all_slots_is_finished),
        TEST(a_repair_leaves_streams_alone_that_the_push_did_not_write),
        TEST(a_death_while_a_stream_is_set_leaves_whole_blocks_and_is_retried),
        TEST(a_retry_has_the_step_that_the_push_began_with),
        TEST(configure_repairs_the_stripe_that_a_dead_push_was_in),
        TEST(the_version_counts_a_retried_push_once),
        TEST(a_death_in_the_first_push_of_a_session_is_retried),
        TEST(a_push_that_passes_a_dead_one_is_kept_by_the_retry),
        TEST(a_seat_taken_after_a_death_leaves_whole_blocks),
        TEST(an_adopter_that_does_not_retry_leaves_whole_blocks),
        TEST(a_push_that_died_while_it_was_counted_has_a_number_of_its_own),
        TEST(a_death_between_two_stripes_is_retried),
        TEST(a_live_push_is_not_recorded_as_interrupted),
        TEST(a_death_at_any_instruction_of_a_push_leaves_whole_blocks_and_says_which),
        TEST(random_deaths_lose_nothing_and_stop_nobody),
    };
    seed = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : (uint32_t)time(NULL);
    printf("  seed %u\n", seed);
    srandom(seed);
    return run_tests(tests, COUNT(tests));
}

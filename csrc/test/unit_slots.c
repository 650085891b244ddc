/* Rules with slots, their hyper-parameters, and what a kernel is handed. */
#define _GNU_SOURCE

#include "check.h"
#include "fill.h"
#include "stripe.h"

#define MANY_STRIPES 4096
#define ONE_STRIPE (1 << 20)

static double item(const uint8_t *at, uint32_t item_bytes)
{
    float narrow = 0;
    double wide = 0;
    memcpy(item_bytes == 8 ? (void *)&wide : (void *)&narrow, at, item_bytes);
    return item_bytes == 8 ? wide : (double)narrow;
}

static void put(uint8_t *at, uint32_t item_bytes, double value)
{
    float narrow = (float)value;
    memcpy(at, item_bytes == 8 ? (const void *)&value : (const void *)&narrow, item_bytes);
}

static uint32_t random_number(uint32_t *state, uint32_t n)
{
    *state = *state * 1664525u + 1013904223u;
    return (uint32_t)(((uint64_t)*state * n) >> 32);
}

/* A shard of runs under different rules. A run's buffer is its own. Every stream of a run begins with a value that
 * tells it from the others; what lies between the runs stays zero. */
#define MAX_RUNS 6
#define N_RULES 7

static const fps_rule rules[N_RULES] = {
    {.kernel = add_f32, .prepare = prepare_nothing, .n_slots = 0},
    {.kernel = add_1_f32, .prepare = prepare_nothing, .n_slots = 1},
    {.kernel = add_2_f32, .prepare = prepare_nothing, .n_slots = 2},
    {.kernel = add_15_f32, .prepare = prepare_nothing, .n_slots = 15},
    {.kernel = add_f64, .prepare = prepare_nothing, .n_slots = 0},
    {.kernel = add_1_f64, .prepare = prepare_nothing, .n_slots = 1},
    {.kernel = add_2_f64, .prepare = prepare_nothing, .n_slots = 2},
};

typedef struct world {
    fps_arena arena;
    fps_session session;
    fps_span spans[MAX_RUNS];
    uint32_t n;
    double pushed[MAX_RUNS]; /* of each element's index, in sum */
    void *grads[MAX_RUNS], *outs[MAX_RUNS];
    double uniforms[N_RULES * FPS_UNIFORMS];
    fps_part part;
    fps_call call;
} world;

static double initial(uint32_t stream) { return 100 * (stream + 1); }

/* Small, and another one for every element. */
static double gradient_of(uint64_t i) { return (double)(i % 29) - 14; }

static void add_run(world *w, uint32_t n, uint32_t rule, uint64_t gap_bytes)
{
    uint32_t i = w->n++, item_bytes = rule >= 4 ? 8 : 4;
    uint64_t position = i == 0 ? 0 : w->spans[i - 1].position + w->spans[i - 1].bytes;
    position = (position + gap_bytes + item_bytes - 1) / item_bytes * item_bytes;
    w->spans[i] = (fps_span){
        .position = position, .bytes = (uint64_t)n * item_bytes, .buffer = i, .rule = rule, .item_bytes = item_bytes};
    w->grads[i] = malloc(w->spans[i].bytes + 1);
    w->outs[i] = malloc(w->spans[i].bytes + 1);
    CHECK(w->grads[i] && w->outs[i]);
    for (uint64_t k = 0; k < n; k++) put((uint8_t *)w->grads[i] + k * item_bytes, item_bytes, gradient_of(k));
}

static void finish_world(world *w, uint64_t tail_bytes, uint64_t stripe_bytes, uint32_t n_slots)
{
    const fps_span *last = &w->spans[w->n - 1];
    w->arena = make_arena_with_slots(last->position + last->bytes + tail_bytes, stripe_bytes, 2, n_slots);
    w->session = open_session(&w->arena);
    for (uint32_t i = 0; i < w->n; i++)
        for (uint32_t k = 0; k <= n_slots; k++) fps_fill_stream(&w->arena, &w->spans[i], k, initial(k));
}

static fps_status run_world(world *w, bool pushes, bool pulls, const uint32_t *streams)
{
    uint32_t at;
    w->part = (fps_part){.session = &w->session, .spans = w->spans, .n_spans = w->n, .uniforms = w->uniforms};
    w->call = (fps_call){.kind = streams ? (pushes ? FPS_SET : FPS_GET) : kind_of(pushes, pulls),
                         .grads = pushes ? (const void *const *)w->grads : NULL,
                         .outs = pulls ? (void *const *)w->outs : NULL,
                         .streams = streams,
                         .n_streams = 1,
                         .n_buffers = w->n,
                         .rules = rules,
                         .n_rules = N_RULES,
                         .parts = &w->part,
                         .n_parts = 1,
                         .wait = {.deadline_ns = FPS_NEVER}};
    fps_status status = fps_dense_run(&w->call, &at);
    if (pushes && !streams)
        for (uint32_t i = 0; i < w->n; i++) w->pushed[i]++;
    return status;
}

/* What stream k of the i-th element of a run holds now. */
static double expected(const world *w, uint32_t run, uint32_t stream, uint64_t i)
{
    bool has = stream <= rules[w->spans[run].rule].n_slots;
    return initial(stream) + (has ? w->pushed[run] * (stream + 1) * gradient_of(i) : 0);
}

static void check_world(const world *w)
{
    const fps_layout *l = &w->arena.layout;
    for (uint32_t k = 0; k <= l->n_slots; k++) {
        const uint8_t *stream = fps_arena_stream(&w->arena, k);
        uint64_t at = 0;
        for (uint32_t run = 0; run < w->n; run++) {
            const fps_span *s = &w->spans[run];
            for (; at < s->position; at++) CHECK_EQ(stream[at], 0);
            for (uint64_t i = 0; i < s->bytes / s->item_bytes; i++, at += s->item_bytes)
                CHECK_FLOAT(item(stream + at, s->item_bytes), expected(w, run, k, i));
        }
        uint64_t end = k == 0 ? l->slots_offset - l->params_offset : l->slot_stride; /* and nothing behind the stream */
        if (k > 0 || l->n_slots > 0)
            for (; at < end; at++) CHECK_EQ(stream[at], 0);
    }
}

static void check_outs(const world *w, uint32_t stream)
{
    for (uint32_t run = 0; run < w->n; run++) {
        const fps_span *s = &w->spans[run];
        for (uint64_t i = 0; i < s->bytes / s->item_bytes; i++)
            CHECK_FLOAT(item((const uint8_t *)w->outs[run] + i * s->item_bytes, s->item_bytes),
                        expected(w, run, stream, i));
    }
}

static void drop_world(world *w)
{
    fps_session_close(&w->session);
    drop_arena(&w->arena);
    for (uint32_t i = 0; i < w->n; i++) {
        free(w->grads[i]);
        free(w->outs[i]);
    }
}

static void push_and_check(world *w)
{
    for (uint64_t i = 1; i <= 2; i++) {
        CHECK_EQ(run_world(w, true, false, NULL), FPS_OK);
        CHECK_EQ(w->part.version, 2 * i - 1);
        check_world(w);
        CHECK_EQ(run_world(w, true, true, NULL), FPS_OK);
        CHECK_EQ(w->part.version, 2 * i);
        check_world(w);
        check_outs(w, 0);
        CHECK_EQ(run_world(w, false, true, NULL), FPS_OK);
        check_outs(w, 0);
    }
}

static void a_push_updates_parameters_and_slots_of_every_size(void)
{
    static const uint32_t sizes[] = {1, 2, 511, 512, 513, 1024, 1025, 2047, 4096, 5001, 20011};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        for (uint32_t rule = 0; rule < N_RULES; rule++) {
            for (uint64_t stripe_bytes = MANY_STRIPES; stripe_bytes <= ONE_STRIPE; stripe_bytes <<= 4) {
                world w = {0};
                add_run(&w, sizes[i], rule, 0);
                finish_world(&w, 0, stripe_bytes, rules[rule].n_slots);
                push_and_check(&w);
                drop_world(&w);
            }
        }
    }
}

static void a_rule_with_fewer_slots_leaves_the_others_alone(void)
{
    uint32_t state = 1;
    for (int round = 0; round < 60; round++) {
        world w = {0};
        uint32_t n = 1 + random_number(&state, MAX_RUNS);
        for (uint32_t i = 0; i < n; i++)
            add_run(&w, 1 + random_number(&state, i % 2 ? 40 : 3000), random_number(&state, N_RULES),
                    random_number(&state, 2) ? 0 : 4 * random_number(&state, 3000));
        finish_world(&w, 4 * random_number(&state, 2000), round % 3 ? MANY_STRIPES : ONE_STRIPE,
                     round % 2 ? FPS_MAX_SLOTS : 2);
        bool fits = true;
        for (uint32_t i = 0; i < n; i++) fits &= rules[w.spans[i].rule].n_slots <= w.arena.layout.n_slots;
        if (fits) push_and_check(&w);
        drop_world(&w);
    }
}

/* 750 KB with 15 slots are more than a cache: blocks are shorter, and there are several stripes. */
static void a_shard_larger_than_a_cache_is_updated_in_all_its_slots(void)
{
    world w = {0};
    add_run(&w, 100003, 3, 4);
    add_run(&w, 50021, 6, 8);
    add_run(&w, 11, 0, 0);
    finish_world(&w, 40, 0, FPS_MAX_SLOTS);
    CHECK_EQ(w.arena.layout.block_bytes, FPS_BLOCK_BYTES / 2);
    push_and_check(&w);
    drop_world(&w);
}

static void begin_sets_one_stream_of_one_run(void)
{
    world w = {0};
    add_run(&w, 700, 2, 12);
    add_run(&w, 300, 6, 100);
    add_run(&w, 5, 2, 4);
    finish_world(&w, 40, MANY_STRIPES, 2);
    check_world(&w);
    CHECK_EQ(fps_load_relaxed(&w.arena.header->version), 0);
    fps_fill_stream(&w.arena, &w.spans[1], 2, 0.1); /* a double keeps all its digits */
    CHECK_FLOAT(item(fps_arena_stream(&w.arena, 2) + w.spans[1].position, 8), 0.1);
    fps_fill_stream(&w.arena, &w.spans[1], 2, initial(2));
    check_world(&w);
    drop_world(&w);
}

static void each_slot_is_pulled_through_streams(void)
{
    for (uint64_t stripe_bytes = MANY_STRIPES; stripe_bytes <= ONE_STRIPE; stripe_bytes <<= 8) {
        world w = {0};
        add_run(&w, 3000, 2, 12);
        add_run(&w, 2000, 6, 100);
        finish_world(&w, 40, stripe_bytes, 2);
        for (uint32_t i = 0; i < 2; i++) CHECK_EQ(run_world(&w, true, false, NULL), FPS_OK);
        for (uint32_t k = 0; k <= 2; k++) {
            uint32_t streams[N_RULES];
            for (uint32_t i = 0; i < N_RULES; i++) streams[i] = k;
            CHECK_EQ(run_world(&w, false, true, streams), FPS_OK);
            CHECK_EQ(w.part.version, 2);
            check_outs(&w, k);
        }
        check_world(&w);
        drop_world(&w);
    }
}

/* The second slot of rule 2 is stream 2; rule 6 means its first; the others have none of that name. */
static const uint32_t named[N_RULES] = {FPS_NO_STREAM, FPS_NO_STREAM, 2, FPS_NO_STREAM,
                                        FPS_NO_STREAM, FPS_NO_STREAM, 1};

static void make_named_world(world *w, uint64_t stripe_bytes)
{
    add_run(w, 1500, 2, 12);
    add_run(w, 3000, 1, 8);
    add_run(w, 2000, 6, 100);
    finish_world(w, 40, stripe_bytes, 2);
    CHECK_EQ(run_world(w, true, false, NULL), FPS_OK);
}

static void a_pull_of_streams_passes_rules_without_one_over(void)
{
    for (uint64_t stripe_bytes = MANY_STRIPES; stripe_bytes <= ONE_STRIPE; stripe_bytes <<= 8) {
        world w = {0};
        make_named_world(&w, stripe_bytes);
        for (uint32_t i = 0; i < w.n; i++) memset(w.outs[i], 0x5a, w.spans[i].bytes);
        CHECK_EQ(run_world(&w, false, true, named), FPS_OK);
        for (uint64_t i = 0; i < 1500; i++) CHECK_FLOAT(((float *)w.outs[0])[i], expected(&w, 0, 2, i));
        for (uint64_t i = 0; i < w.spans[1].bytes; i++) CHECK_EQ(((uint8_t *)w.outs[1])[i], 0x5a);
        for (uint64_t i = 0; i < 2000; i++) CHECK_FLOAT(((double *)w.outs[2])[i], expected(&w, 2, 1, i));
        drop_world(&w);
    }
}

static void a_set_of_streams_changes_those_and_no_others(void)
{
    for (uint64_t stripe_bytes = MANY_STRIPES; stripe_bytes <= ONE_STRIPE; stripe_bytes <<= 8) {
        world w = {0};
        make_named_world(&w, stripe_bytes);
        CHECK_EQ(run_world(&w, true, false, named), FPS_OK);
        CHECK_EQ(w.part.done, 1);
        for (uint32_t run = 0; run < w.n; run++) {
            const fps_span *s = &w.spans[run];
            for (uint64_t i = 0; i < s->bytes / s->item_bytes; i++) {
                for (uint32_t k = 0; k <= 2; k++) {
                    bool set = named[s->rule] == k;
                    const uint8_t *at = fps_arena_stream(&w.arena, k) + s->position + i * s->item_bytes;
                    CHECK_FLOAT(item(at, s->item_bytes), set ? gradient_of(i) : expected(&w, run, k, i));
                    if (set)
                        put(fps_arena_stream(&w.arena, k) + s->position + i * s->item_bytes, s->item_bytes,
                            expected(&w, run, k, i));
                }
            }
        }
        check_world(&w); /* nothing lies where it should not */
        drop_world(&w);
    }
}

/* Parameters, and a slot where the rule has one: what one set writes, one get reads. */
static void several_streams_are_set_and_read_at_once(void)
{
    for (uint64_t stripe_bytes = MANY_STRIPES; stripe_bytes <= ONE_STRIPE; stripe_bytes <<= 8) {
        world w = {0};
        uint32_t streams[2][N_RULES];
        void *values[6], *outs[6];
        make_named_world(&w, stripe_bytes);
        for (uint32_t i = 0; i < N_RULES; i++) streams[0][i] = 0, streams[1][i] = named[i];
        for (uint32_t i = 0; i < 6; i++) {
            const fps_span *s = &w.spans[i % 3];
            values[i] = malloc(s->bytes);
            outs[i] = malloc(s->bytes);
            CHECK(values[i] && outs[i]);
            memset(outs[i], 0x5a, s->bytes);
            for (uint64_t at = 0; at < s->bytes; at += s->item_bytes)
                put((uint8_t *)values[i] + at, s->item_bytes, (double)(i * 10000 + at));
        }
        for (int reads = 0; reads < 2; reads++) {
            uint32_t at;
            CHECK_EQ(run_world(&w, !reads, reads, &streams[0][0]), FPS_OK);
            w.part = (fps_part){.session = &w.session, .spans = w.spans, .n_spans = w.n, .uniforms = w.uniforms};
            w.call.n_streams = 2;
            w.call.grads = (const void *const *)values;
            w.call.outs = (void *const *)outs;
            CHECK_EQ(fps_dense_run(&w.call, &at), FPS_OK);
            CHECK_EQ(w.part.version, 1);
        }
        for (uint32_t i = 0; i < 6; i++) {
            if (streams[i / 3][w.spans[i % 3].rule] == FPS_NO_STREAM)
                for (uint64_t at = 0; at < w.spans[i % 3].bytes; at++) CHECK_EQ(((uint8_t *)outs[i])[at], 0x5a);
            else
                CHECK(memcmp(values[i], outs[i], w.spans[i % 3].bytes) == 0);
            free(values[i]);
            free(outs[i]);
        }
        drop_world(&w);
    }
}

/* What is carried has any number of bytes, and begins at a whole word. */
static void a_set_of_what_is_carried_writes_its_last_bytes(void)
{
    static const fps_rule carried = {0};
    static const uint32_t params = 0;
    for (uint32_t bytes = 1; bytes < 6000; bytes = bytes * 5 / 3 + 1) {
        fps_arena arena = make_arena_with_slots((bytes + 3) / 4 * 4 + 64, MANY_STRIPES, 1, 0);
        fps_session session = open_session(&arena);
        uint8_t *given = malloc(bytes), *out = calloc(1, bytes);
        CHECK(given && out);
        for (uint32_t i = 0; i < bytes; i++) given[i] = (uint8_t)(i * 7 + 1);
        const fps_span span = {.position = 64, .bytes = bytes, .item_bytes = 1};
        for (int reads = 0; reads < 2; reads++) {
            uint32_t at;
            fps_part part = {.session = &session, .spans = &span, .n_spans = 1};
            fps_call call = {.kind = reads ? FPS_GET : FPS_SET,
                             .grads = (const void *const *)&given,
                             .outs = (void *const *)&out,
                             .streams = &params,
                             .n_streams = 1,
                             .n_buffers = 1,
                             .rules = &carried,
                             .n_rules = 1,
                             .parts = &part,
                             .n_parts = 1,
                             .wait = {.deadline_ns = FPS_NEVER}};
            CHECK_EQ(fps_dense_run(&call, &at), FPS_OK);
        }
        CHECK(memcmp(given, out, bytes) == 0);
        for (uint32_t i = 0; i < 64; i++) CHECK_EQ(arena.params[i], 0);
        fps_session_close(&session);
        drop_arena(&arena);
        free(given);
        free(out);
    }
}

/* A shard of float32 under one rule, and two sessions: a lock that the test holds is in the way of both. */
typedef struct shard {
    uint64_t n;
    fps_arena arena;
    fps_session mine, other;
    float *ones, *out;
} shard;

static void make_shard(shard *s, uint64_t n, uint64_t stripe_bytes, uint32_t n_slots)
{
    s->n = n;
    s->arena = make_arena_with_slots(n * 4, stripe_bytes, 2, n_slots);
    s->mine = open_session(&s->arena);
    s->other = open_session(&s->arena);
    s->ones = filled(n, 1);
    s->out = filled(n, -1);
}

static void drop_shard(shard *s)
{
    fps_session_close(&s->mine);
    fps_session_close(&s->other);
    drop_arena(&s->arena);
    free(s->ones);
    free(s->out);
}

static void check_stream(shard *s, uint32_t stream, float value)
{
    CHECK_EQ(pull_stream(&s->other, stream, s->out), FPS_OK);
    check_all_equal(s->out, s->n, value);
}

static const fps_wait no_wait = {.deadline_ns = FPS_NO_WAIT};

static void block(shard *s, uint32_t stripe) { CHECK_EQ(fps_stripe_enter(&s->arena, stripe, &no_wait), FPS_OK); }

static void unblock(shard *s, uint32_t stripe) { fps_stripe_leave(&s->arena, stripe); }

static void setting_counts_neither_as_a_push_nor_as_a_version(void)
{
    for (uint64_t stripe_bytes = MANY_STRIPES; stripe_bytes <= ONE_STRIPE; stripe_bytes <<= 8) {
        shard s;
        make_shard(&s, 3000, stripe_bytes, 2);
        float *nines = filled(s.n, 9);
        CHECK_EQ(push(&s.mine, s.ones), FPS_OK);
        const fps_meters before = s.mine.seat->meters;
        for (uint32_t k = 0; k <= 2; k++) {
            CHECK_EQ(set_stream(&s.mine, k, nines), FPS_OK);
            CHECK_EQ(pull_stream(&s.mine, k, s.out), FPS_OK);
            check_all_equal(s.out, s.n, 9);
        }
        CHECK_EQ(fps_load_relaxed(&s.arena.header->version), 1);
        CHECK_EQ(fps_load_relaxed(&s.mine.seat->meters.pushes), fps_load_relaxed(&before.pushes));
        CHECK_EQ(fps_load_relaxed(&s.mine.seat->meters.pulls), fps_load_relaxed(&before.pulls));
        CHECK_EQ(fps_load_relaxed(&s.mine.seat->meters.bytes_written), fps_load_relaxed(&before.bytes_written));
        CHECK_EQ(fps_load_relaxed(&s.mine.seat->meters.bytes_read), fps_load_relaxed(&before.bytes_read));
        CHECK_EQ(fps_load_relaxed(&s.mine.seat->begun_seq), 4); /* but it can be told from the push before it */
        CHECK_EQ(fps_load_relaxed(&s.mine.seat->applied_seq), 4);
        CHECK_EQ(push(&s.mine, s.ones), FPS_OK);
        CHECK_EQ(fps_load_relaxed(&s.arena.header->version), 2);
        for (uint32_t k = 0; k <= 2; k++) check_stream(&s, k, 9 + (float)(k + 1));
        free(nines);
        drop_shard(&s);
    }
}

static void a_set_that_timed_out_half_way_goes_on(void)
{
    for (uint32_t stream = 0; stream <= 2; stream++) {
        shard s;
        whole w;
        make_shard(&s, 5000, MANY_STRIPES, 2);
        prepare_stream(&w, &s.mine, stream, s.ones, NULL);
        block(&s, 2);
        w.call.wait.deadline_ns = FPS_NO_WAIT;
        CHECK_EQ(run(&w), FPS_BUSY);
        CHECK_EQ(w.part.position, 8192);
        unblock(&s, 2);
        CHECK_EQ(push(&s.other, s.ones), FPS_OK);
        CHECK_EQ(run(&w), FPS_OK);
        CHECK_EQ(fps_load_relaxed(&s.arena.header->version), 1);
        CHECK_EQ(pull_stream(&s.other, stream, s.out), FPS_OK);
        check_all_equal(s.out, 2048, 1 + (float)(stream + 1)); /* the push passed it here */
        check_all_equal(s.out + 2048, s.n - 2048, 1);
        for (uint32_t k = 0; k <= 2; k++)
            if (k != stream) check_stream(&s, k, (float)(k + 1));
        drop_shard(&s);
    }
}

static void a_set_that_was_applied_is_not_applied_again(void)
{
    shard s;
    whole w;
    make_shard(&s, 3000, MANY_STRIPES, 2);
    CHECK_EQ(set_stream(&s.mine, 1, s.ones), FPS_OK);
    CHECK_EQ(push(&s.other, s.ones), FPS_OK);
    prepare_stream(&w, &s.mine, 1, s.ones, NULL);
    w.part.seq = 1;
    CHECK_EQ(run(&w), FPS_OK);
    CHECK_EQ(w.part.done, 1);
    check_stream(&s, 1, 3);
    drop_shard(&s);
}

static void a_reader_of_a_slot_of_one_stripe_waits_for_a_writer_in_the_middle(void)
{
    shard s;
    whole w;
    make_shard(&s, 1000, ONE_STRIPE, 2);
    fps_word *sequence = &s.arena.stripes[0].sequence;
    CHECK_EQ(push(&s.mine, s.ones), FPS_OK);
    block(&s, 0);
    prepare_stream(&w, &s.mine, 2, NULL, s.out);
    w.call.wait.deadline_ns = FPS_NO_WAIT;
    CHECK_EQ(run(&w), FPS_OK); /* nobody writes: the lock is in nobody's way */
    check_all_equal(s.out, s.n, 3);
    fps_store_release(sequence, fps_load_relaxed(sequence) + 1);
    prepare_stream(&w, &s.mine, 2, NULL, s.out);
    w.call.wait.deadline_ns = FPS_NO_WAIT;
    CHECK_EQ(run(&w), FPS_BUSY);
    fps_store_release(sequence, fps_load_relaxed(sequence) + 1);
    unblock(&s, 0);
    drop_shard(&s);
}

static void a_set_moves_the_sequence_of_one_stripe_on(void)
{
    shard s;
    make_shard(&s, 1000, ONE_STRIPE, 1);
    uint64_t before = fps_load_relaxed(&s.arena.stripes[0].sequence);
    CHECK_EQ(set_stream(&s.mine, 1, s.ones), FPS_OK);
    CHECK_EQ(fps_load_relaxed(&s.arena.stripes[0].sequence), before + 2);
    drop_shard(&s);
}

static void operations_on_slots_of_a_closed_arena_are_refused(void)
{
    shard s;
    make_shard(&s, 3000, MANY_STRIPES, 1);
    fps_arena_retire(&s.arena);
    CHECK_EQ(push(&s.mine, s.ones), FPS_CLOSED);
    CHECK_EQ(set_stream(&s.mine, 1, s.ones), FPS_CLOSED);
    CHECK_EQ(pull_stream(&s.mine, 1, s.out), FPS_CLOSED);
    check_all_equal(s.out, s.n, -1);
    drop_shard(&s);
}

/* What the kernel and the preparation were called with. */
static struct {
    int prepared, kernels;
    double step[8];
    double hyper[FPS_MAX_HYPER];
    int64_t ahead, longest;
    double limit, scale;
    const double *uniforms;
} seen;

/* Uniform 0 is hyper-parameter 0, uniform 1 the step. */
static int32_t prepare_seen(const double *hyper, double step, double *uniforms)
{
    seen.step[seen.prepared++ % 8] = step;
    memcpy(seen.hyper, hyper, sizeof seen.hyper);
    uniforms[0] = hyper[0];
    uniforms[1] = step;
    uniforms[FPS_MAX_UNIFORMS - 1] = 77; /* as many as it likes */
    return 0;
}

/* Adds hyper-parameter 0 to the parameters and puts the step into the first slot. */
static int32_t add_hyper(const void *const *state, const void *grad, void *const *results, int64_t n, int64_t ahead,
                         const double *uniforms)
{
    const float *p = state[0];
    float *r = results[0], *m = results[1];
    (void)grad;
    for (int64_t i = 0; i < n; i++) r[i] = p[i] + (float)uniforms[0];
    for (int64_t i = 0; i < n; i++) m[i] = (float)uniforms[1];
    CHECK_FLOAT(uniforms[FPS_MAX_UNIFORMS - 1], 77.0);
    seen.kernels++;
    seen.ahead = ahead;
    seen.longest = n > seen.longest ? n : seen.longest;
    seen.limit = uniforms[FPS_MAX_UNIFORMS];
    seen.scale = uniforms[FPS_MAX_UNIFORMS + 1];
    seen.uniforms = uniforms;
    return 0;
}

static void prepare_seen_push(whole *w, fps_session *session, const float *grad)
{
    prepare(w, session, grad, NULL);
    w->rule = (fps_rule){.kernel = add_hyper, .prepare = prepare_seen, .n_slots = 1};
}

static void configure(const fps_arena *arena, uint32_t rule, double value)
{
    CHECK_EQ(fps_dense_configure(arena, rule, 1, (double[FPS_MAX_HYPER]){value}, &no_wait), FPS_OK);
}

static void uniforms_are_prepared_once_a_push_with_its_version_as_step(void)
{
    for (uint64_t stripe_bytes = MANY_STRIPES; stripe_bytes <= ONE_STRIPE; stripe_bytes <<= 8) {
        shard s;
        whole w;
        make_shard(&s, 5000, stripe_bytes, 1);
        memset(&seen, 0, sizeof seen);
        for (int i = 0; i < 6; i++) {
            prepare_seen_push(&w, i % 3 ? &s.mine : &s.other, s.ones);
            CHECK_EQ(run(&w), FPS_OK);
            CHECK_EQ(seen.prepared, i + 1);
            CHECK_FLOAT(seen.step[i], i + 1);
            CHECK_EQ(w.part.version, i + 1);
            check_stream(&s, 1, (float)(i + 1));
            CHECK(seen.uniforms == w.uniforms);
            CHECK_EQ(fps_load_relaxed(&w.session->seat->begun_version), i + 1);
            CHECK_EQ(set_stream(&s.mine, 1, s.ones), FPS_OK); /* takes no step */
            CHECK_EQ(pull(&s.mine, s.out), FPS_OK);
        }
        CHECK_EQ(seen.prepared, 6);
        drop_shard(&s);
    }
}

static void every_rule_of_a_part_has_uniforms_of_its_own(void)
{
    shard s;
    make_shard(&s, 3000, MANY_STRIPES, 1);
    memset(&seen, 0, sizeof seen);
    const fps_rule rows[] = {{.kernel = add_hyper, .prepare = prepare_seen, .n_slots = 1, .number = 5},
                             {.kernel = add_hyper, .prepare = prepare_seen, .n_slots = 1, .number = 2}};
    const fps_span spans[] = {{.bytes = 6000, .item_bytes = 4},
                              {.position = 6000, .bytes = 6000, .buffer_offset = 6000, .rule = 1, .item_bytes = 4}};
    double uniforms[2 * FPS_UNIFORMS];
    const void *grads[] = {s.ones};
    uint32_t at;
    configure(&s.arena, 5, 3);
    configure(&s.arena, 2, 4);
    fps_part part = {.session = &s.mine, .spans = spans, .n_spans = 2, .uniforms = uniforms};
    fps_call call = {.kind = FPS_PUSH,
                     .grads = grads,
                     .rules = rows,
                     .n_rules = 2,
                     .limit = 0.5,
                     .scale = 0.25,
                     .parts = &part,
                     .n_parts = 1,
                     .wait = {.deadline_ns = FPS_NEVER}};
    CHECK_EQ(fps_dense_run(&call, &at), FPS_OK);
    CHECK_EQ(seen.prepared, 2);
    CHECK_EQ(pull(&s.other, s.out), FPS_OK);
    check_all_equal(s.out, 1500, 3);
    check_all_equal(s.out + 1500, 1500, 4);
    CHECK_FLOAT(uniforms[FPS_MAX_UNIFORMS], 0.5);
    CHECK_FLOAT(uniforms[FPS_UNIFORMS + FPS_MAX_UNIFORMS + 1], 0.25);
    drop_shard(&s);
}

static void parts_of_a_call_have_the_steps_of_their_shards(void)
{
    shard s[2];
    whole w[2];
    fps_part parts[2];
    uint32_t at;
    for (int i = 0; i < 2; i++) make_shard(&s[i], 3000, i ? MANY_STRIPES : ONE_STRIPE, 1);
    for (int i = 0; i < 4; i++) CHECK_EQ(push(&s[1].other, s[1].ones), FPS_OK);
    memset(&seen, 0, sizeof seen);
    for (int i = 0; i < 2; i++) {
        configure(&s[i].arena, 0, i + 10);
        prepare_seen_push(&w[i], &s[i].mine, s[i].ones);
        parts[i] = w[i].part;
    }
    fps_call call = w[0].call;
    call.parts = parts;
    call.n_parts = 2;
    CHECK_EQ(fps_dense_run(&call, &at), FPS_OK);
    CHECK_EQ(seen.prepared, 2);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(parts[i].version, i ? 5 : 1);
        check_stream(&s[i], 0, i ? 4 + 11 : 10);
        check_stream(&s[i], 1, i ? 5 : 1);
        drop_shard(&s[i]);
    }
}

/* Others push and configure while it waits: it ends as it began. */
static void a_push_that_goes_on_keeps_its_uniforms_and_its_step(void)
{
    for (uint32_t stripe = 1; stripe < 5; stripe++) {
        shard s;
        whole w;
        make_shard(&s, 5000, MANY_STRIPES, 1);
        memset(&seen, 0, sizeof seen);
        configure(&s.arena, 0, 8);
        prepare_seen_push(&w, &s.mine, s.ones);
        w.call.limit = 2;
        w.call.scale = 3;
        w.call.wait.deadline_ns = FPS_NO_WAIT;
        block(&s, stripe);
        for (int i = 0; i < 2; i++) CHECK_EQ(run(&w), FPS_BUSY);
        CHECK_EQ(seen.prepared, 1);
        configure(&s.arena, 0, 1000);
        unblock(&s, stripe);
        for (int i = 0; i < 3; i++) CHECK_EQ(push(&s.other, s.ones), FPS_OK); /* 1 to parameters, 2 to the slot */
        w.call.limit = 20;
        w.call.scale = 30;
        CHECK_EQ(run(&w), FPS_OK);
        CHECK_EQ(seen.prepared, 1);
        CHECK_FLOAT(seen.step[0], 1.0);
        CHECK_FLOAT(seen.limit, 2.0);
        CHECK_FLOAT(seen.scale, 3.0);
        CHECK_EQ(w.part.version, 1);
        CHECK_EQ(fps_load_relaxed(&s.arena.header->version), 4);
        check_stream(&s, 0, 8 + 3);
        CHECK_EQ(pull_stream(&s.other, 1, s.out), FPS_OK);
        check_all_equal(s.out, stripe * 1024, 1 + 3 * 2);
        check_all_equal(s.out + stripe * 1024, s.n - stripe * 1024, 1);
        drop_shard(&s);
    }
}

static void a_push_that_goes_on_behind_a_later_one_of_its_session_is_counted_once(void)
{
    shard s;
    whole w;
    make_shard(&s, 5000, MANY_STRIPES, 1);
    prepare(&w, &s.mine, s.ones, NULL);
    w.call.wait.deadline_ns = FPS_NO_WAIT;
    block(&s, 2);
    CHECK_EQ(run(&w), FPS_BUSY);
    unblock(&s, 2);
    CHECK_EQ(push(&s.mine, s.ones), FPS_OK);
    CHECK_EQ(run(&w), FPS_OK);
    CHECK_EQ(w.part.version, 1);
    CHECK_EQ(fps_load_relaxed(&s.arena.header->version), 2);
    for (uint32_t k = 0; k <= 1; k++) check_stream(&s, k, 2 * (float)(k + 1));
    drop_shard(&s);
}

/* As when the session was given back meanwhile: that one has done something else since. */
static void a_push_goes_on_in_another_session_as_it_began(void)
{
    for (uint32_t stripe = 1; stripe < 5; stripe++) {
        shard s;
        whole w;
        make_shard(&s, 5000, MANY_STRIPES, 1);
        memset(&seen, 0, sizeof seen);
        configure(&s.arena, 0, 8);
        prepare_seen_push(&w, &s.mine, s.ones);
        w.call.wait.deadline_ns = FPS_NO_WAIT;
        block(&s, stripe);
        CHECK_EQ(run(&w), FPS_BUSY);
        configure(&s.arena, 0, 1000);
        unblock(&s, stripe);
        for (int i = 0; i < 2; i++) CHECK_EQ(push(i ? &s.mine : &s.other, s.ones), FPS_OK);
        w.part.session = &s.other;
        w.part.seq = 0;
        CHECK_EQ(run(&w), FPS_OK);
        CHECK_EQ(seen.prepared, 1);
        CHECK_EQ(w.part.version, 1);
        CHECK_EQ(fps_load_relaxed(&s.arena.header->version), 3);
        CHECK_EQ(fps_load_relaxed(&s.other.seat->applied_seq), 2);
        check_stream(&s, 0, 8 + 2);
        drop_shard(&s);
    }
}

static void a_push_has_the_hyper_parameters_of_the_moment_it_enters(void)
{
    for (uint64_t stripe_bytes = MANY_STRIPES; stripe_bytes <= ONE_STRIPE; stripe_bytes <<= 8) {
        shard s;
        whole w;
        make_shard(&s, 3000, stripe_bytes, 1);
        memset(&seen, 0, sizeof seen);
        configure(&s.arena, 0, 1);
        prepare_seen_push(&w, &s.mine, s.ones);
        CHECK_EQ(run(&w), FPS_OK);
        check_stream(&s, 0, 1);
        configure(&s.arena, 0, 10);
        prepare_seen_push(&w, &s.mine, s.ones);
        w.call.wait.deadline_ns = FPS_NO_WAIT;
        block(&s, 0);
        CHECK_EQ(run(&w), FPS_BUSY); /* not inside yet */
        CHECK_EQ(seen.prepared, 1);
        unblock(&s, 0);
        configure(&s.arena, 0, 100);
        CHECK_EQ(run(&w), FPS_OK);
        check_stream(&s, 0, 101);
        CHECK_EQ(seen.prepared, 2);
        drop_shard(&s);
    }
}

static void *run_whole(void *argument)
{
    CHECK_EQ(run(argument), FPS_OK);
    return NULL;
}

static void configure_does_not_wait_for_a_push_that_is_further_in(void)
{
    shard s;
    whole w;
    pthread_t thread;
    make_shard(&s, 5000, MANY_STRIPES, 1);
    configure(&s.arena, 0, 5);
    prepare_seen_push(&w, &s.mine, s.ones);
    block(&s, 3);
    CHECK_EQ(pthread_create(&thread, NULL, run_whole, &w), 0);
    while (fps_load_acquire(&s.mine.seat->position) < 2 * MANY_STRIPES) nap_us(100);
    configure(&s.arena, 0, 50);
    unblock(&s, 3);
    pthread_join(thread, NULL);
    check_stream(&s, 0, 5);
    drop_shard(&s);
}

static void configure_waits_at_the_entry_of_the_shard(void)
{
    shard s;
    const double values[FPS_MAX_HYPER] = {1};
    double got[FPS_MAX_HYPER];
    make_shard(&s, 3000, MANY_STRIPES, 1);
    block(&s, 0);
    CHECK_EQ(fps_dense_configure(&s.arena, 0, 1, values, &no_wait), FPS_BUSY);
    fps_wait wait = wait_ms(5);
    CHECK_EQ(fps_dense_configure(&s.arena, 0, 1, values, &wait), FPS_TIMEOUT);
    fps_dense_hyper(&s.arena, 0, got);
    CHECK_FLOAT(got[0], 0.0);
    unblock(&s, 0);
    CHECK_EQ(fps_dense_configure(&s.arena, 0, 1, values, &wait), FPS_OK);
    block(&s, 0); /* it let go of the lock */
    unblock(&s, 0);
    CHECK_EQ(fps_load_relaxed(&s.arena.header->version), 0);
    drop_shard(&s);
}

static void configure_changes_the_named_values_of_one_rule(void)
{
    static const uint32_t masks[] = {0, 1, 2, 5, 0x8000, 0x7ffe, 0xffff};
    fps_arena arena = make_arena_with_slots(4096, 4096, 1, 1);
    double twin[FPS_MAX_RULES][FPS_MAX_HYPER] = {{0}}, values[FPS_MAX_HYPER], got[FPS_MAX_HYPER];
    for (uint32_t rule = 0; rule < FPS_MAX_RULES; rule++) {
        for (size_t m = 0; m < COUNT(masks); m++) {
            for (uint32_t i = 0; i < FPS_MAX_HYPER; i++) {
                values[i] = 0.1 * (double)(1000 * rule + 20 * m + i + 1); /* of no short binary form */
                if (masks[m] >> i & 1) twin[rule][i] = values[i];
            }
            CHECK_EQ(fps_dense_configure(&arena, rule, masks[m], values, &no_wait), FPS_OK);
            for (uint32_t other = 0; other < FPS_MAX_RULES; other++) {
                fps_dense_hyper(&arena, other, got);
                CHECK_EQ(memcmp(got, twin[other], sizeof got), 0);
            }
        }
    }
    drop_arena(&arena);
}

static void a_push_sees_all_hyper_parameters_of_its_rule(void)
{
    shard s;
    whole w;
    double values[FPS_MAX_HYPER];
    make_shard(&s, 100, MANY_STRIPES, 1);
    for (uint32_t rule = 0; rule < FPS_MAX_RULES; rule++) {
        for (uint32_t i = 0; i < FPS_MAX_HYPER; i++) values[i] = rule * 100 + i;
        CHECK_EQ(fps_dense_configure(&s.arena, rule, UINT32_MAX, values, &no_wait), FPS_OK);
    }
    for (uint32_t rule = 0; rule < FPS_MAX_RULES; rule++) {
        memset(&seen, 0, sizeof seen);
        prepare_seen_push(&w, &s.mine, s.ones);
        w.rule.number = rule;
        CHECK_EQ(run(&w), FPS_OK);
        for (uint32_t i = 0; i < FPS_MAX_HYPER; i++) CHECK_FLOAT(seen.hyper[i], rule * 100 + i);
    }
    drop_shard(&s);
}

static void configure_on_a_closed_arena_is_refused_and_changes_nothing(void)
{
    shard s;
    double got[FPS_MAX_HYPER];
    make_shard(&s, 3000, MANY_STRIPES, 1);
    configure(&s.arena, 3, 7);
    fps_arena_retire(&s.arena);
    CHECK_EQ(fps_dense_configure(&s.arena, 3, 1, (double[FPS_MAX_HYPER]){8}, &no_wait), FPS_CLOSED);
    fps_dense_hyper(&s.arena, 3, got);
    CHECK_FLOAT(got[0], 7.0);
    drop_shard(&s);
}

static void a_peer_reads_and_changes_the_same_hyper_parameters(void)
{
    fps_arena owner = make_arena_with_slots(4096, 4096, 1, 1), peer;
    double got[FPS_MAX_HYPER];
    CHECK_EQ(fps_arena_open(dup(owner.fd), owner.layout.arena_id, &peer), FPS_OK);
    configure(&owner, 1, 0.1);
    fps_dense_hyper(&peer, 1, got);
    CHECK_FLOAT(got[0], 0.1);
    configure(&peer, 1, 0.2);
    fps_dense_hyper(&owner, 1, got);
    CHECK_FLOAT(got[0], 0.2);
    fps_arena_close(&peer);
    drop_arena(&owner);
}

static void kernels_of_small_shards_do_not_prefetch_and_those_of_large_ones_a_block(void)
{
    static const struct {
        uint64_t n;
        uint32_t n_slots;
        int64_t ahead, longest;
    } cases[] = {{3000, 1, 0, 1024}, {(4 << 20) / 4, 1, 512, 512}, {(1 << 20) / 4, FPS_MAX_SLOTS, 512, 512}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        shard s;
        whole w;
        make_shard(&s, cases[i].n, 0, cases[i].n_slots);
        memset(&seen, 0, sizeof seen);
        prepare_seen_push(&w, &s.mine, s.ones);
        CHECK_EQ(run(&w), FPS_OK);
        CHECK_EQ(seen.ahead, cases[i].ahead);
        CHECK_EQ(seen.longest, cases[i].longest);
        drop_shard(&s);
    }
}

static int64_t ahead_of_doubles;

static int32_t note_ahead(const void *const *state, const void *grad, void *const *results, int64_t n, int64_t ahead,
                          const double *uniforms)
{
    ahead_of_doubles = ahead;
    return add_1_f64(state, grad, results, n, ahead, uniforms);
}

static void ahead_counts_elements_of_either_size(void)
{
    shard s;
    whole w;
    make_shard(&s, (4 << 20) / 4, 0, 1);
    prepare(&w, &s.mine, s.ones, NULL); /* as doubles they mean nothing, but they are not looked at */
    w.span.item_bytes = 8;
    w.rule.kernel = note_ahead;
    memset(s.ones, 0, s.n * 4);
    CHECK_EQ(run(&w), FPS_OK);
    CHECK_EQ(ahead_of_doubles, 256);
    drop_shard(&s);
}

/* p += g * pulled, for rules with `pulled_behind` slots. */
static uint32_t pulled_behind;

static int32_t add_pulled(const void *const *state, const void *grad, void *const *results, int64_t n, int64_t ahead,
                          const double *uniforms)
{
    const float *p = state[0], *g = grad, *pulled = state[1 + pulled_behind];
    float *r = results[0];
    (void)ahead, (void)uniforms;
    for (int64_t i = 0; i < n; i++) r[i] = p[i] + g[i] * pulled[i];
    for (uint32_t k = 1; k <= pulled_behind; k++) memcpy(results[k], pulled, (size_t)n * sizeof *pulled);
    return 0;
}

static void a_kernel_gets_the_pulled_parameters_behind_the_slots(void)
{
    static const uint32_t slots[] = {0, 1, 2, FPS_MAX_SLOTS};
    for (size_t i = 0; i < COUNT(slots) * 2; i++) {
        shard s;
        whole w;
        make_shard(&s, 5003, i % 2 ? MANY_STRIPES : ONE_STRIPE, slots[i / 2]);
        float *pulled = filled(s.n, 0);
        const void *buffers[] = {pulled};
        for (uint64_t k = 0; k < s.n; k++) pulled[k] = (float)k;
        pulled_behind = slots[i / 2];
        for (int pulls = 0; pulls < 2; pulls++) {
            prepare(&w, &s.mine, s.ones, pulls ? s.out : NULL);
            w.rule.kernel = add_pulled;
            w.call.pulled = buffers;
            CHECK_EQ(run(&w), FPS_OK);
        }
        for (uint64_t k = 0; k < s.n; k++) CHECK_FLOAT(s.out[k], 2 * (double)k);
        for (uint32_t k = 1; k <= pulled_behind; k++)
            CHECK_EQ(memcmp(fps_arena_stream(&s.arena, k), pulled, s.n * 4), 0);
        free(pulled);
        drop_shard(&s);
    }
}

/* The buffer that is pulled into may be the one that was pulled before: it is read in time. */
static void pulled_parameters_may_be_pulled_over(void)
{
    shard s;
    whole w;
    make_shard(&s, 20000, ONE_STRIPE, 0);
    const void *buffers[] = {s.out};
    for (uint64_t k = 0; k < s.n; k++) s.out[k] = (float)k;
    pulled_behind = 0;
    prepare(&w, &s.mine, s.ones, s.out);
    w.rule.kernel = add_pulled;
    w.call.pulled = buffers;
    CHECK_EQ(run(&w), FPS_OK);
    for (uint64_t k = 0; k < s.n; k++) CHECK_FLOAT(s.out[k], (double)k);
    drop_shard(&s);
}

static void a_push_pull_that_goes_on_pulls_what_lies_before_too(void)
{
    shard s;
    whole w;
    make_shard(&s, 5000, MANY_STRIPES, 2);
    prepare(&w, &s.mine, s.ones, s.out);
    w.call.wait.deadline_ns = FPS_NO_WAIT;
    block(&s, 2);
    CHECK_EQ(run(&w), FPS_BUSY);
    unblock(&s, 2);
    CHECK_EQ(push(&s.other, s.ones), FPS_OK);
    CHECK_EQ(run(&w), FPS_OK);
    check_all_equal(s.out, s.n, 2);
    for (uint32_t k = 0; k <= 2; k++) check_stream(&s, k, 2 * (float)(k + 1));
    drop_shard(&s);
}

static void without_isolation_slots_and_steps_are_the_same(void)
{
    fps_arena_spec spec = spec_of(12000, MANY_STRIPES, 2);
    spec.n_slots = 1;
    spec.isolation = FPS_ISOLATION_NONE;
    shard s = {.n = 3000};
    whole w;
    CHECK_EQ(fps_arena_create(&spec, &s.arena), FPS_OK);
    s.mine = open_session(&s.arena);
    s.other = open_session(&s.arena);
    s.ones = filled(s.n, 1);
    s.out = filled(s.n, -1);
    memset(&seen, 0, sizeof seen);
    configure(&s.arena, 0, 4);
    for (int i = 0; i < 3; i++) {
        prepare_seen_push(&w, i % 2 ? &s.mine : &s.other, s.ones);
        CHECK_EQ(run(&w), FPS_OK);
        CHECK_EQ(seen.prepared, i + 1);
        CHECK_FLOAT(seen.step[i], i + 1);
    }
    check_stream(&s, 0, 12);
    check_stream(&s, 1, 3);
    CHECK_EQ(set_stream(&s.mine, 1, s.ones), FPS_OK);
    check_stream(&s, 1, 1);
    CHECK_EQ(fps_load_relaxed(&s.arena.header->version), 3);
    CHECK_EQ(fps_load_relaxed(&s.mine.seat->begun_seq), 2); /* else the next owner would give this number to a push */
    CHECK_EQ(fps_load_relaxed(&s.mine.seat->applied_seq), 2);
    drop_shard(&s);
}

int main(void)
{
    static const test tests[] = {
        TEST(a_push_updates_parameters_and_slots_of_every_size),
        TEST(a_rule_with_fewer_slots_leaves_the_others_alone),
        TEST(a_shard_larger_than_a_cache_is_updated_in_all_its_slots),
        TEST(begin_sets_one_stream_of_one_run),
        TEST(each_slot_is_pulled_through_streams),
        TEST(a_pull_of_streams_passes_rules_without_one_over),
        TEST(a_set_of_streams_changes_those_and_no_others),
        TEST(several_streams_are_set_and_read_at_once),
        TEST(a_set_of_what_is_carried_writes_its_last_bytes),
        TEST(setting_counts_neither_as_a_push_nor_as_a_version),
        TEST(a_set_that_timed_out_half_way_goes_on),
        TEST(a_set_that_was_applied_is_not_applied_again),
        TEST(a_reader_of_a_slot_of_one_stripe_waits_for_a_writer_in_the_middle),
        TEST(a_set_moves_the_sequence_of_one_stripe_on),
        TEST(operations_on_slots_of_a_closed_arena_are_refused),
        TEST(uniforms_are_prepared_once_a_push_with_its_version_as_step),
        TEST(every_rule_of_a_part_has_uniforms_of_its_own),
        TEST(parts_of_a_call_have_the_steps_of_their_shards),
        TEST(a_push_that_goes_on_keeps_its_uniforms_and_its_step),
        TEST(a_push_that_goes_on_behind_a_later_one_of_its_session_is_counted_once),
        TEST(a_push_goes_on_in_another_session_as_it_began),
        TEST(a_push_has_the_hyper_parameters_of_the_moment_it_enters),
        TEST(configure_does_not_wait_for_a_push_that_is_further_in),
        TEST(configure_waits_at_the_entry_of_the_shard),
        TEST(configure_changes_the_named_values_of_one_rule),
        TEST(a_push_sees_all_hyper_parameters_of_its_rule),
        TEST(configure_on_a_closed_arena_is_refused_and_changes_nothing),
        TEST(a_peer_reads_and_changes_the_same_hyper_parameters),
        TEST(kernels_of_small_shards_do_not_prefetch_and_those_of_large_ones_a_block),
        TEST(ahead_counts_elements_of_either_size),
        TEST(a_kernel_gets_the_pulled_parameters_behind_the_slots),
        TEST(pulled_parameters_may_be_pulled_over),
        TEST(a_push_pull_that_goes_on_pulls_what_lies_before_too),
        TEST(without_isolation_slots_and_steps_are_the_same),
    };
    return run_tests(tests, COUNT(tests));
}

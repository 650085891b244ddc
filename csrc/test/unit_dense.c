#define _GNU_SOURCE
#include <fcntl.h>

#include "check.h"
#include "copy.h"
#include "fill.h"
#include "stripe.h"

#define MAX_SHARDS 3
#define MAX_SPANS 8
#define GUARD 0x5a

static const fps_rule rules[] = {{.kernel = add_f32, .prepare = prepare_nothing},
                                 {.kernel = add_f64, .prepare = prepare_nothing}};

static uint32_t random_number(uint32_t *state, uint32_t n)
{
    *state = *state * 1664525u + 1013904223u;
    return (uint32_t)(((uint64_t)*state * n) >> 32);
}

/* Shards of runs with gaps between them, and a naive twin of their parameters. Buffer 0 holds the float32, buffer 1 the
 * float64. */
typedef struct world {
    uint32_t n_shards;
    fps_arena arena[MAX_SHARDS];
    fps_session session[MAX_SHARDS];
    fps_span spans[MAX_SHARDS][MAX_SPANS];
    uint32_t n_spans[MAX_SHARDS];
    uint8_t *twin[MAX_SHARDS];
    uint64_t buffer_bytes[2];
    uint8_t *grads[2];
    uint8_t *outs[2]; /* one item further than malloc gave, and guarded */
    fps_part parts[MAX_SHARDS];
    double uniforms[MAX_SHARDS][COUNT(rules) * FPS_UNIFORMS];
    fps_call call;
} world;

typedef struct run_of {
    uint32_t n;
    uint32_t item_bytes;
    uint32_t gap_bytes; /* before it */
} run_of;

static void add_shard(world *w, const run_of *runs, uint32_t n_runs, uint32_t tail_bytes, uint64_t stripe_bytes)
{
    uint32_t shard = w->n_shards++;
    uint64_t position = 0;
    for (uint32_t i = 0; i < n_runs; i++) {
        uint32_t item = runs[i].item_bytes, buffer = item == 8;
        position = (position + runs[i].gap_bytes + item - 1) / item * item;
        uint64_t bytes = (uint64_t)runs[i].n * item;
        w->spans[shard][i] = (fps_span){.position = position,
                                        .bytes = bytes,
                                        .buffer_offset = w->buffer_bytes[buffer],
                                        .buffer = buffer,
                                        .rule = buffer,
                                        .item_bytes = item};
        w->buffer_bytes[buffer] += bytes;
        position += bytes;
    }
    position += tail_bytes;
    w->n_spans[shard] = n_runs;
    w->arena[shard] = make_arena(position, stripe_bytes, 2);
    w->session[shard] = open_session(&w->arena[shard]);
    w->twin[shard] = calloc(1, position);
    CHECK(w->twin[shard] != NULL);
}

static void set_item(uint8_t *at, uint32_t item_bytes, double value)
{
    float single = (float)value;
    memcpy(at, item_bytes == 8 ? (const void *)&value : (const void *)&single, item_bytes);
}

static double get_item(const uint8_t *at, uint32_t item_bytes)
{
    float single = 0;
    double value = 0;
    memcpy(item_bytes == 8 ? (void *)&value : (void *)&single, at, item_bytes);
    return item_bytes == 8 ? value : (double)single;
}

static void finish_world(world *w)
{
    for (int b = 0; b < 2; b++) {
        w->grads[b] = malloc(w->buffer_bytes[b] + 1);
        w->outs[b] = malloc(w->buffer_bytes[b] + 16);
        CHECK(w->grads[b] && w->outs[b]);
        w->outs[b] += 8;
    }
}

static void prepare_call(world *w, bool pushes, bool pulls)
{
    for (uint32_t i = 0; i < w->n_shards; i++)
        w->parts[i] = (fps_part){
            .session = &w->session[i], .spans = w->spans[i], .n_spans = w->n_spans[i], .uniforms = w->uniforms[i]};
    w->call = (fps_call){.kind = kind_of(pushes, pulls),
                         .grads = pushes ? (const void *const *)w->grads : NULL,
                         .outs = pulls ? (void *const *)w->outs : NULL,
                         .rules = rules,
                         .n_rules = COUNT(rules),
                         .parts = w->parts,
                         .n_parts = w->n_shards,
                         .wait = {.deadline_ns = FPS_NEVER}};
    for (int b = 0; b < 2; b++) memset(w->outs[b] - 8, GUARD, w->buffer_bytes[b] + 16);
}

static void randomise_grads(world *w, uint32_t *state)
{
    for (uint64_t at = 0; at < w->buffer_bytes[0]; at += 4)
        set_item(w->grads[0] + at, 4, (double)random_number(state, 1000) - 500);
    for (uint64_t at = 0; at < w->buffer_bytes[1]; at += 8)
        set_item(w->grads[1] + at, 8, (double)random_number(state, 1000) / 8);
}

static void push_to_twin(world *w)
{
    for (uint32_t s = 0; s < w->n_shards; s++) {
        for (uint32_t i = 0; i < w->n_spans[s]; i++) {
            const fps_span *span = &w->spans[s][i];
            for (uint64_t at = 0; at < span->bytes; at += span->item_bytes) {
                uint8_t *param = w->twin[s] + span->position + at;
                const uint8_t *grad = w->grads[span->buffer] + span->buffer_offset + at;
                set_item(param, span->item_bytes, get_item(param, span->item_bytes) + get_item(grad, span->item_bytes));
            }
        }
    }
}

static void check_params(const world *w)
{
    for (uint32_t s = 0; s < w->n_shards; s++)
        CHECK_EQ(memcmp(w->arena[s].params, w->twin[s], w->arena[s].layout.params_bytes), 0);
}

static void check_outs(const world *w)
{
    for (uint32_t s = 0; s < w->n_shards; s++) {
        for (uint32_t i = 0; i < w->n_spans[s]; i++) {
            const fps_span *span = &w->spans[s][i];
            CHECK_EQ(memcmp(w->outs[span->buffer] + span->buffer_offset, w->twin[s] + span->position, span->bytes), 0);
        }
    }
    for (int b = 0; b < 2; b++) {
        for (int i = 0; i < 8; i++) {
            CHECK_EQ(w->outs[b][i - 8], GUARD);
            CHECK_EQ(w->outs[b][w->buffer_bytes[b] + (uint64_t)i], GUARD);
        }
    }
}

static void run_and_check(world *w, bool pushes, bool pulls)
{
    uint32_t at;
    prepare_call(w, pushes, pulls);
    CHECK_EQ(fps_dense_run(&w->call, &at), FPS_OK);
    if (pushes) push_to_twin(w);
    if (pulls) check_outs(w);
    check_params(w);
    for (uint32_t i = 0; i < w->n_shards; i++) CHECK_EQ(w->parts[i].done, 1);
}

static void drop_world(world *w)
{
    for (uint32_t i = 0; i < w->n_shards; i++) {
        CHECK_EQ(fps_load_relaxed(&w->arena[i].stripes[0].sequence) & 1, 0);
        fps_session_close(&w->session[i]);
        drop_arena(&w->arena[i]);
        free(w->twin[i]);
    }
    for (int b = 0; b < 2; b++) {
        free(w->grads[b]);
        free(w->outs[b] - 8);
    }
}

static void check_world(world *w, uint32_t *state)
{
    finish_world(w);
    for (uint64_t i = 0; i < 2; i++) {
        randomise_grads(w, state);
        run_and_check(w, true, false);
        run_and_check(w, false, true);
        randomise_grads(w, state);
        run_and_check(w, true, true);
        for (uint32_t s = 0; s < w->n_shards; s++) CHECK_EQ(w->parts[s].version, 2 * i + 2);
    }
    drop_world(w);
}

static void every_size_agrees_with_the_naive_twin(void)
{
    const uint32_t sizes[] = {1, 2, 3, 1023, 1024, 1025, 1535, 2047, 2048, 2049, 5001, 33333};
    uint32_t state = 1;
    for (size_t i = 0; i < COUNT(sizes); i++) {
        for (uint32_t item = 4; item <= 8; item += 4) {
            for (uint64_t stripe = 4096; stripe <= 1 << 20; stripe <<= 4) {
                world w = {0};
                add_shard(&w, &(run_of){.n = sizes[i], .item_bytes = item}, 1, 0, stripe);
                check_world(&w, &state);
            }
        }
    }
}

static void random_runs_with_gaps_and_mixed_types_agree_with_the_naive_twin(void)
{
    uint32_t state = 2;
    for (int round = 0; round < 150; round++) {
        world w = {0};
        uint32_t n_shards = 1 + random_number(&state, MAX_SHARDS);
        for (uint32_t s = 0; s < n_shards; s++) {
            run_of runs[MAX_SPANS];
            uint32_t n = 1 + random_number(&state, MAX_SPANS);
            for (uint32_t i = 0; i < n; i++) {
                uint32_t large = random_number(&state, 3);
                runs[i] = (run_of){
                    .n = 1 + random_number(&state, large == 0   ? 4
                                                   : large == 1 ? 1500
                                                                : 9000),
                    .item_bytes = random_number(&state, 2) ? 8 : 4,
                    .gap_bytes = random_number(&state, 3) ? 0 : 4 * random_number(&state, 5000),
                };
            }
            uint32_t tail_bytes = random_number(&state, 4) ? 0 : 4 * random_number(&state, 3000);
            add_shard(&w, runs, n, tail_bytes, random_number(&state, 4) ? 4096u << random_number(&state, 3) : 1 << 20);
        }
        check_world(&w, &state);
    }
}

static void runs_that_touch_stripe_boundaries_agree_with_the_naive_twin(void)
{
    uint32_t state = 3;
    /* up to a boundary, from it, over two, and a gap that is a whole stripe */
    static const run_of runs[] = {{1024, 4, 0}, {512, 8, 0}, {1, 4, 4092}, {3000, 4, 0}, {1, 8, 8192}, {7, 4, 0}};
    for (uint64_t stripe = 4096; stripe <= 16384; stripe *= 2) {
        world w = {0};
        add_shard(&w, runs, COUNT(runs), 20000, stripe);
        check_world(&w, &state);
    }
}

static void a_shard_may_have_no_runs_in_a_call(void)
{
    uint32_t state = 4;
    world w = {0};
    add_shard(&w, &(run_of){.n = 2000, .item_bytes = 4}, 1, 0, 4096);
    add_shard(&w, NULL, 0, 9000, 4096);
    check_world(&w, &state);
}

static void fill_sets_the_runs_and_leaves_the_gaps(void)
{
    static const run_of runs[] = {{1500, 4, 8}, {3, 8, 100}};
    uint32_t state = 5;
    world w = {0};
    add_shard(&w, runs, COUNT(runs), 64, 4096);
    finish_world(&w);
    randomise_grads(&w, &state);
    const uint32_t params[COUNT(rules)] = {0};
    prepare_call(&w, true, false);
    w.call.streams = params;
    w.call.n_streams = 1;
    fps_fill(&w.call);
    push_to_twin(&w); /* to zeros: the same */
    check_params(&w);
    CHECK_EQ(fps_load_relaxed(&w.arena[0].header->version), 0);
    drop_world(&w);
}

/* From FPS_STREAM_BYTES on, outs are written past the caches. */
static void streamed_outs_hold_the_same_bytes_at_any_alignment(void)
{
    const size_t bytes = FPS_STREAM_BYTES + 4100;
    uint8_t *out = malloc(bytes + 64);
    float *grad = filled(bytes / 4, 0), *twin = filled(bytes / 4, 0);
    CHECK(out != NULL);
    fps_arena arena = make_arena(bytes, 0, 1);
    fps_session s = open_session(&arena);
    for (size_t i = 0; i < bytes / 4; i++) grad[i] = (float)(i % 1000);
    for (uint32_t offset = 0; offset < 32; offset += 7) { /* even to one that is no multiple of an element */
        whole w;
        prepare(&w, &s, offset % 2 ? grad : NULL, (float *)(void *)twin);
        w.outs[0] = out + offset;
        memset(out, GUARD, bytes + 64);
        CHECK_EQ(run(&w), FPS_OK);
        CHECK_EQ(memcmp(out + offset, arena.params, bytes), 0);
        for (uint32_t i = 0; i < offset; i++) CHECK_EQ(out[i], GUARD);
        for (uint32_t i = offset; i < 64; i++) CHECK_EQ(out[bytes + i], GUARD);
        if (offset % 2)
            for (size_t i = 0; i < bytes / 4; i++) twin[i] += grad[i];
        CHECK_EQ(memcmp(arena.params, twin, bytes), 0);
    }
    fps_session_close(&s);
    drop_arena(&arena);
    free(out);
    free(grad);
    free(twin);
}

static void a_streamed_copy_is_a_copy(void)
{
    uint8_t from[400], to[400];
    for (size_t i = 0; i < sizeof from; i++) from[i] = (uint8_t)i;
    for (size_t bytes = 0; bytes < 300; bytes++) {
        for (size_t a = 0; a < 17; a++) {
            memset(to, GUARD, sizeof to);
            fps_copy_stream(to + a, from + 3 * a, bytes);
            fps_copy_drain();
            CHECK_EQ(memcmp(to + a, from + 3 * a, bytes), 0);
            for (size_t i = 0; i < a; i++) CHECK_EQ(to[i], GUARD);
            for (size_t i = a + bytes; i < sizeof to; i++) CHECK_EQ(to[i], GUARD);
        }
    }
}

/* A shard of float32 with two sessions: a lock that `other` holds is in the way of `mine`. */
typedef struct shard {
    uint64_t n;
    fps_arena arena;
    fps_session mine, other;
    float *ones, *out;
} shard;

static void make_shard(shard *s, uint64_t n, uint64_t stripe_bytes, uint32_t isolation)
{
    fps_arena_spec spec = spec_of(n * 4, stripe_bytes, 2);
    spec.isolation = isolation;
    s->n = n;
    CHECK_EQ(fps_arena_create(&spec, &s->arena), FPS_OK);
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

static void check_value(shard *s, float value)
{
    CHECK_EQ(pull(&s->other, s->out), FPS_OK);
    check_all_equal(s->out, s->n, value);
}

static void block(shard *s, uint32_t stripe)
{
    fps_wait no_wait = {.deadline_ns = FPS_NO_WAIT};
    CHECK_EQ(fps_stripe_enter(&s->arena, stripe, &no_wait), FPS_OK);
}

static void unblock(shard *s, uint32_t stripe) { fps_stripe_leave(&s->arena, stripe); }

static void versions_count_pushes(void)
{
    for (uint64_t stripe_bytes = 4096; stripe_bytes <= 16384; stripe_bytes *= 4) {
        shard s;
        whole w;
        make_shard(&s, 4096, stripe_bytes, FPS_ISOLATION_SHARD);
        for (uint64_t i = 1; i <= 5; i++) {
            prepare(&w, i % 2 ? &s.mine : &s.other, s.ones, i == 3 ? s.out : NULL);
            CHECK_EQ(run(&w), FPS_OK);
            CHECK_EQ(w.part.version, i);
            prepare(&w, &s.mine, NULL, s.out);
            CHECK_EQ(run(&w), FPS_OK);
            CHECK_EQ(w.part.version, i);
        }
        CHECK_EQ(fps_load_relaxed(&s.arena.header->version), 5);
        CHECK_EQ(s.mine.seq, 3);
        CHECK_EQ(fps_load_relaxed(&s.mine.seat->begun_seq), 3);
        CHECK_EQ(fps_load_relaxed(&s.mine.seat->applied_seq), 3);
        CHECK_EQ(s.other.seq, 2);
        drop_shard(&s);
    }
}

static void no_wait_is_busy_at_every_stripe_and_goes_on_when_run_again(void)
{
    for (uint32_t stripe = 0; stripe < 4; stripe++) {
        for (int pulls = 0; pulls < 2; pulls++) {
            shard s;
            whole w;
            make_shard(&s, 4000, 4096, FPS_ISOLATION_SHARD);
            prepare(&w, &s.mine, s.ones, pulls ? s.out : NULL);
            w.call.wait.deadline_ns = FPS_NO_WAIT;
            block(&s, stripe);
            for (int i = 0; i < 2; i++) {
                CHECK_EQ(run(&w), FPS_BUSY);
                CHECK_EQ(w.at, 0);
                CHECK_EQ(w.part.done, 0);
                CHECK_EQ(w.part.position, stripe * 4096);
                CHECK_EQ(w.part.seq, 1);
            }
            unblock(&s, stripe);
            CHECK_EQ(run(&w), FPS_OK);
            CHECK_EQ(w.part.done, 1);
            CHECK_EQ(w.part.version, 1);
            CHECK_EQ(run(&w), FPS_OK); /* nothing is left to do */
            if (pulls) check_all_equal(s.out, s.n, 1);
            check_value(&s, 1);
            CHECK_EQ(fps_load_relaxed(&s.arena.header->version), 1);
            CHECK_EQ(fps_load_relaxed(&s.arena.header->recovered_locks), 0);
            CHECK_EQ(s.mine.seq, 1);
            drop_shard(&s);
        }
    }
}

static void a_push_that_timed_out_half_way_is_completed_exactly_once(void)
{
    shard s;
    whole w;
    make_shard(&s, 5000, 4096, FPS_ISOLATION_SHARD);
    prepare(&w, &s.mine, s.ones, NULL);
    block(&s, 2);
    w.call.wait = wait_ms(10);
    int64_t deadline = w.call.wait.deadline_ns;
    CHECK_EQ(run(&w), FPS_TIMEOUT);
    CHECK(fps_now_ns() >= deadline);
    CHECK_EQ(w.part.position, 8192);
    CHECK_EQ(fps_load_relaxed(&s.mine.seat->position), 8192);
    unblock(&s, 2);
    CHECK_EQ(push(&s.other, s.ones), FPS_OK); /* another push passes in between */
    w.call.wait.deadline_ns = FPS_NEVER;
    CHECK_EQ(run(&w), FPS_OK);
    check_value(&s, 2);
    CHECK_EQ(fps_load_relaxed(&s.mine.seat->applied_seq), 1);
    CHECK_EQ(fps_load_relaxed(&s.arena.header->version), 2);
    CHECK_EQ(fps_load_relaxed(&s.arena.header->interrupted_pushes), 0);
    for (uint32_t i = 0; i < s.arena.layout.n_stripes; i++) CHECK_EQ(fps_load32_relaxed(&s.arena.stripes[i].writer), 0);
    drop_shard(&s);
}

static void a_pull_that_timed_out_half_way_starts_over(void)
{
    shard s;
    whole w;
    make_shard(&s, 5000, 4096, FPS_ISOLATION_SHARD);
    prepare(&w, &s.mine, NULL, s.out);
    block(&s, 3);
    w.call.wait = wait_ms(10);
    CHECK_EQ(run(&w), FPS_TIMEOUT);
    CHECK_EQ(w.part.position, 0);
    CHECK_EQ(w.part.done, 0);
    unblock(&s, 3);
    CHECK_EQ(push(&s.other, s.ones), FPS_OK);
    w.call.wait.deadline_ns = FPS_NEVER;
    CHECK_EQ(run(&w), FPS_OK);
    check_all_equal(s.out, s.n, 1);
    CHECK_EQ(w.part.version, 1);
    drop_shard(&s);
}

static int stop_at_once(void *asked)
{
    *(int *)asked = 1;
    return 1;
}

static void a_push_is_interrupted_before_it_begins_and_not_in_the_middle(void)
{
    shard s;
    whole w;
    int asked = 0;
    make_shard(&s, 3000, 4096, FPS_ISOLATION_SHARD);
    prepare(&w, &s.mine, s.ones, NULL);
    w.call.wait = (fps_wait){.deadline_ns = FPS_NEVER, .interrupted = stop_at_once, .state = &asked};
    block(&s, 0);
    CHECK_EQ(run(&w), FPS_INTERRUPTED);
    CHECK_EQ(asked, 1);
    CHECK_EQ(w.part.position, 0);
    unblock(&s, 0);
    w.call.wait.deadline_ns = fps_now_ns() + 200000000;
    block(&s, 1);
    CHECK_EQ(run(&w), FPS_TIMEOUT);
    CHECK_EQ(asked, 1);
    CHECK_EQ(w.part.position, 4096);
    unblock(&s, 1);
    CHECK_EQ(run(&w), FPS_OK);
    check_value(&s, 1);
    drop_shard(&s);
}

/* The owner of a stripe's lock lets go only when the other shards have been done. */
typedef struct patient {
    shard *busy, *others;
    fps_word32 held;
} patient;

static void *let_go_when_others_are_done(void *argument)
{
    patient *p = argument;
    block(p->busy, 0);
    fps_store32_release(&p->held, 1);
    for (int i = 0; i < 2; i++)
        while (fps_load_relaxed(&p->others[i].mine.seat->applied_seq) == 0) nap_us(100);
    unblock(p->busy, 0);
    return NULL;
}

static void a_busy_shard_is_passed_over_and_done_later(void)
{
    shard s[3];
    whole w[3];
    fps_part parts[3];
    patient p = {.busy = &s[0], .others = &s[1]};
    uint32_t at;
    pthread_t thread;
    for (int i = 0; i < 3; i++) {
        make_shard(&s[i], 3000, i == 1 ? 1 << 20 : 4096, FPS_ISOLATION_SHARD);
        prepare(&w[i], &s[i].mine, s[i].ones, NULL);
        parts[i] = w[i].part;
    }
    CHECK_EQ(pthread_create(&thread, NULL, let_go_when_others_are_done, &p), 0);
    await(&p.held, 1);
    fps_call call = w[0].call;
    call.parts = parts;
    call.n_parts = 3;
    CHECK_EQ(fps_dense_run(&call, &at), FPS_OK);
    pthread_join(thread, NULL);
    for (int i = 0; i < 3; i++) {
        check_value(&s[i], 1);
        drop_shard(&s[i]);
    }
}

static void a_timeout_says_which_part_could_not_go_on(void)
{
    shard s[3];
    whole w[3];
    fps_part parts[3];
    uint32_t at;
    for (int i = 0; i < 3; i++) {
        make_shard(&s[i], 3000, 4096, FPS_ISOLATION_SHARD);
        prepare(&w[i], &s[i].mine, s[i].ones, NULL);
        parts[i] = w[i].part;
    }
    block(&s[1], 0);
    fps_call call = w[0].call;
    call.parts = parts;
    call.n_parts = 3;
    call.first = 2;
    call.wait = wait_ms(5);
    CHECK_EQ(fps_dense_run(&call, &at), FPS_TIMEOUT);
    CHECK_EQ(at, 1);
    CHECK(parts[0].done && !parts[1].done && parts[2].done);
    unblock(&s[1], 0);
    call.wait.deadline_ns = FPS_NEVER;
    CHECK_EQ(fps_dense_run(&call, &at), FPS_OK);
    for (int i = 0; i < 3; i++) {
        check_value(&s[i], 1);
        drop_shard(&s[i]);
    }
}

static void a_push_pull_whose_pull_is_late_says_that_it_is_applied(void)
{
    shard s;
    whole w;
    make_shard(&s, 5000, 4096, FPS_ISOLATION_SHARD);
    prepare(&w, &s.mine, s.ones, s.out);
    w.call.wait.deadline_ns = FPS_NO_WAIT;
    block(&s, 2);
    CHECK_EQ(run(&w), FPS_BUSY);
    CHECK(!w.part.applied && w.part.position > 0);
    unblock(&s, 2);
    block(&s, 0); /* the push is behind it, the pull has to come by */
    w.call.wait = wait_ms(5);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(run(&w), FPS_TIMEOUT);
        CHECK(w.part.applied && !w.part.done);
    }
    unblock(&s, 0);
    CHECK_EQ(run(&w), FPS_OK);
    check_all_equal(s.out, s.n, 1);
    check_value(&s, 1);
    drop_shard(&s);
}

static void *retire_soon(void *argument)
{
    nap_us(20000);
    fps_arena_retire(argument);
    return NULL;
}

/* Whoever holds the lock may be stopped for ever, and its deadline far away. */
static void who_waits_for_a_lock_hears_that_the_arena_is_closed(void)
{
    for (uint32_t stripe = 0; stripe < 2; stripe++) {
        shard s;
        pthread_t thread;
        whole w;
        make_shard(&s, 3000, 4096, FPS_ISOLATION_SHARD);
        prepare(&w, &s.mine, s.ones, NULL);
        block(&s, stripe);
        CHECK_EQ(pthread_create(&thread, NULL, retire_soon, &s.arena), 0);
        CHECK_EQ(run(&w), FPS_CLOSED);
        pthread_join(thread, NULL);
        unblock(&s, stripe);
        drop_shard(&s);
    }
}

static void every_first_part_gives_the_same_result(void)
{
    for (uint32_t first = 0; first < 3; first++) {
        static const run_of runs[] = {{1500, 4, 8}, {3, 8, 100}};
        uint32_t state = 6, at;
        world w = {0};
        for (int i = 0; i < 3; i++) add_shard(&w, runs, COUNT(runs), 0, 4096);
        finish_world(&w);
        randomise_grads(&w, &state);
        prepare_call(&w, true, true);
        w.call.first = first;
        CHECK_EQ(fps_dense_run(&w.call, &at), FPS_OK);
        push_to_twin(&w);
        check_outs(&w);
        check_params(&w);
        drop_world(&w);
    }
}

static void an_operation_on_a_closed_arena_is_refused(void)
{
    shard s;
    make_shard(&s, 3000, 4096, FPS_ISOLATION_SHARD);
    fps_arena_retire(&s.arena);
    CHECK_EQ(push(&s.mine, s.ones), FPS_CLOSED);
    CHECK_EQ(pull(&s.mine, s.out), FPS_CLOSED);
    check_all_equal(s.out, s.n, -1);
    CHECK_EQ(fps_load_relaxed(&s.arena.header->version), 0);
    drop_shard(&s);
}

typedef struct owned {
    fps_word32 fd;
    fps_word32 ready;
} owned;

static void own_an_arena(void *argument)
{
    owned *o = argument;
    fps_arena arena = make_arena(12000, 4096, 2);
    fps_store32_relaxed(&o->fd, (uint32_t)arena.fd);
    fps_store32_release(&o->ready, 1);
    for (;;) pause();
}

static void an_operation_on_the_arena_of_a_dead_owner_is_refused(void)
{
    owned *o = share(sizeof *o);
    shard s = {.n = 3000};
    char path[64];
    pid_t pid = start_process(own_an_arena, o);
    await(&o->ready, 1);
    snprintf(path, sizeof path, "/proc/%d/fd/%u", pid, fps_load32_relaxed(&o->fd));
    fps_arena_spec spec = spec_of(12000, 4096, 2);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    CHECK_EQ(fps_arena_open(fd, spec.arena_id, &s.arena), FPS_OK);
    s.mine = open_session(&s.arena);
    s.other = open_session(&s.arena);
    s.ones = filled(s.n, 1);
    s.out = filled(s.n, -1);
    CHECK_EQ(push(&s.mine, s.ones), FPS_OK);
    kill_process(pid);
    CHECK_EQ(push(&s.mine, s.ones), FPS_OWNER_DIED);
    CHECK_EQ(pull(&s.mine, s.out), FPS_OWNER_DIED);
    drop_shard(&s); /* its retire does nothing: we are not the owner */
    munmap(o, sizeof *o);
}

static void a_number_that_was_applied_is_not_applied_again(void)
{
    for (uint32_t isolation = 0; isolation < 2; isolation++) {
        shard s;
        whole w;
        make_shard(&s, 3000, 4096, isolation);
        CHECK_EQ(push(&s.mine, s.ones), FPS_OK);
        for (int i = 0; i < 2; i++) {
            prepare(&w, &s.mine, s.ones, NULL);
            w.part.seq = 1;
            CHECK_EQ(run(&w), FPS_OK);
            CHECK_EQ(w.part.done, 1);
        }
        check_value(&s, 1);
        CHECK_EQ(fps_load_relaxed(&s.arena.header->version), 1);
        CHECK_EQ(fps_load_relaxed(&s.mine.seat->meters.pushes), 1);
        drop_shard(&s);
    }
}

static void a_repeated_push_pull_only_pulls(void)
{
    for (uint64_t stripe_bytes = 4096; stripe_bytes <= 16384; stripe_bytes *= 4) {
        shard s;
        whole w;
        make_shard(&s, 3000, stripe_bytes, FPS_ISOLATION_SHARD);
        CHECK_EQ(push(&s.mine, s.ones), FPS_OK);
        CHECK_EQ(push(&s.other, s.ones), FPS_OK);
        prepare(&w, &s.mine, s.ones, s.out);
        w.part.seq = 1;
        CHECK_EQ(run(&w), FPS_OK);
        check_all_equal(s.out, s.n, 2);
        CHECK_EQ(w.part.version, 2);
        check_value(&s, 2);
        drop_shard(&s);
    }
}

static void an_older_number_is_not_applied_again(void)
{
    shard s;
    whole w;
    make_shard(&s, 3000, 4096, FPS_ISOLATION_SHARD);
    for (int i = 0; i < 2; i++) CHECK_EQ(push(&s.mine, s.ones), FPS_OK);
    prepare(&w, &s.mine, s.ones, NULL);
    w.part.seq = 1;
    run(&w);
    check_value(&s, 2);
    drop_shard(&s);
}

static void a_number_that_the_caller_chose_is_followed_by_the_next(void)
{
    shard s;
    whole w;
    make_shard(&s, 3000, 4096, FPS_ISOLATION_SHARD);
    prepare(&w, &s.mine, s.ones, NULL);
    w.part.seq = 7;
    CHECK_EQ(run(&w), FPS_OK);
    CHECK_EQ(push(&s.mine, s.ones), FPS_OK);
    CHECK_EQ(fps_load_relaxed(&s.mine.seat->applied_seq), 8);
    check_value(&s, 2);
    drop_shard(&s);
}

static void meters_count_finished_operations_and_their_bytes(void)
{
    for (uint64_t stripe_bytes = 4096; stripe_bytes <= 16384; stripe_bytes *= 4) {
        shard s;
        whole w;
        make_shard(&s, 3000, stripe_bytes, FPS_ISOLATION_SHARD);
        fps_meters *m = &s.mine.seat->meters;
        for (int i = 0; i < 3; i++) CHECK_EQ(push(&s.mine, s.ones), FPS_OK);
        for (int i = 0; i < 2; i++) CHECK_EQ(pull(&s.mine, s.out), FPS_OK);
        prepare(&w, &s.mine, s.ones, s.out);
        CHECK_EQ(run(&w), FPS_OK);
        block(&s, 0);
        prepare(&w, &s.mine, s.ones, NULL);
        w.call.wait = wait_ms(5);
        CHECK_EQ(run(&w), FPS_TIMEOUT);
        unblock(&s, 0);
        CHECK_EQ(fps_load_relaxed(&m->pushes), 3);
        CHECK_EQ(fps_load_relaxed(&m->pulls), 2);
        CHECK_EQ(fps_load_relaxed(&m->push_pulls), 1);
        CHECK_EQ(fps_load_relaxed(&m->bytes_written), 4 * 12000);
        CHECK_EQ(fps_load_relaxed(&m->bytes_read), 3 * 12000);
        CHECK_EQ(fps_load_relaxed(&m->lock_waits), 1);
        CHECK_EQ(fps_load_relaxed(&m->lock_sleeps), 1);
        CHECK(fps_load_relaxed(&m->lock_wait_ns) > 0);
        CHECK_EQ(fps_load_relaxed(&s.other.seat->meters.pushes), 0);
        drop_shard(&s);
    }
}

static void a_reader_of_one_stripe_is_not_stopped_by_a_held_lock(void)
{
    shard s;
    whole w;
    make_shard(&s, 1000, 4096, FPS_ISOLATION_SHARD);
    CHECK_EQ(push(&s.mine, s.ones), FPS_OK);
    block(&s, 0);
    prepare(&w, &s.mine, NULL, s.out);
    w.call.wait.deadline_ns = FPS_NO_WAIT;
    CHECK_EQ(run(&w), FPS_OK);
    check_all_equal(s.out, s.n, 1);
    unblock(&s, 0);
    drop_shard(&s);
}

static void a_reader_of_one_stripe_waits_for_a_writer_in_the_middle(void)
{
    shard s;
    whole w;
    make_shard(&s, 1000, 4096, FPS_ISOLATION_SHARD);
    fps_word *sequence = &s.arena.stripes[0].sequence;
    block(&s, 0);
    fps_store_release(sequence, fps_load_relaxed(sequence) + 1);
    prepare(&w, &s.mine, NULL, s.out);
    w.call.wait = wait_ms(5);
    CHECK_EQ(run(&w), FPS_TIMEOUT);
    CHECK(fps_load_relaxed(&s.mine.seat->meters.read_retries) > 0);
    check_all_equal(s.out, s.n, -1);
    fps_store_release(sequence, fps_load_relaxed(sequence) + 1);
    unblock(&s, 0);
    CHECK_EQ(run(&w), FPS_OK);
    check_all_equal(s.out, s.n, 0);
    drop_shard(&s);
}

static void without_isolation_nobody_waits_for_a_lock(void)
{
    shard s;
    whole w;
    make_shard(&s, 3000, 4096, FPS_ISOLATION_NONE);
    for (uint32_t i = 0; i < s.arena.layout.n_stripes; i++) block(&s, i);
    for (uint64_t i = 1; i <= 3; i++) {
        prepare(&w, &s.mine, s.ones, i == 2 ? s.out : NULL);
        w.call.wait.deadline_ns = FPS_NO_WAIT;
        CHECK_EQ(run(&w), FPS_OK);
        CHECK_EQ(w.part.version, i);
        if (i == 2) check_all_equal(s.out, s.n, 2);
    }
    prepare(&w, &s.mine, NULL, s.out);
    CHECK_EQ(run(&w), FPS_OK);
    CHECK_EQ(w.part.version, 3);
    check_all_equal(s.out, s.n, 3);
    CHECK_EQ(fps_load_relaxed(&s.mine.seat->applied_seq), 3);
    CHECK_EQ(fps_load_relaxed(&s.mine.seat->meters.lock_waits), 0);
    for (uint32_t i = 0; i < s.arena.layout.n_stripes; i++) unblock(&s, i);
    drop_shard(&s);
}

int main(void)
{
    static const test tests[] = {
        TEST(every_size_agrees_with_the_naive_twin),
        TEST(random_runs_with_gaps_and_mixed_types_agree_with_the_naive_twin),
        TEST(runs_that_touch_stripe_boundaries_agree_with_the_naive_twin),
        TEST(a_shard_may_have_no_runs_in_a_call),
        TEST(fill_sets_the_runs_and_leaves_the_gaps),
        TEST(streamed_outs_hold_the_same_bytes_at_any_alignment),
        TEST(a_streamed_copy_is_a_copy),
        TEST(versions_count_pushes),
        TEST(no_wait_is_busy_at_every_stripe_and_goes_on_when_run_again),
        TEST(a_push_that_timed_out_half_way_is_completed_exactly_once),
        TEST(a_pull_that_timed_out_half_way_starts_over),
        TEST(a_push_is_interrupted_before_it_begins_and_not_in_the_middle),
        TEST(a_busy_shard_is_passed_over_and_done_later),
        TEST(a_timeout_says_which_part_could_not_go_on),
        TEST(a_push_pull_whose_pull_is_late_says_that_it_is_applied),
        TEST(who_waits_for_a_lock_hears_that_the_arena_is_closed),
        TEST(every_first_part_gives_the_same_result),
        TEST(an_operation_on_a_closed_arena_is_refused),
        TEST(an_operation_on_the_arena_of_a_dead_owner_is_refused),
        TEST(a_number_that_was_applied_is_not_applied_again),
        TEST(a_repeated_push_pull_only_pulls),
        TEST(an_older_number_is_not_applied_again),
        TEST(a_number_that_the_caller_chose_is_followed_by_the_next),
        TEST(meters_count_finished_operations_and_their_bytes),
        TEST(a_reader_of_one_stripe_is_not_stopped_by_a_held_lock),
        TEST(a_reader_of_one_stripe_waits_for_a_writer_in_the_middle),
        TEST(without_isolation_nobody_waits_for_a_lock),
    };
    return run_tests(tests, COUNT(tests));
}

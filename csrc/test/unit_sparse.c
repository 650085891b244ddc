#define _GNU_SOURCE
#include <fcntl.h>

#include "copy.h"
#include "initial.h"
#include "tables.h"

#define MAX_SHARDS 3u
#define MAX_KEYS 120u /* that a world knows */
#define MAX_BATCH 64u
#define GUARD 0x5a

/* Fails from the call on that makes this 0. */
static uint32_t allocations_left = UINT32_MAX;

int posix_fallocate(int fd, off_t from, off_t bytes)
{
    if (allocations_left == 0) return ENOSPC;
    if (allocations_left != UINT32_MAX) allocations_left--;
    return fallocate(fd, 0, from, bytes) == 0 ? 0 : errno;
}

/* A rule that tells everything apart: the order of gradients, their sum from their parts, a push from two. A slot that
 * is one value for the row takes the gradient's first element. */
static uint32_t slots_of_rule, row_slots_of_rule;

#define MIXES(name, type)                                                                                              \
    static int32_t name(const void *const *state, const void *grad, void *const *results, int64_t n, int64_t ahead,    \
                        const double *uniforms)                                                                        \
    {                                                                                                                  \
        const type *g = grad;                                                                                          \
        for (int64_t i = 0; i < n; i++)                                                                                \
            ((type *)results[0])[i] = ((const type *)state[0])[i] * (type)0.5 + g[i] * (type)uniforms[0];              \
        for (uint32_t k = 1; k <= slots_of_rule; k++)                                                                  \
            for (int64_t i = 0; i < (row_slots_of_rule >> (k - 1) & 1 ? 1 : n); i++)                                   \
                ((type *)results[k])[i] = ((const type *)state[k])[i] * (type)0.25 + g[i] * g[i] + (type)k;            \
        return (int32_t)(0 * ahead);                                                                                   \
    }

MIXES(mix_f32, float)
MIXES(mix_f64, double)

static int32_t prepare_mix(const double *hyper, double step, double *uniforms)
{
    uniforms[0] = hyper[0] + 0.125 * step;
    return 0;
}

/* Shards of a table, and a naive twin of their rows. */
typedef struct world {
    uint32_t n_shards;
    fps_table_layout layout;
    fps_arena arena[MAX_SHARDS];
    fps_session session[MAX_SHARDS];
    fps_batch batch[MAX_SHARDS];
    fps_table t; /* any shard's: where streams lie in a row */
    uint64_t universe[MAX_KEYS];
    bool live[MAX_KEYS];
    uint8_t *twin; /* rows, without their heads */
    uint64_t pushes[MAX_SHARDS];

    /* of the operation under way */
    uint32_t n, which[MAX_BATCH];
    uint64_t keys[MAX_BATCH], split[MAX_BATCH];
    uint32_t places[MAX_BATCH];
    uint8_t *grads, *outs, *streams[1 + FPS_MAX_SLOTS];
    const uint8_t *set[1 + FPS_MAX_SLOTS];
    fps_sparse_part parts[MAX_SHARDS];
    fps_rule rule;
    fps_sparse_call call;
} world;

static uint8_t *twin_of(const world *w, uint32_t i, uint32_t stream)
{
    return w->twin + i * w->t.layout.row_bytes + (w->t.at[stream] - w->t.head_bytes);
}

static uint32_t shard_of(const world *w, uint32_t i) { return fps_hash_shard(fps_hash(w->universe[i]), w->n_shards); }

/* Every fifth key shares its tag with others, and every eleventh its whole upper half with all of them. */
static void make_world(world *w, fps_table_layout layout, uint32_t n_shards)
{
    memset(w, 0, sizeof *w);
    w->n_shards = n_shards;
    w->layout = layout;
    for (uint32_t s = 0; s < n_shards; s++) {
        w->arena[s] = make_table(layout, 2);
        w->session[s] = open_session(&w->arena[s]);
        const double hyper[FPS_MAX_HYPER] = {1};
        CHECK_EQ(
            fps_table_configure(&w->arena[s], &w->arena[s].tables[0], 1, hyper, &(fps_wait){.deadline_ns = FPS_NEVER}),
            FPS_OK);
    }
    w->t = w->arena[0].tables[0];
    for (uint32_t i = 0; i < MAX_KEYS; i++) {
        w->universe[i] = i * UINT64_C(0x10000000001);
        if (i % 5 == 0) w->universe[i] = key_of_tag(i % 4 * 0x55555555, i * 0x2000000);
        if (i % 11 == 0) w->universe[i] = key_of_tag(0, i * 0x2000000 + 1);
    }
    w->twin = calloc(MAX_KEYS, w->t.layout.row_bytes);
    w->grads = malloc(MAX_BATCH * w->t.bytes[0]);
    w->outs = malloc(MAX_BATCH * w->t.bytes[0] + 16);
    CHECK(w->twin && w->grads && w->outs);
    for (uint32_t k = 0; k <= layout.n_slots; k++) CHECK((w->streams[k] = malloc(MAX_KEYS * w->t.bytes[k])) != NULL);
    w->rule = (fps_rule){
        .kernel = layout.item_bytes == 4 ? mix_f32 : mix_f64, .prepare = prepare_mix, .n_slots = layout.n_slots};
    slots_of_rule = layout.n_slots;
    row_slots_of_rule = layout.row_slots;
}

static void drop_world(world *w)
{
    for (uint32_t s = 0; s < w->n_shards; s++) {
        fps_batch_free(&w->batch[s]);
        fps_session_close(&w->session[s]);
        drop_arena(&w->arena[s]);
    }
    for (uint32_t k = 0; k <= w->layout.n_slots; k++) free(w->streams[k]);
    free(w->twin);
    free(w->grads);
    free(w->outs);
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

static void fill_randomly(uint64_t *state, uint8_t *bytes, uint64_t n, uint32_t item_bytes)
{
    for (uint64_t at = 0; at < n; at += item_bytes)
        set_item(bytes + at, item_bytes, (double)random_below(state, 1u << 20) / 1000 - 300);
}

static void pick_keys(world *w, uint64_t *state)
{
    w->n = 1 + random_below(state, MAX_BATCH);
    uint32_t among = random_below(state, 3) ? MAX_KEYS : 1 + random_below(state, 8);
    for (uint32_t i = 0; i < w->n; i++) {
        w->which[i] = (random_below(state, among) * 7 + 3) % MAX_KEYS;
        w->keys[i] = w->universe[w->which[i]];
    }
}

static void prepare_world(world *w, bool pushes, bool pulls)
{
    uint32_t starts[MAX_SHARDS + 1];
    fps_batch_split(w->keys, w->n, w->n_shards, w->split, w->places, starts);
    for (uint32_t s = 0; s < w->n_shards; s++) {
        w->parts[s] = (fps_sparse_part){.session = &w->session[s],
                                        .keys = w->split + starts[s],
                                        .places = w->places + starts[s],
                                        .n = starts[s + 1] - starts[s],
                                        .batch = &w->batch[s]};
        if (w->n_shards == 1) w->parts[s].keys = w->keys, w->parts[s].places = NULL;
    }
    w->call = (fps_sparse_call){.kind = kind_of(pushes, pulls),
                                .grads = pushes ? w->grads : NULL,
                                .outs = pulls ? w->outs + 8 : NULL,
                                .rule = &w->rule,
                                .create = true,
                                .parts = w->parts,
                                .n_parts = w->n_shards,
                                .wait = {.deadline_ns = FPS_NEVER}};
    memset(w->outs, GUARD, MAX_BATCH * w->t.bytes[0] + 16);
}

static void bear_twin(world *w, uint32_t i)
{
    if (w->live[i]) return;
    fps_initial_fill(&w->layout, w->universe[i], twin_of(w, i, 0));
    for (uint32_t k = 1; k <= w->layout.n_slots; k++)
        for (uint32_t at = 0; at < w->t.bytes[k]; at += w->layout.item_bytes)
            set_item(twin_of(w, i, k) + at, w->layout.item_bytes, w->layout.slots[k - 1]);
    w->live[i] = true;
}

static bool first_place(const world *w, uint32_t i)
{
    for (uint32_t k = 0; k < i; k++)
        if (w->which[k] == w->which[i]) return false;
    return true;
}

/* The sum of a key's gradients, in their order and in their type. */
static void sum_grads(const world *w, uint32_t key, uint8_t *sum)
{
    const uint32_t item = w->layout.item_bytes;
    bool first = true;
    for (uint32_t i = 0; i < w->n; i++) {
        if (w->which[i] != key) continue;
        const uint8_t *grad = w->grads + i * w->t.bytes[0];
        for (uint32_t at = 0; at < w->t.bytes[0]; at += item)
            set_item(sum + at, item, (first ? 0 : get_item(sum + at, item)) + get_item(grad + at, item));
        first = false;
    }
}

static void push_to_twin(world *w)
{
    uint8_t *sum = malloc(w->t.bytes[0]), *old = malloc(w->t.layout.row_bytes);
    CHECK(sum && old);
    for (uint32_t s = 0; s < w->n_shards; s++) w->pushes[s]++;
    for (uint32_t i = 0; i < w->n; i++) {
        if (!first_place(w, i)) continue;
        const uint32_t key = w->which[i];
        double uniforms[FPS_UNIFORMS];
        const void *state[1 + FPS_MAX_SLOTS];
        void *results[1 + FPS_MAX_SLOTS];
        bear_twin(w, key);
        memcpy(old, twin_of(w, key, 0), w->t.layout.row_bytes - w->t.head_bytes);
        for (uint32_t k = 0; k <= w->layout.n_slots; k++) {
            state[k] = old + (w->t.at[k] - w->t.head_bytes);
            results[k] = twin_of(w, key, k);
        }
        prepare_mix((const double[FPS_MAX_HYPER]){1}, (double)w->pushes[shard_of(w, key)], uniforms);
        sum_grads(w, key, sum);
        w->rule.kernel(state, sum, results, w->layout.dim, 0, uniforms);
    }
    free(sum);
    free(old);
}

static void check_outs(const world *w, bool create)
{
    const uint32_t bytes = w->t.bytes[0];
    uint8_t *first = malloc(bytes);
    CHECK(first != NULL);
    for (uint32_t i = 0; i < w->n; i++) {
        const uint32_t key = w->which[i];
        CHECK(w->live[key] || !create);
        fps_initial_fill(&w->layout, w->keys[i], first);
        CHECK_EQ(memcmp(w->outs + 8 + i * bytes, w->live[key] ? twin_of(w, key, 0) : first, bytes), 0);
    }
    free(first);
    for (uint32_t i = 0; i < 8; i++) {
        CHECK_EQ(w->outs[i], GUARD);
        CHECK_EQ(w->outs[8 + w->n * bytes + i], GUARD);
    }
}

/* All rows of all shards, by a scan, a search and the counts. */
static void check_world(const world *w)
{
    uint32_t live = 0;
    for (uint32_t s = 0; s < w->n_shards; s++) {
        const fps_table *t = &w->arena[s].tables[0];
        uint64_t keys[MAX_KEYS];
        uint32_t n = scan_rows(&w->arena[s], 0, 7, keys, w->streams);
        CHECK_EQ(n, live_of(t));
        for (uint32_t row = 0; row < n; row++) {
            uint32_t i = 0;
            while (i < MAX_KEYS && w->universe[i] != keys[row]) i++;
            CHECK(i < MAX_KEYS && w->live[i]);
            CHECK_EQ(shard_of(w, i), s);
            for (uint32_t k = 0; k <= w->layout.n_slots; k++)
                CHECK_EQ(memcmp(w->streams[k] + row * t->bytes[k], twin_of(w, i, k), t->bytes[k]), 0);
        }
        CHECK_EQ(fps_load_relaxed(&t->control->version), w->pushes[s]);
        check_table(t);
        live += n;
    }
    for (uint32_t i = 0; i < MAX_KEYS; i++) {
        uint32_t row;
        fps_scan_find(&w->arena[shard_of(w, i)].tables[0], &w->universe[i], 1, &row);
        CHECK_EQ(row != FPS_NO_ROW, w->live[i]);
        live -= w->live[i];
    }
    CHECK_EQ(live, 0);
}

static fps_status run_world(world *w)
{
    uint32_t at;
    fps_status status = fps_sparse_run(&w->call, &at);
    for (uint32_t s = 0; s < w->n_shards; s++) CHECK(status != FPS_OK || w->parts[s].done);
    return status;
}

static void push_or_pull(world *w, uint64_t *state, bool pushes, bool pulls)
{
    prepare_world(w, pushes, pulls);
    w->call.create = random_below(state, 2);
    fill_randomly(state, w->grads, w->n * w->t.bytes[0], w->layout.item_bytes);
    CHECK_EQ(run_world(w), FPS_OK);
    if (pushes)
        push_to_twin(w);
    else
        for (uint32_t i = 0; i < w->n && w->call.create; i++) bear_twin(w, w->which[i]);
    if (pulls) check_outs(w, pushes || w->call.create);
    for (uint32_t s = 0; s < w->n_shards; s++) CHECK_EQ(w->parts[s].version, w->pushes[s]);
}

static void set_some(world *w, uint64_t *state)
{
    for (uint32_t k = 0; k <= w->layout.n_slots; k++) {
        fill_randomly(state, w->streams[k], w->n * w->t.bytes[k], w->layout.item_bytes);
        w->set[k] = random_below(state, 3) ? w->streams[k] : NULL;
    }
    prepare_world(w, false, false);
    w->call.set = w->set;
    w->call.kind = FPS_SET;
    CHECK_EQ(run_world(w), FPS_OK);
    for (uint32_t i = 0; i < w->n; i++) {
        bear_twin(w, w->which[i]);
        for (uint32_t k = 0; k <= w->layout.n_slots; k++)
            if (w->set[k]) memcpy(twin_of(w, w->which[i], k), w->set[k] + i * w->t.bytes[k], w->t.bytes[k]);
    }
}

static void remove_some(world *w)
{
    prepare_world(w, false, false);
    for (uint32_t s = 0; s < w->n_shards; s++) {
        const fps_sparse_part *part = &w->parts[s];
        uint8_t removed[MAX_BATCH];
        CHECK_EQ(remove_rows(&w->session[s], 0, part->keys, part->n, w->streams, removed), FPS_OK);
        for (uint32_t i = 0; i < part->n; i++) {
            const uint32_t key = w->which[part->places ? part->places[i] : i];
            CHECK_EQ(removed[i], w->live[key]);
            for (uint32_t k = 0; k <= w->layout.n_slots && removed[i]; k++)
                CHECK_EQ(memcmp(w->streams[k] + i * w->t.bytes[k], twin_of(w, key, k), w->t.bytes[k]), 0);
            w->live[key] = false;
        }
    }
}

static void check_random_operations(fps_table_layout layout, uint32_t n_shards, uint64_t seed, uint32_t operations)
{
    static world w;
    uint64_t state = seed;
    make_world(&w, layout, n_shards);
    for (uint32_t i = 0; i < operations; i++) {
        pick_keys(&w, &state);
        uint32_t kind = random_below(&state, 7);
        if (kind < 4)
            push_or_pull(&w, &state, kind >= 2, kind != 2);
        else if (kind == 4)
            set_some(&w, &state);
        else if (kind == 5)
            remove_some(&w);
        if (kind == 6 || i + 1 == operations) check_world(&w);
    }
    drop_world(&w);
}

static fps_table_layout layout_of(uint32_t dim, uint32_t item_bytes, uint32_t n_slots, uint32_t row_slots)
{
    fps_table_layout layout = table_of(dim, n_slots, 400);
    layout.item_bytes = item_bytes;
    layout.row_slots = row_slots;
    layout.initial = FPS_INITIAL_NORMAL;
    layout.second = 10;
    for (uint32_t k = 0; k < n_slots; k++) layout.slots[k] = 0.5 + k;
    layout.tracked = dim % 2;
    return layout;
}

static void rows_of_all_shapes_are_what_a_list_of_rows_would_be(void)
{
    static const struct {
        uint32_t dim, item_bytes, n_slots, row_slots, n_shards;
    } shapes[] = {{1, 4, 0, 0, 1},  {1, 8, 2, 1, 3},   {3, 4, 1, 0, 3},   {3, 8, 1, 1, 1},    {64, 4, 2, 2, 3},
                  {64, 8, 0, 0, 1}, {257, 4, 2, 0, 3}, {257, 8, 3, 5, 1}, {1030, 4, 2, 1, 2}, {5, 4, 15, 0x5555, 2}};
    uint64_t seed = (uint64_t)time(NULL);
    printf("  seed %ju\n", (uintmax_t)seed);
    for (size_t i = 0; i < COUNT(shapes); i++)
        check_random_operations(layout_of(shapes[i].dim, shapes[i].item_bytes, shapes[i].n_slots, shapes[i].row_slots),
                                shapes[i].n_shards, seed + i, 150);
}

/* One shard of one table, whose rule adds. */
typedef struct scene {
    fps_arena arena;
    const fps_table *t;
    fps_session session, other;
} scene;

static void make_scene_of(scene *s, fps_table_layout layout)
{
    s->arena = make_table(layout, 3);
    s->t = &s->arena.tables[0];
    s->session = open_session(&s->arena);
    s->other = open_session(&s->arena);
}

static void make_scene(scene *s, uint32_t dim, uint64_t max_rows) { make_scene_of(s, table_of(dim, 0, max_rows)); }

static void drop_scene(scene *s)
{
    fps_session_close(&s->session);
    fps_session_close(&s->other);
    drop_arena(&s->arena);
}

static float value_of(scene *s, uint64_t key)
{
    float out[8] = {-1};
    CHECK(s->t->layout.dim <= COUNT(out));
    CHECK_EQ(pull_rows(&s->other, 0, &key, 1, out, false), FPS_OK);
    for (uint32_t i = 1; i < s->t->layout.dim; i++) CHECK_FLOAT(out[i], out[0]);
    return out[0];
}

static const float ones[256] = {
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
};

static void gradients_of_one_key_are_summed_in_the_order_of_their_places(void)
{
    scene s;
    const uint64_t keys[] = {5, 9, 5, 5, 9};
    const float large_first[] = {1e8F, 1, 1, -1e8F, 2}, small_first[] = {1, 1, 1e8F, -1e8F, 2};
    make_scene(&s, 1, 10);
    CHECK_EQ(push_rows(&s.session, 0, keys, 5, large_first, NULL), FPS_OK);
    CHECK_FLOAT(value_of(&s, 5), (1e8F + 1) - 1e8F);
    CHECK_FLOAT(value_of(&s, 9), 3);
    CHECK_EQ(push_rows(&s.session, 0, (const uint64_t[]){6, 9, 6, 6, 9}, 5, small_first, NULL), FPS_OK);
    CHECK_FLOAT(value_of(&s, 6), (1 + 1e8F) - 1e8F);
    drop_scene(&s);
}

static uint32_t runs_of_rule;

static int32_t count_runs(const void *const *state, const void *grad, void *const *results, int64_t n, int64_t ahead,
                          const double *uniforms)
{
    runs_of_rule++;
    return add_f32(state, grad, results, n, ahead, uniforms);
}

static void the_rule_runs_once_for_each_key_of_a_push(void)
{
    scene s;
    errand e;
    const uint64_t keys[] = {1, 2, 1, 3, 3, 3, 1};
    make_scene(&s, 2, 10);
    prepare_rows(&e, &s.session, 0, keys, 7, ones, NULL);
    e.rule.kernel = count_runs;
    runs_of_rule = 0;
    CHECK_EQ(run_rows(&e), FPS_OK);
    CHECK_EQ(runs_of_rule, 3);
    CHECK_FLOAT(value_of(&s, 1), 3);
    CHECK_FLOAT(value_of(&s, 2), 1);
    CHECK_FLOAT(value_of(&s, 3), 3);
    drop_errand(&e);
    drop_scene(&s);
}

static void outs_keep_the_order_of_the_keys(void)
{
    scene s;
    uint64_t keys[100];
    float grads[100], outs[100];
    make_scene(&s, 1, 200);
    for (uint32_t i = 0; i < 100; i++) {
        keys[i] = i * 17 % 50; /* each of them twice */
        grads[i] = (float)keys[i];
    }
    CHECK_EQ(push_rows(&s.session, 0, keys, 100, grads, outs), FPS_OK);
    for (uint32_t i = 0; i < 100; i++) CHECK_FLOAT(outs[i], 2 * (float)keys[i]);
    memset(outs, 255, sizeof outs);
    CHECK_EQ(pull_rows(&s.session, 0, keys, 100, outs, false), FPS_OK);
    for (uint32_t i = 0; i < 100; i++) CHECK_FLOAT(outs[i], 2 * (float)keys[i]);
    drop_scene(&s);
}

static void a_pull_that_creates_nothing_answers_first_values(void)
{
    scene s;
    fps_table_layout layout = table_of(3, 0, 2);
    float outs[4][3], expected[3];
    const uint64_t keys[] = {1, 2, 3, 1};
    layout.initial = FPS_INITIAL_NORMAL;
    layout.second = 1;
    make_scene_of(&s, layout);
    CHECK_EQ(pull_rows(&s.session, 0, keys, 4, outs, false), FPS_OK); /* of more keys than it may have rows */
    CHECK_EQ(live_of(s.t), 0);
    CHECK_EQ(FPS_INDEX_BUCKETS(fps_load_relaxed(&s.t->control->index)), 0);
    for (uint32_t i = 0; i < 4; i++) {
        fps_initial_fill(&layout, keys[i], expected);
        CHECK_EQ(memcmp(outs[i], expected, sizeof expected), 0);
    }
    CHECK_EQ(pull_rows(&s.session, 0, keys, 2, outs, true), FPS_OK);
    CHECK_EQ(live_of(s.t), 2);
    for (uint32_t i = 0; i < 2; i++) {
        fps_initial_fill(&layout, keys[i], expected);
        CHECK_EQ(memcmp(outs[i], expected, sizeof expected), 0);
    }
    drop_scene(&s);
}

static void nothing_to_do_is_done(void)
{
    scene s;
    make_scene(&s, 2, 10);
    CHECK_EQ(pull_rows(&s.session, 0, NULL, 0, NULL, true), FPS_OK);
    CHECK_EQ(push_rows(&s.session, 0, NULL, 0, ones, NULL), FPS_OK);
    CHECK_EQ(set_rows(&s.session, 0, NULL, 0, (const uint8_t *const[]){(const uint8_t *)ones}), FPS_OK);
    CHECK_EQ(fps_load_relaxed(&s.t->control->version), 1);
    CHECK_EQ(live_of(s.t), 0);
    drop_scene(&s);
}

/* Refusals */

static void a_full_table_refuses_a_push_and_changes_nothing(void)
{
    scene s;
    const uint64_t keys[] = {1, 2, 3, 4};
    make_scene(&s, 2, 3);
    CHECK_EQ(push_rows(&s.session, 0, keys, 3, ones, NULL), FPS_OK);
    errand e;
    prepare_rows(&e, &s.session, 0, keys, 4, ones, NULL);
    CHECK_EQ(run_rows(&e), FPS_TABLE_FULL);
    CHECK_EQ(e.at, 0);
    CHECK_EQ(e.part.position, 0);
    drop_errand(&e);
    CHECK_EQ(pull_rows(&s.session, 0, keys, 4, (float[8]){0}, true), FPS_TABLE_FULL);
    CHECK_EQ(set_rows(&s.session, 0, keys, 4, (const uint8_t *const[]){(const uint8_t *)ones}), FPS_TABLE_FULL);
    for (uint32_t i = 0; i < 3; i++) CHECK_FLOAT(value_of(&s, keys[i]), 1);
    CHECK_EQ(live_of(s.t), 3);
    CHECK_EQ(fps_load_relaxed(&s.t->control->version), 1);
    CHECK_EQ(fps_load_relaxed(&s.session.seat->begun_seq), 1);
    CHECK_EQ(push_rows(&s.session, 0, keys, 3, ones, NULL), FPS_OK);
    CHECK_FLOAT(value_of(&s, 3), 2);
    check_table(s.t);
    drop_scene(&s);
}

/* The tag of a key that has no row is that of one that has: only a look at the rows shows that one is missing. */
static void a_full_table_refuses_keys_whose_tags_it_knows(void)
{
    scene s;
    const uint64_t known[] = {1, key_of_tag(0x12345678, 1)}, asked[] = {1, key_of_tag(0x12345678, 2)};
    make_scene(&s, 2, 2);
    CHECK_EQ(push_rows(&s.session, 0, known, 2, ones, NULL), FPS_OK);
    CHECK_EQ(push_rows(&s.session, 0, asked, 2, ones, NULL), FPS_TABLE_FULL);
    CHECK_FLOAT(value_of(&s, 1), 1);
    CHECK_FLOAT(value_of(&s, known[1]), 1);
    CHECK_EQ(fps_load_relaxed(&s.t->control->version), 1);
    CHECK_EQ(set_rows(&s.session, 0, asked, 2, (const uint8_t *const[]){(const uint8_t *)ones}), FPS_TABLE_FULL);
    drop_scene(&s);
}

/* On three shards, of which the last one is full. */
static void a_shard_that_is_full_keeps_the_others_from_changing(void)
{
    static world w;
    fps_table_layout layout = layout_of(3, 4, 0, 0);
    layout.max_rows = 20;
    make_world(&w, layout, 3);
    for (uint32_t i = 0; i < MAX_KEYS; i++) { /* rows of the last shard until that is full, and one for each other */
        bool last = shard_of(&w, i) == 2;
        if (live_of(&w.arena[shard_of(&w, i)].tables[0]) == (last ? 20 : 1)) continue;
        w.which[0] = i;
        w.keys[0] = w.universe[i];
        w.n = 1;
        prepare_world(&w, false, true);
        CHECK_EQ(run_world(&w), FPS_OK);
        bear_twin(&w, i);
    }
    w.n = 0;
    for (uint32_t i = 0; i < MAX_KEYS && w.n < MAX_BATCH; i++) {
        if (w.live[i] && shard_of(&w, i) == 2) continue;
        w.which[w.n] = i;
        w.keys[w.n++] = w.universe[i];
    }
    memset(w.grads, 0, MAX_BATCH * w.t.bytes[0]);
    uint32_t at;
    prepare_world(&w, true, false);
    CHECK_EQ(fps_sparse_run(&w.call, &at), FPS_TABLE_FULL);
    for (uint32_t s = 0; s < 3; s++) {
        CHECK(!w.parts[s].done);
        CHECK_EQ(w.parts[s].position, 0);
        CHECK_EQ(fps_load_relaxed(&w.arena[s].tables[0].control->version), 0);
    }
    for (uint32_t i = 0; i < MAX_KEYS; i++) { /* rows may be created, but nothing was added to any */
        if (!w.live[i]) continue;
        float found[3];
        CHECK_EQ(pull_rows(&w.session[shard_of(&w, i)], 0, &w.universe[i], 1, found, false), FPS_OK);
        CHECK_EQ(memcmp(found, twin_of(&w, i, 0), sizeof found), 0);
    }
    drop_world(&w);
}

static void without_memory_a_push_changes_nothing(void)
{
    scene s;
    uint64_t keys[256];
    uint32_t refusals = 0, from = 0;
    make_scene(&s, 1, 10000);
    for (uint32_t step = 1; step <= 200; step += 66) {
        for (uint32_t i = 0; i < step; i++) keys[i] = from + i;
        keys[step] = 0; /* one that has a row from the second round on */
        float before = step > 1 ? value_of(&s, 0) : 0;
        for (allocations_left = 0;; refusals++, allocations_left = refusals % 3) {
            fps_status status = push_rows(&s.session, 0, keys, step + 1, ones, NULL);
            if (status == FPS_OK) break;
            CHECK_EQ(status, FPS_NO_MEMORY);
            allocations_left = UINT32_MAX;
            CHECK_EQ(live_of(s.t), from);
            if (step > 1) CHECK_FLOAT(value_of(&s, 0), before);
        }
        allocations_left = UINT32_MAX;
        check_table(s.t);
        from += step;
    }
    CHECK(refusals > 0);
    drop_scene(&s);
}

/* Waiting */

/* Whose writer lives and does not go on. */
static void hold_row(scene *s, uint64_t key, uint64_t *word)
{
    uint32_t row;
    fps_scan_find(s->t, &key, 1, &row);
    CHECK_EQ(fps_row_try(&s->other, s->t, row, key, word), FPS_OK);
}

static void let_row_go(scene *s, uint64_t key, uint64_t word)
{
    uint32_t row;
    fps_scan_find(s->t, &key, 1, &row);
    fps_row_leave(s->t, row, word);
}

static void a_push_that_met_a_writer_goes_on_and_is_applied_once(void)
{
    scene s;
    errand e;
    const uint64_t keys[] = {1, 2, 3, 4, 2};
    float outs[5][3];
    for (uint32_t held = 1; held <= 4; held++) {
        for (int pulls = 0; pulls < 2; pulls++) {
            uint64_t word;
            make_scene(&s, 3, 10);
            CHECK_EQ(push_rows(&s.session, 0, keys, 4, ones, NULL), FPS_OK);
            hold_row(&s, held, &word);
            prepare_rows(&e, &s.session, 0, keys, 5, ones, pulls ? outs : NULL);
            for (int tries = 0; tries < 3; tries++) {
                e.call.wait = tries < 2 ? wait_ms(5) : (fps_wait){.deadline_ns = FPS_NO_WAIT};
                CHECK_EQ(run_rows(&e), tries < 2 ? FPS_TIMEOUT : FPS_BUSY);
                CHECK_EQ(e.part.position, held - 1); /* rows in the order of their keys */
                CHECK(!e.part.done);
            }
            CHECK_EQ(fps_load_relaxed(&s.session.seat->begun_seq), 2);
            CHECK_EQ(fps_load_relaxed(&s.session.seat->applied_seq), 1);
            CHECK_EQ(fps_load_relaxed(&s.session.seat->position), held - 1);
            let_row_go(&s, held, word);
            for (uint64_t key = 1; key <= 4; key++) CHECK_FLOAT(value_of(&s, key), key < held ? (key == 2 ? 3 : 2) : 1);
            CHECK_EQ(run_rows(&e), FPS_OK);
            for (uint64_t key = 1; key <= 4; key++) CHECK_FLOAT(value_of(&s, key), key == 2 ? 3 : 2);
            for (uint32_t i = 0; i < 5 && pulls; i++)
                for (uint32_t k = 0; k < 3; k++) CHECK_FLOAT(outs[i][k], keys[i] == 2 ? 3 : 2);
            CHECK_EQ(e.part.version, 2);
            CHECK_EQ(fps_load_relaxed(&s.t->control->version), 2); /* it counts once */
            CHECK_EQ(fps_load_relaxed(&s.session.seat->applied_seq), 2);
            check_table(s.t);
            drop_errand(&e);
            drop_scene(&s);
        }
    }
}

static void a_pull_and_a_scan_wait_for_a_writer(void)
{
    scene s;
    uint64_t word, cursor = 0, keys[4];
    float outs[4];
    uint8_t *const streams[] = {(uint8_t *)outs};
    uint32_t n;
    make_scene(&s, 1, 10);
    CHECK_EQ(push_rows(&s.session, 0, (const uint64_t[]){1, 2}, 2, ones, NULL), FPS_OK);
    hold_row(&s, 2, &word);
    errand e;
    prepare_rows(&e, &s.session, 0, (const uint64_t[]){1, 2}, 2, NULL, outs);
    e.call.wait = wait_ms(5);
    CHECK_EQ(run_rows(&e), FPS_TIMEOUT);
    fps_wait brief = wait_ms(5);
    CHECK_EQ(fps_scan_rows(&s.arena, s.t, &cursor, 4, FPS_SCAN_ALL, keys, streams, NULL, NULL, &brief, &n),
             FPS_TIMEOUT);
    CHECK_EQ(n, 1);
    CHECK_EQ(cursor, 1);
    let_row_go(&s, 2, fps_row_next(s.t, word));
    brief = wait_ms(5000);
    CHECK_EQ(fps_scan_rows(&s.arena, s.t, &cursor, 4, FPS_SCAN_ALL, keys, streams, NULL, NULL, &brief, &n), FPS_OK);
    CHECK_EQ(n, 1);
    CHECK_EQ(keys[0], 2);
    CHECK_EQ(run_rows(&e), FPS_OK);
    drop_errand(&e);
    drop_scene(&s);
}

static int call_off(void *state)
{
    ++*(int *)state;
    return 1;
}

/* Nothing is left half-done: a push that has begun is not called off. */
static void waiting_may_be_called_off_until_a_push_has_begun(void)
{
    scene s;
    errand e;
    uint64_t word;
    int asked = 0;
    float outs[2];
    make_scene(&s, 1, 10);
    CHECK_EQ(push_rows(&s.session, 0, (const uint64_t[]){1, 2}, 2, ones, NULL), FPS_OK);
    hold_row(&s, 2, &word);
    prepare_rows(&e, &s.session, 0, (const uint64_t[]){1, 2}, 2, NULL, outs);
    e.call.wait = (fps_wait){.deadline_ns = FPS_NEVER, .interrupted = call_off, .state = &asked};
    CHECK_EQ(run_rows(&e), FPS_INTERRUPTED);
    CHECK_EQ(asked, 1);
    drop_errand(&e);
    prepare_rows(&e, &s.session, 0, (const uint64_t[]){1, 2}, 2, ones, NULL);
    for (int tries = 0; tries < 2; tries++) {
        e.call.wait = wait_ms(300);
        e.call.wait.interrupted = call_off;
        e.call.wait.state = &asked;
        CHECK_EQ(run_rows(&e), FPS_TIMEOUT);
    }
    CHECK_EQ(asked, 1);
    let_row_go(&s, 2, word);
    CHECK_EQ(run_rows(&e), FPS_OK);
    CHECK_FLOAT(value_of(&s, 1), 2);
    CHECK_FLOAT(value_of(&s, 2), 2);
    drop_errand(&e);
    drop_scene(&s);
}

/* Another process, stopped by a signal in the middle of its row. */
static int32_t stop_here(const void *const *state, const void *grad, void *const *results, int64_t n, int64_t ahead,
                         const double *uniforms)
{
    kill(getpid(), SIGSTOP);
    return add_f32(state, grad, results, n, ahead, uniforms);
}

static void push_and_stop(void *argument)
{
    scene *s = argument;
    errand e;
    fps_session session = open_session(&s->arena);
    prepare_rows(&e, &session, 0, (const uint64_t[]){2}, 1, ones, NULL);
    e.rule.kernel = stop_here;
    CHECK_EQ(run_rows(&e), FPS_OK);
    drop_errand(&e);
    fps_session_close(&session);
}

static void a_row_of_a_stopped_process_times_out_and_is_pushed_to_later(void)
{
    scene s;
    errand e;
    int status;
    make_scene(&s, 3, 10);
    CHECK_EQ(push_rows(&s.session, 0, (const uint64_t[]){1, 2, 3}, 3, ones, NULL), FPS_OK);
    pid_t pid = start_process(push_and_stop, &s);
    CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
    CHECK(WIFSTOPPED(status));
    prepare_rows(&e, &s.session, 0, (const uint64_t[]){1, 2, 3}, 3, ones, NULL);
    e.call.wait = wait_ms(20);
    CHECK_EQ(run_rows(&e), FPS_TIMEOUT);
    CHECK_EQ(e.part.position, 1);
    CHECK_EQ(kill(pid, SIGCONT), 0);
    e.call.wait = (fps_wait){.deadline_ns = FPS_NEVER};
    CHECK_EQ(run_rows(&e), FPS_OK);
    expect_success(pid);
    CHECK_FLOAT(value_of(&s, 1), 2);
    CHECK_FLOAT(value_of(&s, 2), 3);
    CHECK_FLOAT(value_of(&s, 3), 2);
    check_table(s.t);
    drop_errand(&e);
    drop_scene(&s);
}

/* Rows that went away while the push waited, or became another's, are looked for again. */
static void a_push_that_goes_on_finds_rows_that_have_moved(void)
{
    scene s;
    errand e;
    uint64_t word;
    uint8_t removed[3];
    make_scene(&s, 1, 10);
    CHECK_EQ(push_rows(&s.session, 0, (const uint64_t[]){1, 2, 3}, 3, ones, NULL), FPS_OK);
    hold_row(&s, 1, &word);
    prepare_rows(&e, &s.session, 0, (const uint64_t[]){1, 2, 3, 4}, 4, ones, NULL);
    e.call.wait = wait_ms(5);
    CHECK_EQ(run_rows(&e), FPS_TIMEOUT);
    let_row_go(&s, 1, word);
    CHECK_EQ(remove_rows(&s.other, 0, (const uint64_t[]){2, 3, 4}, 3, NULL, removed), FPS_OK);
    CHECK_EQ(push_rows(&s.other, 0, (const uint64_t[]){2, 5}, 2, ones, NULL), FPS_OK); /* in the rows of 4 and 3 */
    e.call.wait = (fps_wait){.deadline_ns = FPS_NO_WAIT};
    CHECK_EQ(run_rows(&e), FPS_OK);
    static const float expected[] = {0, 2, 2, 1, 1, 1};
    for (uint64_t key = 0; key <= 5; key++) CHECK_FLOAT(value_of(&s, key), expected[key]);
    check_table(s.t);
    drop_errand(&e);
    drop_scene(&s);
}

/* The row that a push has found is another's: its own is created, and somebody else holds the lock for that. */
static void a_push_that_must_not_wait_for_row_creation_says_so(void)
{
    scene s;
    errand e;
    const fps_wait no_wait = {.deadline_ns = FPS_NO_WAIT};
    const uint64_t known = key_of_tag(77, 1), asked = key_of_tag(77, 2);
    make_scene(&s, 1, 1000);
    CHECK_EQ(push_rows(&s.session, 0, &known, 1, ones, NULL), FPS_OK);
    CHECK_EQ(fps_rowset_enter(&s.arena, s.t, &no_wait), FPS_OK);
    prepare_rows(&e, &s.session, 0, &asked, 1, ones, NULL);
    e.call.wait = no_wait;
    CHECK_EQ(run_rows(&e), FPS_BUSY);
    e.call.wait = wait_ms(5);
    CHECK_EQ(run_rows(&e), FPS_TIMEOUT);
    fps_rowset_leave(s.t);
    e.call.wait = no_wait;
    CHECK_EQ(run_rows(&e), FPS_OK);
    CHECK_FLOAT(value_of(&s, known), 1);
    CHECK_FLOAT(value_of(&s, asked), 1);
    drop_errand(&e);
    drop_scene(&s);
}

static void a_closed_arena_is_told_apart_from_everything_else(void)
{
    scene s;
    float out[2];
    uint64_t cursor = 0, keys[2], word;
    uint32_t n;
    make_scene(&s, 1, 10);
    CHECK_EQ(push_rows(&s.session, 0, (const uint64_t[]){1, 2}, 2, ones, NULL), FPS_OK);
    hold_row(&s, 2, &word);
    fps_arena_retire(&s.arena);
    const fps_wait wait = {.deadline_ns = FPS_NEVER};
    uint8_t *const streams[] = {(uint8_t *)out};
    CHECK_EQ(pull_rows(&s.session, 0, (const uint64_t[]){1, 2}, 2, out, true), FPS_CLOSED);
    CHECK_EQ(pull_rows(&s.session, 0, (const uint64_t[]){1, 2}, 2, out, false), FPS_CLOSED);
    CHECK_EQ(push_rows(&s.session, 0, (const uint64_t[]){1, 2}, 2, ones, NULL), FPS_CLOSED);
    CHECK_EQ(fps_scan_rows(&s.arena, s.t, &cursor, 2, FPS_SCAN_ALL, keys, streams, NULL, NULL, &wait, &n), FPS_CLOSED);
    drop_scene(&s);
}

typedef struct retiring {
    fps_arena *arena;
    uint32_t after_us;
} retiring;

static void *retire_later(void *argument)
{
    retiring *r = argument;
    nap_us(r->after_us);
    fps_arena_retire(r->arena);
    return NULL;
}

/* Nobody takes zeros for an answer. */
static void an_arena_that_closes_in_the_middle_is_told_of(void)
{
    for (uint32_t i = 0; i < 40; i++) {
        scene s;
        pthread_t thread;
        uint64_t keys[64];
        float outs[64 * 8];
        fps_table_layout layout = table_of(8, 0, 1000);
        layout.first = 3;
        make_scene_of(&s, layout);
        for (uint64_t k = 0; k < 64; k++) keys[k] = k * 3;
        CHECK_EQ(pull_rows(&s.session, 0, keys, 64, outs, true), FPS_OK);
        retiring r = {.arena = &s.arena, .after_us = i * 10};
        CHECK_EQ(pthread_create(&thread, NULL, retire_later, &r), 0);
        fps_status status = FPS_OK;
        while (status == FPS_OK) {
            status = pull_rows(&s.session, 0, keys, 64, outs, i % 2);
            if (status == FPS_OK) check_all_equal(outs, COUNT(outs), 3);
        }
        CHECK_EQ(status, FPS_CLOSED);
        pthread_join(thread, NULL);
        drop_scene(&s);
    }
}

/* Streams */

static void a_set_changes_the_streams_that_are_given_and_no_more(void)
{
    scene s;
    const uint64_t keys[] = {1, 2, 1};
    float values[3][2] = {{1, 2}, {3, 4}, {5, 6}}, slots[3][2] = {{7, 8}, {9, 10}, {11, 12}}, got[2][3][2];
    uint8_t *const streams[] = {(uint8_t *)got[0], (uint8_t *)got[1]};
    uint64_t found[3];
    fps_table_layout layout = table_of(2, 1, 10);
    layout.slots[0] = 0.5;
    make_scene_of(&s, layout);
    CHECK_EQ(set_rows(&s.session, 0, keys, 3, (const uint8_t *const[]){(uint8_t *)values, NULL}), FPS_OK);
    CHECK_EQ(scan_rows(&s.arena, 0, 3, found, streams), 2);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(memcmp(got[0][i], values[found[i] == 1 ? 2 : 1], sizeof got[0][i]), 0); /* the last place decides */
        check_all_equal(got[1][i], 2, 0.5F);
    }
    CHECK_EQ(set_rows(&s.session, 0, keys + 1, 1, (const uint8_t *const[]){NULL, (uint8_t *)slots[1]}), FPS_OK);
    CHECK_EQ(set_rows(&s.session, 0, keys, 3, (const uint8_t *const[]){NULL, NULL}), FPS_OK); /* bears, at most */
    CHECK_EQ(scan_rows(&s.arena, 0, 3, found, streams), 2);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(memcmp(got[0][i], values[found[i] == 1 ? 2 : 1], sizeof got[0][i]), 0);
        if (found[i] == 2) CHECK_EQ(memcmp(got[1][i], slots[1], sizeof got[1][i]), 0);
        if (found[i] == 1) check_all_equal(got[1][i], 2, 0.5F);
    }
    CHECK_EQ(fps_load_relaxed(&s.t->control->version), 0); /* a set is no push */
    CHECK_EQ(fps_load_relaxed(&s.session.seat->meters.pushes), 0);
    drop_scene(&s);
}

/* Steps and hyper-parameters */

static double step_seen, hyper_seen[FPS_MAX_HYPER];

static int32_t remember(const double *hyper, double step, double *uniforms)
{
    memcpy(hyper_seen, hyper, sizeof hyper_seen);
    step_seen = step;
    uniforms[0] = 17;
    return 0;
}

static double limit_seen, scale_seen;

static int32_t look_at_uniforms(const void *const *state, const void *grad, void *const *results, int64_t n,
                                int64_t ahead, const double *uniforms)
{
    CHECK_FLOAT(uniforms[0], 17);
    limit_seen = uniforms[FPS_MAX_UNIFORMS];
    scale_seen = uniforms[FPS_MAX_UNIFORMS + 1];
    return add_f32(state, grad, results, n, ahead, uniforms);
}

static void a_push_has_its_number_and_one_set_of_hyper_parameters(void)
{
    scene s;
    errand e;
    double values[FPS_MAX_HYPER], got[FPS_MAX_HYPER];
    const uint64_t keys[] = {1, 2};
    const fps_wait wait = {.deadline_ns = FPS_NEVER};
    make_scene(&s, 1, 10);
    fps_table_hyper(s.t, got);
    for (uint32_t i = 0; i < FPS_MAX_HYPER; i++) CHECK_FLOAT(got[i], 0);
    for (uint32_t change = 1; change < 10; change++) {
        for (uint32_t i = 0; i < FPS_MAX_HYPER; i++) values[i] = 100 * change + i;
        CHECK_EQ(fps_table_configure(&s.arena, s.t, change == 1 ? UINT32_MAX : 1u << change, values, &wait), FPS_OK);
        prepare_rows(&e, &s.session, 0, keys, 2, ones, NULL);
        e.rule.prepare = remember;
        e.rule.kernel = look_at_uniforms;
        e.call.limit = 2.5;
        e.call.scale = 0.5;
        CHECK_EQ(run_rows(&e), FPS_OK);
        CHECK_FLOAT(step_seen, change);
        CHECK_EQ(e.part.version, change);
        CHECK_FLOAT(limit_seen, 2.5);
        CHECK_FLOAT(scale_seen, 0.5);
        for (uint32_t i = 0; i < FPS_MAX_HYPER; i++)
            CHECK_FLOAT(hyper_seen[i], i <= change && i >= 2 ? 100 * i + i : 100 + i);
        fps_table_hyper(s.t, got);
        CHECK_EQ(memcmp(got, hyper_seen, sizeof got), 0);
        drop_errand(&e);
    }
    drop_scene(&s);
}

/* Somebody changes all of them, and is stopped half-way, or dies there. */
typedef struct change {
    scene *scene;
    fps_word32 *half_way;
    bool dies;
} change;

static void change_half(void *argument)
{
    change *c = argument;
    const fps_wait wait = {.deadline_ns = FPS_NEVER};
    fps_control *control = c->scene->t->control;
    CHECK_EQ(fps_rowset_enter(&c->scene->arena, c->scene->t, &wait), FPS_OK);
    uint64_t bits;
    memcpy(&bits, &(double){2}, sizeof bits);
    fps_word *set = control->hyper.sets[(fps_load_relaxed(&control->hyper.changes) + 1) & 1];
    for (uint32_t i = 0; i < FPS_MAX_HYPER / 2; i++) fps_store_relaxed(&set[i], bits);
    fps_store32_release(c->half_way, 1);
    if (c->dies) die();
    for (;;) pause();
}

static void check_change(bool dies)
{
    scene s;
    double values[FPS_MAX_HYPER], got[FPS_MAX_HYPER];
    const fps_wait wait = {.deadline_ns = FPS_NEVER};
    make_scene(&s, 1, 10);
    for (uint32_t i = 0; i < FPS_MAX_HYPER; i++) values[i] = 1;
    CHECK_EQ(fps_table_configure(&s.arena, s.t, UINT32_MAX, values, &wait), FPS_OK);
    change c = {.scene = &s, .half_way = share(sizeof *c.half_way), .dies = dies};
    pid_t pid = start_process(change_half, &c);
    await(c.half_way, 1);
    if (dies) expect_killed(pid);
    const int64_t start = fps_now_ns();
    for (uint32_t i = 0; i < 100; i++) {
        fps_table_hyper(s.t, got);
        CHECK_EQ(memcmp(got, values, sizeof got), 0);
    }
    CHECK(fps_now_ns() - start < 20 * INT64_C(1000000000)); /* had each waited for a moment, it had been minutes */
    if (!dies) kill_process(pid);
    enter_and_leave(&s.arena, s.t);
    check_table(s.t);
    fps_table_hyper(s.t, got);
    CHECK_EQ(memcmp(got, values, sizeof got), 0);
    values[3] = 5;
    CHECK_EQ(fps_table_configure(&s.arena, s.t, 1u << 3, values, &wait), FPS_OK);
    fps_table_hyper(s.t, got);
    CHECK_EQ(memcmp(got, values, sizeof got), 0);
    munmap(c.half_way, sizeof *c.half_way);
    drop_scene(&s);
}

static void nobody_waits_for_somebody_who_is_stopped_in_the_middle_of_a_change(void) { check_change(false); }
static void a_death_in_the_middle_of_a_change_changes_nothing(void) { check_change(true); }

static void meters_count_what_a_session_did(void)
{
    scene s;
    float outs[6];
    const uint64_t keys[] = {1, 2, 2};
    make_scene(&s, 2, 10);
    const fps_meters *m = &s.session.seat->meters;
    CHECK_EQ(push_rows(&s.session, 0, keys, 3, ones, NULL), FPS_OK);
    CHECK_EQ(push_rows(&s.session, 0, keys, 3, ones, outs), FPS_OK);
    CHECK_EQ(pull_rows(&s.session, 0, keys, 2, outs, true), FPS_OK);
    CHECK_EQ(fps_load_relaxed(&m->pushes), 1);
    CHECK_EQ(fps_load_relaxed(&m->push_pulls), 1);
    CHECK_EQ(fps_load_relaxed(&m->pulls), 1);
    CHECK_EQ(fps_load_relaxed(&m->bytes_written), 2 * 3 * 8);
    CHECK_EQ(fps_load_relaxed(&m->bytes_read), (3 + 2) * 8);
    drop_scene(&s);
}

/* Scans */

static void a_scan_brings_each_row_once_whatever_comes_at_a_time(void)
{
    scene s;
    static uint64_t keys[300], removed_keys[100];
    static float grads[300], values[300];
    uint8_t removed[100], *const streams[] = {(uint8_t *)values};
    make_scene(&s, 1, 1000);
    for (uint32_t i = 0; i < 300; i++) {
        keys[i] = i * UINT64_C(0x123456789);
        grads[i] = (float)i;
    }
    for (uint32_t i = 0; i < 100; i++) removed_keys[i] = keys[i * 3];
    CHECK_EQ(push_rows(&s.session, 0, keys, 300, grads, NULL), FPS_OK);
    CHECK_EQ(remove_rows(&s.session, 0, removed_keys, 100, NULL, removed), FPS_OK);
    for (uint32_t at_a_time = 1; at_a_time < 300; at_a_time += at_a_time / 3 + 1) {
        uint64_t found[300];
        CHECK_EQ(scan_rows(&s.arena, 0, at_a_time, found, streams), 200);
        for (uint32_t i = 0; i < 200; i++) {
            uint32_t expected = i / 2 * 3 + i % 2 + 1;
            CHECK_EQ(found[i], keys[expected]);
            CHECK_FLOAT(values[i], (float)expected);
        }
    }
    drop_scene(&s);
}

static void a_scan_brings_what_is_asked_for(void)
{
    scene s;
    uint64_t keys[2], cursor = 0;
    float slot[2][2];
    uint32_t seen[4] = {9, 9, 9, 9}, n;
    const fps_wait wait = {.deadline_ns = FPS_NO_WAIT};
    fps_table_layout layout = table_of(2, 1, 10);
    layout.tracked = 1;
    layout.slots[0] = 2;
    make_scene_of(&s, layout);
    CHECK_EQ(push_rows(&s.session, 0, (const uint64_t[]){8, 9}, 2, ones, NULL), FPS_OK);
    fps_store32_relaxed(fps_row_seen(fps_row_at(s.t, 0)), 66);
    fps_store32_relaxed(fps_row_count(fps_row_at(s.t, 0)), 4);
    fps_store32_relaxed(fps_row_seen(fps_row_at(s.t, 1)), 77);
    fps_store32_relaxed(fps_row_count(fps_row_at(s.t, 1)), 5);
    CHECK_EQ(fps_scan_rows(&s.arena, s.t, &cursor, 0, FPS_SCAN_ALL, keys, (uint8_t *const[]){NULL, NULL}, NULL, NULL,
                           &wait, &n),
             FPS_OK);
    CHECK_EQ(n + cursor, 0);
    CHECK_EQ(fps_scan_rows(&s.arena, s.t, &cursor, 2, FPS_SCAN_ALL, keys, (uint8_t *const[]){NULL, (uint8_t *)slot},
                           seen, NULL, &wait, &n),
             FPS_OK);
    CHECK_EQ(n, 2);
    CHECK_EQ(cursor, 2);
    CHECK_EQ(keys[0], 8);
    CHECK_EQ(keys[1], 9);
    check_all_equal(slot[0], 4, 4);
    CHECK(seen[0] == 66 && seen[1] == 4 && seen[2] == 77 && seen[3] == 5);
    CHECK_EQ(fps_scan_rows(&s.arena, s.t, &cursor, 2, FPS_SCAN_ALL, keys, (uint8_t *const[]){NULL, NULL}, NULL, NULL,
                           &wait, &n),
             FPS_OK);
    CHECK_EQ(n, 0);
    cursor = UINT64_MAX; /* not ours, but harmless */
    CHECK_EQ(fps_scan_rows(&s.arena, s.t, &cursor, 2, FPS_SCAN_ALL, keys, (uint8_t *const[]){NULL, NULL}, NULL, NULL,
                           &wait, &n),
             FPS_OK);
    CHECK_EQ(n, 0);
    drop_scene(&s);
}

static void check_seen(const scene *s, uint64_t key, uint32_t times)
{
    uint32_t seen[2];
    fps_scan_seen(s->t, &key, 1, seen);
    CHECK_EQ(seen[1], times);
    CHECK(seen[0] <= fps_row_now(s->t));
    CHECK(seen[0] >= (times > 0));
}

static void a_tracked_table_knows_how_often_a_row_was_asked_for(void)
{
    scene s;
    float outs[5];
    const uint64_t keys[] = {1, 2, 1, 1, 3};
    uint8_t removed;
    fps_table_layout layout = table_of(1, 0, 10);
    layout.tracked = 1;
    make_scene_of(&s, layout);
    CHECK_EQ(push_rows(&s.session, 0, keys, 5, ones, NULL), FPS_OK); /* each place counts */
    check_seen(&s, 1, 3);
    check_seen(&s, 2, 1);
    check_seen(&s, 4, 0);
    CHECK_EQ(pull_rows(&s.session, 0, keys, 4, outs, true), FPS_OK);
    CHECK_EQ(push_rows(&s.session, 0, keys, 2, ones, outs), FPS_OK);
    check_seen(&s, 1, 7);
    check_seen(&s, 2, 3);
    CHECK_EQ(pull_rows(&s.session, 0, keys, 5, outs, false), FPS_OK); /* who only looks does not */
    check_seen(&s, 1, 7);
    check_seen(&s, 3, 1);
    CHECK_EQ(pull_rows(&s.session, 0, (const uint64_t[]){4}, 1, outs, true), FPS_OK);
    check_seen(&s, 4, 1);
    CHECK_EQ(remove_rows(&s.session, 0, keys, 1, NULL, &removed), FPS_OK);
    check_seen(&s, 1, 0);
    CHECK_EQ(push_rows(&s.session, 0, keys, 1, ones, NULL), FPS_OK); /* begins anew */
    check_seen(&s, 1, 1);
    drop_scene(&s);
    make_scene(&s, 1, 10);
    CHECK_EQ(push_rows(&s.session, 0, keys, 5, ones, NULL), FPS_OK);
    check_seen(&s, 1, 0);
    drop_scene(&s);
}

/* Arenas */

static void tables_of_one_arena_know_nothing_of_each_other(void)
{
    const fps_table_layout tables[] = {table_of(1, 0, 1000), table_of(5, 2, 1000), table_of(1, 0, 1000)};
    uint64_t keys[200];
    static float grads[3][1000], outs[1000];
    fps_arena_spec spec = spec_of_tables(tables, COUNT(tables), 2);
    fps_arena arena;
    spec.params_bytes = 40000;
    CHECK_EQ(fps_arena_create(&spec, &arena), FPS_OK);
    fps_session s = open_session(&arena);
    float *params = filled(10000, 1), *got = filled(10000, 0);
    for (uint32_t i = 0; i < 200; i++) keys[i] = i;
    for (uint32_t t = 0; t < 3; t++)
        for (uint32_t i = 0; i < 1000; i++) grads[t][i] = (float)(t + 1);
    for (uint32_t round = 1; round <= 3; round++) {
        CHECK_EQ(push(&s, params), FPS_OK); /* of the parameters, in between */
        for (uint32_t t = 0; t < 3; t++) {
            CHECK_EQ(push_rows(&s, t, keys + t * 10, 100, grads[t], NULL), FPS_OK);
            CHECK_EQ(pull(&s, got), FPS_OK);
            check_all_equal(got, 10000, (float)round);
        }
        for (uint32_t t = 0; t < 3; t++) {
            CHECK_EQ(pull_rows(&s, t, keys, 200, outs, false), FPS_OK);
            for (uint32_t i = 0; i < 200; i++) {
                bool there = i >= t * 10 && i < t * 10 + 100;
                check_all_equal(outs + i * tables[t].dim, tables[t].dim, there ? (float)(round * (t + 1)) : 0);
            }
            CHECK_EQ(live_of(&arena.tables[t]), 100);
            CHECK_EQ(fps_load_relaxed(&arena.tables[t].control->version), round);
            check_table(&arena.tables[t]);
        }
    }
    CHECK_EQ(fps_load_relaxed(&arena.header->version), 3);
    free(params);
    free(got);
    fps_session_close(&s);
    drop_arena(&arena);
}

/* More than the caches hold is written past them, to addresses that suit that and to others. */
static void a_large_pull_is_the_same_as_a_small_one(void)
{
    static const uint32_t dims[] = {1024, 1023, 3};
    for (size_t d = 0; d < COUNT(dims); d++) {
        scene s;
        const uint32_t dim = dims[d], n = (uint32_t)(FPS_STREAM_BYTES / (dim * 4)) + 100;
        uint64_t *keys = malloc(n * sizeof *keys);
        fps_table_layout layout = table_of(dim, 0, 100);
        layout.initial = FPS_INITIAL_UNIFORM;
        layout.second = 1;
        make_scene_of(&s, layout);
        CHECK(keys != NULL);
        for (uint32_t i = 0; i < n; i++) keys[i] = i % 50;
        float *few = filled((size_t)50 * dim, -1), *many = filled((size_t)n * dim + 8, -1);
        CHECK_EQ(pull_rows(&s.session, 0, keys, 50, few, true), FPS_OK);
        for (uint32_t shift = 0; shift < 8; shift += 3) {
            memset(many, 255, ((size_t)n * dim + 8) * 4);
            CHECK_EQ(pull_rows(&s.session, 0, keys, n, many + shift, true), FPS_OK);
            for (uint32_t i = 0; i < n; i++)
                CHECK_EQ(memcmp(many + shift + (size_t)i * dim, few + (size_t)(i % 50) * dim, dim * 4), 0);
        }
        free(few);
        free(many);
        free(keys);
        drop_scene(&s);
    }
}

int main(void)
{
    static const test tests[] = {
        TEST(rows_of_all_shapes_are_what_a_list_of_rows_would_be),
        TEST(gradients_of_one_key_are_summed_in_the_order_of_their_places),
        TEST(the_rule_runs_once_for_each_key_of_a_push),
        TEST(outs_keep_the_order_of_the_keys),
        TEST(a_pull_that_creates_nothing_answers_first_values),
        TEST(nothing_to_do_is_done),
        TEST(a_full_table_refuses_a_push_and_changes_nothing),
        TEST(a_full_table_refuses_keys_whose_tags_it_knows),
        TEST(a_shard_that_is_full_keeps_the_others_from_changing),
        TEST(without_memory_a_push_changes_nothing),
        TEST(a_push_that_met_a_writer_goes_on_and_is_applied_once),
        TEST(a_pull_and_a_scan_wait_for_a_writer),
        TEST(waiting_may_be_called_off_until_a_push_has_begun),
        TEST(a_row_of_a_stopped_process_times_out_and_is_pushed_to_later),
        TEST(a_push_that_goes_on_finds_rows_that_have_moved),
        TEST(a_push_that_must_not_wait_for_row_creation_says_so),
        TEST(a_closed_arena_is_told_apart_from_everything_else),
        TEST(an_arena_that_closes_in_the_middle_is_told_of),
        TEST(a_set_changes_the_streams_that_are_given_and_no_more),
        TEST(a_push_has_its_number_and_one_set_of_hyper_parameters),
        TEST(nobody_waits_for_somebody_who_is_stopped_in_the_middle_of_a_change),
        TEST(a_death_in_the_middle_of_a_change_changes_nothing),
        TEST(meters_count_what_a_session_did),
        TEST(a_scan_brings_each_row_once_whatever_comes_at_a_time),
        TEST(a_scan_brings_what_is_asked_for),
        TEST(a_tracked_table_knows_how_often_a_row_was_asked_for),
        TEST(tables_of_one_arena_know_nothing_of_each_other),
        TEST(a_large_pull_is_the_same_as_a_small_one),
    };
    return run_tests(tests, COUNT(tests));
}

#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/stat.h>

#include "tables.h"

#define MAX_ROWS 3000u

/* Fails from the call on that makes this 0. */
static uint32_t allocations_left = UINT32_MAX;

int posix_fallocate(int fd, off_t from, off_t bytes)
{
    if (allocations_left == 0) return ENOSPC;
    if (allocations_left != UINT32_MAX) allocations_left--;
    return fallocate(fd, 0, from, bytes) == 0 ? 0 : errno;
}

/* The index of a table without rows in it, and what should be there: which row has which tag. */
typedef struct scene {
    fps_arena arena;
    const fps_table *t;
    uint32_t tags[MAX_ROWS];
    bool there[MAX_ROWS];
} scene;

static void make_scene(scene *s)
{
    memset(s, 0, sizeof *s);
    s->arena = make_table(table_of(1, 0, MAX_ROWS), 1);
    s->t = &s->arena.tables[0];
}

static void drop_scene(scene *s) { drop_arena(&s->arena); }

static fps_index index_of(const scene *s) { return fps_index_of(s->t, fps_load_relaxed(&s->t->control->index)); }

static uint64_t tombstones_of(const scene *s) { return fps_load_relaxed(&s->t->control->tombstones); }

static void add(scene *s, uint32_t row, uint32_t tag)
{
    CHECK_EQ(fps_index_reserve(&s->arena, s->t, 1), FPS_OK);
    fps_index_insert(s->t, tag, row);
    fps_count(&s->t->control->live, 1);
    s->tags[row] = tag;
    s->there[row] = true;
}

static void take_out(scene *s, uint32_t row)
{
    fps_index_remove(s->t, s->tags[row], row);
    fps_store_relaxed(&s->t->control->live, live_of(s->t) - 1);
    s->there[row] = false;
}

static void check_search(const scene *s, uint32_t tag)
{
    bool found[MAX_ROWS] = {false};
    const fps_index index = index_of(s);
    fps_search search;
    for (uint32_t row = fps_index_first(&index, tag, &search); row != FPS_NO_ROW;
         row = fps_index_next(&index, &search)) {
        CHECK(row < MAX_ROWS);
        CHECK(!found[row]);
        found[row] = true;
    }
    for (uint32_t row = 0; row < MAX_ROWS; row++) CHECK_EQ(found[row], s->there[row] && s->tags[row] == tag);
}

static void check_scene(const scene *s)
{
    const fps_index index = index_of(s);
    uint64_t rows = 0, tombstones = 0, empty = 0;
    for (uint64_t i = 0; i < (uint64_t)index.n_buckets * FPS_BUCKET_SLOTS; i++) {
        uint64_t slot = fps_load_relaxed(&index.slots[i]);
        tombstones += slot == FPS_SLOT_TOMBSTONE;
        empty += slot == FPS_SLOT_EMPTY;
        if (slot == FPS_SLOT_TOMBSTONE || slot == FPS_SLOT_EMPTY) continue;
        rows++;
        CHECK(s->there[FPS_SLOT_ROW(slot)]);
    }
    CHECK_EQ(rows, live_of(s->t));
    CHECK_EQ(tombstones, tombstones_of(s));
    CHECK(empty * 10 >= rows + tombstones + empty || index.n_buckets == 0); /* every search ends */
}

static void a_new_table_has_no_index_and_finds_nothing(void)
{
    scene s;
    make_scene(&s);
    CHECK_EQ(index_of(&s).n_buckets, 0);
    for (uint32_t i = 0; i < 100; i++) check_search(&s, i * 0x2000000);
    drop_scene(&s);
}

static void a_slot_tells_its_tag_and_row(void)
{
    static const uint32_t tags[] = {0, 1, 0x80000000, UINT32_MAX}, rows[] = {0, 1, 77, (uint32_t)(FPS_MAX_ROWS - 1)};
    for (size_t i = 0; i < COUNT(tags) * COUNT(rows); i++) {
        uint32_t tag = tags[i / COUNT(rows)], row = rows[i % COUNT(rows)];
        uint64_t slot = FPS_SLOT(tag, row);
        CHECK_EQ(FPS_SLOT_TAG(slot), tag);
        CHECK_EQ(FPS_SLOT_ROW(slot), row);
        CHECK(slot != FPS_SLOT_EMPTY && slot != FPS_SLOT_TOMBSTONE);
        CHECK((uint32_t)slot != 0);
    }
}

/* Against a look at one slot after the other. A tombstone has tag 0 and may pass for a match, as its reader knows. */
static void a_bucket_is_matched_as_slot_by_slot(void)
{
    static const uint32_t tags[] = {0, 1, 0x7fffffff, 0x80000000, UINT32_MAX};
    uint64_t state = 1;
    _Alignas(64) fps_word bucket[FPS_BUCKET_SLOTS];
    for (uint32_t round = 0; round < 100000; round++) {
        for (uint32_t i = 0; i < FPS_BUCKET_SLOTS; i++) {
            uint32_t kind = random_below(&state, 4);
            uint32_t tag = tags[random_below(&state, COUNT(tags))];
            fps_store_relaxed(&bucket[i], kind == 0   ? FPS_SLOT_EMPTY
                                          : kind == 1 ? FPS_SLOT_TOMBSTONE
                                                      : FPS_SLOT(tag, random_below(&state, 1u << 31)));
        }
        for (size_t k = 0; k < COUNT(tags); k++) {
            uint32_t matches, empty;
            fps_index_match(bucket, tags[k], &matches, &empty);
            for (uint32_t i = 0; i < FPS_BUCKET_SLOTS; i++) {
                uint64_t slot = fps_load_relaxed(&bucket[i]);
                CHECK_EQ(empty >> i & 1, slot == FPS_SLOT_EMPTY);
                CHECK_EQ(matches >> i & 1, slot != FPS_SLOT_EMPTY && FPS_SLOT_TAG(slot) == tags[k]);
            }
            CHECK_EQ((matches | empty) >> FPS_BUCKET_SLOTS, 0);
        }
    }
}

static void a_bucket_follows_from_the_tag_in_order(void)
{
    static const uint32_t sizes[] = {1, 2, 64, 65, 814, UINT32_MAX};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        const fps_index index = {.n_buckets = sizes[i]};
        uint32_t last = 0;
        CHECK_EQ(fps_index_bucket(&index, 0), 0);
        CHECK_EQ(fps_index_bucket(&index, UINT32_MAX), sizes[i] - 1);
        for (uint64_t tag = 0; tag <= UINT32_MAX; tag += 999983) {
            uint32_t bucket = fps_index_bucket(&index, (uint32_t)tag);
            CHECK(bucket >= last && bucket < sizes[i]);
            last = bucket;
        }
    }
}

/* Tags of all kinds: spread, few, and those of the last buckets, whose searches go on at the first. */
static uint32_t some_tag(uint64_t *state, uint32_t kind)
{
    if (kind == 0) return random_below(state, UINT32_MAX);
    if (kind == 1) return random_below(state, 40) * 0x6000000;
    if (kind == 2) return UINT32_MAX - random_below(state, 200);
    return random_below(state, 2) ? random_below(state, 3) : UINT32_MAX - random_below(state, 3);
}

static void check_random_changes(uint64_t seed, uint32_t kind)
{
    static scene s;
    uint64_t state = seed;
    make_scene(&s);
    for (uint32_t round = 0; round < 6000; round++) {
        uint32_t grows = round / 1500 % 2 ? 3 : 7; /* of ten changes so many add a row: it grows and shrinks */
        uint32_t row = random_below(&state, MAX_ROWS);
        if (random_below(&state, 10) < grows) {
            for (; s.there[row]; row = (row + 1) % MAX_ROWS) {
            }
            add(&s, row, some_tag(&state, kind));
        } else if (live_of(s.t) > 0) {
            for (; !s.there[row]; row = (row + 1) % MAX_ROWS) {
            }
            take_out(&s, row);
        }
        check_search(&s, s.tags[row]);
        check_search(&s, some_tag(&state, kind));
        if (round % 500 == 0) check_scene(&s);
    }
    check_scene(&s);
    for (uint32_t row = 0; row < MAX_ROWS; row++)
        if (s.there[row]) check_search(&s, s.tags[row]);
    drop_scene(&s);
}

static void random_changes_leave_what_a_list_would_hold(void)
{
    uint64_t seed = (uint64_t)time(NULL);
    printf("  seed %ju\n", (uintmax_t)seed);
    for (uint32_t kind = 0; kind < 4; kind++) check_random_changes(seed + kind, kind);
}

static void an_index_fills_up_to_the_most_rows_of_its_table(void)
{
    static scene s;
    for (uint32_t kind = 0; kind < 3; kind++) {
        uint64_t state = kind;
        make_scene(&s);
        for (uint32_t row = 0; row < MAX_ROWS; row++) add(&s, row, kind == 2 ? 99 : some_tag(&state, kind));
        CHECK_EQ(fps_index_reserve(&s.arena, s.t, 0), FPS_OK);
        check_scene(&s);
        CHECK(index_of(&s).n_buckets <= s.t->layout.max_buckets);
        for (uint32_t row = 0; row < MAX_ROWS; row += 100) check_search(&s, s.tags[row]);
        check_search(&s, 98);
        for (uint32_t row = 0; row < MAX_ROWS; row++) take_out(&s, row);
        check_scene(&s);
        check_search(&s, 99);
        drop_scene(&s);
    }
}

static void growing_takes_place_in_the_other_place_and_gives_the_old_ones_memory_back(void)
{
    static scene s;
    uint64_t state = 5, generation = 0;
    make_scene(&s);
    const fps_control *c = s.t->control;
    for (uint32_t row = 0; row < MAX_ROWS; row++) {
        uint64_t before = fps_load_relaxed(&c->index);
        add(&s, row, random_below(&state, UINT32_MAX));
        uint64_t word = fps_load_relaxed(&c->index);
        if (word == before) continue;
        CHECK_EQ(FPS_INDEX_GENERATION(word), ++generation);
        CHECK_EQ(fps_load_relaxed(&c->rebuilt), generation);
        CHECK(FPS_INDEX_BUCKETS(word) > FPS_INDEX_BUCKETS(before));
        CHECK(fps_load_relaxed(&c->index_backed[generation & 1]) >= FPS_INDEX_BUCKETS(word) * 64);
        CHECK_EQ(fps_load_relaxed(&c->index_backed[(generation + 1) & 1]), 0);
        for (uint64_t i = 0; i < s.t->layout.index_stride; i += 512) CHECK_EQ(s.t->index[(generation + 1) & 1][i], 0);
        check_scene(&s);
    }
    CHECK(generation > 3);
    drop_scene(&s);
}

/* Somebody who has not noticed that the index was built anew finds nothing in the old one, and looks again. */
static void a_late_reader_finds_nothing_in_an_index_that_is_gone(void)
{
    static scene s;
    make_scene(&s);
    for (uint32_t row = 0; row < 400; row++) add(&s, row, row * 0x400000);
    const fps_index old = index_of(&s);
    for (uint32_t row = 400; row < 1000; row++) add(&s, row, row * 0x400000);
    CHECK(index_of(&s).slots != old.slots);
    fps_search search;
    for (uint32_t row = 0; row < 400; row++) CHECK_EQ(fps_index_first(&old, row * 0x400000, &search), FPS_NO_ROW);
    for (uint32_t row = 1000; row < 2500; row++) add(&s, row, row * 0x400000); /* in the place that was read late */
    for (uint32_t row = 0; row < 2500; row += 7) check_search(&s, row * 0x400000);
    check_scene(&s);
    drop_scene(&s);
}

static void a_row_whose_bucket_has_room_leaves_no_tombstone(void)
{
    static scene s;
    make_scene(&s);
    for (uint32_t row = 0; row < 7; row++) add(&s, row, 5);
    for (uint32_t row = 0; row < 7; row++) take_out(&s, row);
    CHECK_EQ(tombstones_of(&s), 0);
    for (uint32_t row = 0; row < 8; row++) add(&s, row, 5);
    take_out(&s, 3); /* searches go on behind it */
    CHECK_EQ(tombstones_of(&s), 1);
    add(&s, 8, 5);
    CHECK_EQ(tombstones_of(&s), 0); /* the first row that comes takes its slot */
    check_search(&s, 5);
    check_scene(&s);
    drop_scene(&s);
}

/* One tag for all: a run over most of the index, every slot of it a tombstone in the end. */
static void an_index_full_of_tombstones_is_searched_to_its_end_and_built_anew(void)
{
    static scene s;
    make_scene(&s);
    for (uint32_t row = 0; row < 460; row++) add(&s, row, 0xf0000000);
    CHECK_EQ(index_of(&s).n_buckets, 64);
    for (uint32_t row = 0; row < 460; row++) take_out(&s, row);
    CHECK(tombstones_of(&s) >= 456);
    check_search(&s, 0xf0000000);
    check_search(&s, 0);
    check_search(&s, 0x10000000);
    const uint64_t generation = FPS_INDEX_GENERATION(fps_load_relaxed(&s.t->control->index));
    for (uint32_t row = 0; row < 460; row++) add(&s, row, 0x70000000); /* in the tombstones' way, beyond it */
    check_search(&s, 0x70000000);
    CHECK(FPS_INDEX_GENERATION(fps_load_relaxed(&s.t->control->index)) > generation);
    CHECK_EQ(tombstones_of(&s), 0);
    check_scene(&s);
    drop_scene(&s);
}

/* Nothing but tombstones and not one empty slot: this cannot be, and is survived. */
static void a_search_without_an_end_ends(void)
{
    static scene s;
    make_scene(&s);
    add(&s, 0, 1);
    fps_word *slots = (fps_word *)(void *)s.t->index[1];
    for (uint32_t i = 0; i < 64 * FPS_BUCKET_SLOTS; i++) fps_store_relaxed(&slots[i], FPS_SLOT_TOMBSTONE);
    const fps_index index = index_of(&s);
    fps_search search;
    for (uint64_t tag = 0; tag <= UINT32_MAX; tag += UINT32_MAX / 9)
        CHECK_EQ(fps_index_first(&index, (uint32_t)tag, &search), FPS_NO_ROW);
    fps_store_relaxed(&slots[64 * FPS_BUCKET_SLOTS - 1], FPS_SLOT(77, 5));
    CHECK_EQ(fps_index_first(&index, 77, &search), 5);
    fps_index_next(&index, &search);
    drop_scene(&s);
}

static void a_number_of_buckets_that_cannot_be_is_not_trusted(void)
{
    static scene s;
    make_scene(&s);
    for (uint32_t row = 0; row < 100; row++) add(&s, row, row * 0x2000000);
    static const uint32_t nonsense[] = {0, 1, 63, 65, 1000, UINT32_MAX, 0x80000000};
    const uint64_t word = fps_load_relaxed(&s.t->control->index);
    for (size_t i = 0; i < COUNT(nonsense); i++) {
        fps_store_relaxed(&s.t->control->index, FPS_INDEX(FPS_INDEX_GENERATION(word), nonsense[i]));
        const fps_index index = index_of(&s);
        CHECK(index.n_buckets <= s.t->layout.max_buckets);
        fps_search search;
        for (uint64_t tag = 0; tag <= UINT32_MAX; tag += UINT32_MAX / 99) {
            uint32_t row = fps_index_first(&index, (uint32_t)tag, &search);
            CHECK(row == FPS_NO_ROW || row < 100);
        }
    }
    fps_store_relaxed(&s.t->control->index, word);
    check_scene(&s);
    drop_scene(&s);
}

static void the_index_stays_when_there_is_no_memory_for_a_new_one(void)
{
    static scene s;
    uint32_t refusals = 0;
    make_scene(&s);
    allocations_left = 0;
    CHECK_EQ(fps_index_reserve(&s.arena, s.t, 1), FPS_NO_MEMORY);
    CHECK_EQ(index_of(&s).n_buckets, 0);
    allocations_left = UINT32_MAX;
    for (uint32_t row = 0; row < MAX_ROWS; row++) {
        uint64_t before = fps_load_relaxed(&s.t->control->index);
        allocations_left = 0;
        if (fps_index_reserve(&s.arena, s.t, 1) != FPS_OK) {
            CHECK_EQ(fps_load_relaxed(&s.t->control->index), before);
            check_scene(&s);
            for (uint32_t k = 0; k < row; k += 50) check_search(&s, s.tags[k]);
            refusals++;
        }
        allocations_left = UINT32_MAX;
        add(&s, row, row * 0x100001);
    }
    CHECK_EQ(refusals, FPS_INDEX_GENERATION(fps_load_relaxed(&s.t->control->index)));
    drop_scene(&s);
}

static void more_rows_than_the_table_may_have_get_no_room(void)
{
    static scene s;
    make_scene(&s);
    CHECK_EQ(fps_index_reserve(&s.arena, s.t, UINT64_C(1) << 40), FPS_TABLE_FULL);
    CHECK_EQ(index_of(&s).n_buckets, 0);
    CHECK_EQ(fps_index_reserve(&s.arena, s.t, MAX_ROWS), FPS_OK);
    CHECK(index_of(&s).n_buckets * 8 * 9 / 10 >= MAX_ROWS);
    drop_scene(&s);
}

int main(void)
{
    static const test tests[] = {
        TEST(a_new_table_has_no_index_and_finds_nothing),
        TEST(a_slot_tells_its_tag_and_row),
        TEST(a_bucket_is_matched_as_slot_by_slot),
        TEST(a_bucket_follows_from_the_tag_in_order),
        TEST(random_changes_leave_what_a_list_would_hold),
        TEST(an_index_fills_up_to_the_most_rows_of_its_table),
        TEST(growing_takes_place_in_the_other_place_and_gives_the_old_ones_memory_back),
        TEST(a_late_reader_finds_nothing_in_an_index_that_is_gone),
        TEST(a_row_whose_bucket_has_room_leaves_no_tombstone),
        TEST(an_index_full_of_tombstones_is_searched_to_its_end_and_built_anew),
        TEST(a_search_without_an_end_ends),
        TEST(a_number_of_buckets_that_cannot_be_is_not_trusted),
        TEST(the_index_stays_when_there_is_no_memory_for_a_new_one),
        TEST(more_rows_than_the_table_may_have_get_no_room),
    };
    return run_tests(tests, COUNT(tests));
}

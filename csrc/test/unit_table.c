#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/stat.h>

#include "initial.h"
#include "tables.h"

#define MAX_ROWS 3000u
#define DIM 5u

/* Fails from the call on that makes this 0. */
static uint32_t allocations_left = UINT32_MAX;

int posix_fallocate(int fd, off_t from, off_t bytes)
{
    if (allocations_left == 0) return ENOSPC;
    if (allocations_left != UINT32_MAX) allocations_left--;
    return fallocate(fd, 0, from, bytes) == 0 ? 0 : errno;
}

#ifndef __SANITIZE_ADDRESS__
static bool no_zeroed_memory;
void *__libc_calloc(size_t n, size_t bytes);
void *calloc(size_t n, size_t bytes) { return no_zeroed_memory ? NULL : __libc_calloc(n, bytes); }
#endif

static uint64_t fnv1a(const void *bytes, size_t n)
{
    const uint8_t *b = bytes;
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < n; i++) hash = (hash ^ b[i]) * UINT64_C(0x100000001b3);
    return hash;
}

static const fps_wait no_wait = {.deadline_ns = FPS_NO_WAIT}, for_ever = {.deadline_ns = FPS_NEVER};

/* The header */

/* The beginning of an arena, as a peer reads it. */
typedef struct head {
    uint8_t bytes[FPS_HEAD_BYTES];
    uint64_t file_bytes;
    fps_layout layout;
    fps_table_layout tables[FPS_MAX_TABLES];
} head;

static fps_table_layout *table_in(head *h, uint32_t i)
{
    return (fps_table_layout *)(void *)(h->bytes + FPS_HEADER_BYTES) + i;
}

static fps_status parse(head *h, size_t available)
{
    return fps_layout_parse(h->bytes, available, h->file_bytes, &h->layout, h->tables);
}

static fps_table_layout some_table(void)
{
    fps_table_layout table = table_of(7, 2, 5000);
    table.row_slots = 2;
    table.initial = FPS_INITIAL_NORMAL;
    table.second = 0.1;
    table.slots[0] = 0.5;
    table.tracked = 1;
    return table;
}

static void read_head(head *h)
{
    const fps_table_layout tables[] = {some_table(), table_of(1, 0, 1)};
    fps_arena_spec spec = spec_of_tables(tables, 2, 3);
    fps_arena arena;
    spec.params_bytes = 5000;
    spec.n_slots = 1;
    CHECK_EQ(fps_arena_create(&spec, &arena), FPS_OK);
    CHECK_EQ(pread(arena.fd, h->bytes, sizeof h->bytes, 0), sizeof h->bytes);
    h->file_bytes = arena.layout.total_bytes;
    drop_arena(&arena);
}

static void a_head_with_tables_parses_to_what_was_planned(void)
{
    static head h;
    read_head(&h);
    CHECK_EQ(parse(&h, sizeof h.bytes), FPS_OK);
    CHECK_EQ(h.layout.n_tables, 2);
    CHECK_EQ(memcmp(h.tables, h.bytes + FPS_HEADER_BYTES, 2 * sizeof(fps_table_layout)), 0);
    fps_table_layout asked = some_table();
    CHECK_EQ(memcmp(&h.tables[0], &asked, offsetof(fps_table_layout, row_bytes)), 0);
    CHECK_EQ(h.tables[0].row_bytes, (24 + 4 * (7 + 7 + 1) + 7) / 8 * 8);
    CHECK_EQ(h.tables[0].checksum, fnv1a(&h.tables[0], offsetof(fps_table_layout, checksum)));
}

static void every_flipped_bit_of_a_table_is_refused(void)
{
    static head h;
    read_head(&h);
    for (size_t i = 0; i < 2 * sizeof(fps_table_layout); i++) {
        for (int bit = 0; bit < 8; bit++) {
            h.bytes[FPS_HEADER_BYTES + i] ^= (uint8_t)(1 << bit);
            CHECK_EQ(parse(&h, sizeof h.bytes), FPS_BAD_HEADER);
            h.bytes[FPS_HEADER_BYTES + i] ^= (uint8_t)(1 << bit);
        }
    }
    CHECK_EQ(parse(&h, sizeof h.bytes), FPS_OK);
}

/* A checksum shows accidents only. What a row begins with is free; so are its tracking and its most rows as long as
 * nothing that follows from them changes. */
static void every_field_of_a_table_that_does_not_add_up_is_refused(void)
{
    static head h;
    read_head(&h);
    const fps_table_layout good = *table_in(&h, 0);
    for (size_t i = 0; i < offsetof(fps_table_layout, checksum); i++) {
        bool free = i >= offsetof(fps_table_layout, seed) && i < offsetof(fps_table_layout, max_rows);
        fps_table_layout *table = table_in(&h, 0);
        ((uint8_t *)table)[i] ^= 0x40;
        table->checksum = fnv1a(table, offsetof(fps_table_layout, checksum));
        CHECK_EQ(parse(&h, sizeof h.bytes), free ? FPS_OK : FPS_BAD_HEADER);
        *table = good;
    }
}

static void a_head_that_ends_within_its_tables_is_refused(void)
{
    static head h;
    read_head(&h);
    const size_t all = FPS_HEADER_BYTES + 2 * sizeof(fps_table_layout);
    for (size_t available = sizeof(fps_layout); available < all; available++) CHECK(parse(&h, available) != FPS_OK);
    CHECK_EQ(parse(&h, all), FPS_OK);
    h.file_bytes--;
    CHECK_EQ(parse(&h, all), FPS_TRUNCATED);
}

static void a_number_of_tables_that_cannot_be_is_refused(void)
{
    static head h;
    read_head(&h);
    fps_layout *layout = (fps_layout *)(void *)h.bytes;
    static const uint32_t numbers[] = {0, 1, 3, FPS_MAX_TABLES, FPS_MAX_TABLES + 1, UINT32_MAX};
    for (size_t i = 0; i < COUNT(numbers); i++) {
        layout->n_tables = numbers[i];
        layout->checksum = fnv1a(layout, offsetof(fps_layout, checksum));
        CHECK_EQ(parse(&h, sizeof h.bytes), FPS_BAD_HEADER);
    }
}

static void a_table_of_nonsense_is_refused(void)
{
    fps_table_layout tables[15];
    size_t n = 0;
    for (size_t i = 0; i < COUNT(tables); i++) tables[i] = table_of(4, 2, 100);
    tables[n++].dim = 0;
    tables[n++].dim = FPS_MAX_DIM + 1;
    tables[n++].dim = UINT32_MAX;
    tables[n++].item_bytes = 0;
    tables[n++].item_bytes = 2;
    tables[n++].item_bytes = 16;
    tables[n++].n_slots = FPS_MAX_SLOTS + 1;
    tables[n++].n_slots = UINT32_MAX;
    tables[n++].row_slots = 4;
    tables[n++].row_slots = UINT32_MAX;
    tables[n++].initial = FPS_INITIAL_NORMAL + 1;
    tables[n++].tracked = 2;
    tables[n++].max_rows = 0;
    tables[n++].max_rows = FPS_MAX_ROWS + 1;
    tables[n++].max_rows = UINT64_MAX;
    CHECK_EQ(n, COUNT(tables));
    for (size_t i = 0; i < COUNT(tables); i++) {
        const fps_table_layout both[] = {table_of(1, 0, 1), tables[i]};
        fps_arena_spec spec = spec_of_tables(both, 2, 1);
        fps_arena arena;
        CHECK_EQ(fps_arena_bytes(&spec), 0);
        CHECK_EQ(fps_arena_create(&spec, &arena), FPS_BAD_HEADER);
    }
}

static void an_arena_has_parameters_or_a_table_and_not_too_many(void)
{
    static fps_table_layout tables[FPS_MAX_TABLES + 1];
    for (uint32_t i = 0; i <= FPS_MAX_TABLES; i++) tables[i] = table_of(1 + i, i % 3, 1000);
    fps_arena_spec spec = spec_of_tables(tables, 0, 1);
    fps_arena arena;
    CHECK_EQ(fps_arena_create(&spec, &arena), FPS_BAD_HEADER);
    spec.n_tables = FPS_MAX_TABLES + 1;
    CHECK_EQ(fps_arena_create(&spec, &arena), FPS_BAD_HEADER);
    spec.n_tables = FPS_MAX_TABLES;
    CHECK_EQ(fps_arena_create(&spec, &arena), FPS_OK);
    CHECK_EQ(arena.layout.n_tables, 64);
    for (uint32_t i = 0; i < FPS_MAX_TABLES; i++) CHECK_EQ(arena.tables[i].layout.dim, 1 + i);
    drop_arena(&arena);
}

static void a_table_that_no_address_space_holds_is_refused(void)
{
    fps_table_layout table = table_of(FPS_MAX_DIM, 2, FPS_MAX_ROWS);
    fps_arena_spec spec = spec_of_tables(&table, 1, 1);
    fps_arena arena;
    table.item_bytes = 8;
    CHECK_EQ(fps_arena_create(&spec, &arena), FPS_NO_MEMORY);
    CHECK_EQ(fps_arena_bytes(&spec), 0);
}

/* Where things lie */

typedef struct range {
    const uint8_t *from;
    uint64_t bytes;
} range;

static void check_apart(const range *ranges, size_t n, const fps_arena *arena)
{
    for (size_t i = 0; i < n; i++) {
        CHECK(ranges[i].from >= arena->base);
        CHECK(ranges[i].from + ranges[i].bytes <= arena->base + arena->layout.total_bytes);
        for (size_t j = 0; j < i; j++)
            CHECK(ranges[i].from + ranges[i].bytes <= ranges[j].from ||
                  ranges[j].from + ranges[j].bytes <= ranges[i].from);
    }
}

static void check_places(uint64_t params_bytes, bool rounds)
{
    const fps_table_layout tables[] = {some_table(), table_of(1, 0, 1), table_of(257, 2, 100000)};
    fps_arena_spec spec = spec_of_tables(tables, COUNT(tables), 3);
    fps_arena arena;
    range ranges[6 + 4 * COUNT(tables)];
    size_t n = 0;
    spec.params_bytes = params_bytes;
    spec.n_members = 2;
    if (rounds) spec.policy = (fps_policy){.kind = FPS_BSP, .quorum = 2};
    CHECK_EQ(fps_arena_create(&spec, &arena), FPS_OK);
    const fps_layout *l = &arena.layout;
    ranges[n++] = (range){arena.base, FPS_HEADER_BYTES + COUNT(tables) * sizeof(fps_table_layout)};
    ranges[n++] = (range){(uint8_t *)arena.seats, l->n_sessions * sizeof(fps_seat)};
    ranges[n++] = (range){(uint8_t *)arena.stripes, l->n_stripes * sizeof(fps_stripe)};
    ranges[n++] = (range){(uint8_t *)arena.board, sizeof(fps_board)};
    ranges[n++] = (range){arena.redo, (uint64_t)l->n_sessions * l->redo_bytes};
    ranges[n++] = (range){arena.params, rounds ? l->trays_offset - l->params_offset : l->params_bytes};
    for (uint32_t i = 0; i < COUNT(tables); i++) {
        const fps_table *t = &arena.tables[i];
        CHECK_EQ(t->number, i);
        CHECK_EQ((uintptr_t)t->control % FPS_PAGE, 0);
        CHECK((uint8_t *)t->control + FPS_PAGE <= arena.base + l->fixed_bytes); /* is there from the beginning */
        ranges[n++] = (range){(uint8_t *)t->control, FPS_PAGE};
        for (int place = 0; place < 2; place++) {
            CHECK_EQ((uintptr_t)t->index[place] % FPS_HUGE_PAGE, 0);
            ranges[n++] = (range){t->index[place], t->layout.max_buckets * FPS_BUCKET_BYTES};
        }
        CHECK_EQ((uintptr_t)t->rows % FPS_HUGE_PAGE, 0);
        CHECK_EQ(t->layout.row_bytes % 8, 0);
        ranges[n++] = (range){t->rows, t->layout.max_rows * t->layout.row_bytes};
        CHECK(l->redo_bytes >= t->layout.row_bytes - t->head_bytes);
        CHECK(t->layout.max_buckets * 8 * 9 / 10 >= t->layout.max_rows);
    }
    CHECK_EQ(l->redo_bytes % 8, 0);
    CHECK_EQ(n, COUNT(ranges));
    check_apart(ranges, n, &arena);
    drop_arena(&arena);
}

static void tables_lie_apart_from_each_other_and_from_all_else(void)
{
    check_places(0, false);
    check_places(100000, false);
    check_places(100000, true);
}

static void streams_of_a_row_lie_one_behind_the_other(void)
{
    fps_table_layout layout = table_of(7, 3, 10);
    layout.row_slots = 2;
    for (layout.item_bytes = 4; layout.item_bytes <= 8; layout.item_bytes += 4) {
        for (layout.tracked = 0; layout.tracked <= 1; layout.tracked++) {
            fps_arena arena = make_table(layout, 1);
            const fps_table *t = &arena.tables[0];
            const uint32_t item = layout.item_bytes;
            CHECK_EQ(t->head_bytes, layout.tracked ? 24 : 16);
            CHECK_EQ(t->at[0], t->head_bytes);
            for (uint32_t k = 0; k <= 3; k++) {
                CHECK_EQ(t->bytes[k], k == 2 ? item : 7 * item);
                CHECK_EQ(t->at[k] % item, 0);
                if (k > 0) CHECK_EQ(t->at[k], t->at[k - 1] + t->bytes[k - 1]);
            }
            CHECK(t->layout.row_bytes >= t->at[3] + t->bytes[3]);
            drop_arena(&arena);
        }
    }
}

static int64_t memory_of(const fps_arena *arena)
{
    struct stat file;
    CHECK_EQ(fstat(arena->fd, &file), 0);
    CHECK_EQ(file.st_size, (int64_t)arena->layout.total_bytes);
    return file.st_blocks * 512;
}

/* Row creation */

/* Keys 0, 1, 2 ... of one table, and how a row of each looks at first. */
typedef struct scene {
    fps_arena arena;
    const fps_table *t;
    fps_session session;
    uint64_t keys[MAX_ROWS], hashes[MAX_ROWS];
    uint32_t rows[MAX_ROWS];
} scene;

static void make_scene(scene *s, uint64_t max_rows)
{
    fps_table_layout layout = table_of(DIM, 1, max_rows);
    layout.initial = FPS_INITIAL_UNIFORM;
    layout.second = 1;
    layout.slots[0] = 0.25;
    s->arena = make_table(layout, 2);
    s->t = &s->arena.tables[0];
    s->session = open_session(&s->arena);
    for (uint32_t i = 0; i < MAX_ROWS; i++) {
        s->keys[i] = i;
        s->hashes[i] = fps_hash(i);
        s->rows[i] = FPS_NO_ROW;
    }
}

static void drop_scene(scene *s)
{
    fps_session_close(&s->session);
    drop_arena(&s->arena);
}

static fps_status create_missing(scene *s, uint32_t from, uint32_t n)
{
    for (uint32_t i = from; i < from + n; i++) s->rows[i] = FPS_NO_ROW;
    return fps_table_create_rows(&s->arena, s->t, s->keys + from, s->hashes + from, n, s->rows + from, &for_ever);
}

static void check_first_values(const scene *s, uint32_t i)
{
    float values[DIM], found[DIM], slot[DIM];
    fps_initial_fill(&s->t->layout, s->keys[i], values);
    uint8_t *at = fps_row_at(s->t, s->rows[i]);
    CHECK_EQ(fps_load_relaxed(fps_row_key(at)), s->keys[i]);
    memcpy(found, at + s->t->at[0], sizeof found);
    memcpy(slot, at + s->t->at[1], sizeof slot);
    CHECK_EQ(memcmp(values, found, sizeof values), 0);
    check_all_equal(slot, DIM, 0.25F);
}

static void a_row_is_created_with_its_first_values(void)
{
    static scene s;
    make_scene(&s, MAX_ROWS);
    CHECK_EQ(create_missing(&s, 0, MAX_ROWS), FPS_OK);
    for (uint32_t i = 0; i < MAX_ROWS; i++) {
        CHECK_EQ(s.rows[i], i); /* in their order */
        check_first_values(&s, i);
        CHECK_EQ(fps_rowset_find(s.t, s.keys[i], s.hashes[i]), i);
    }
    CHECK_EQ(live_of(s.t), MAX_ROWS);
    CHECK_EQ(fps_load_relaxed(&s.t->control->rows_created), MAX_ROWS);
    check_table(s.t);
    drop_scene(&s);
}

static void a_key_that_has_a_row_keeps_it(void)
{
    static scene s;
    make_scene(&s, MAX_ROWS);
    CHECK_EQ(create_missing(&s, 10, 10), FPS_OK);
    CHECK_EQ(create_missing(&s, 0, 30), FPS_OK);
    for (uint32_t i = 0; i < 30; i++) CHECK_EQ(s.rows[i], i < 10 ? 10 + i : i < 20 ? i - 10 : i);
    CHECK_EQ(fps_load_relaxed(&s.t->control->rows_created), 30);
    CHECK_EQ(create_missing(&s, 0, 0), FPS_OK);
    check_table(s.t);
    drop_scene(&s);
}

static void keys_of_one_tag_have_rows_of_their_own(void)
{
    static scene s;
    make_scene(&s, MAX_ROWS);
    for (uint32_t i = 0; i < 200; i++) {
        s.keys[i] = key_of_tag(i < 100 ? 0 : UINT32_MAX, i);
        s.hashes[i] = fps_hash(s.keys[i]);
        CHECK_EQ(fps_hash_tag(s.hashes[i]), i < 100 ? 0 : UINT32_MAX);
    }
    CHECK_EQ(create_missing(&s, 0, 200), FPS_OK);
    CHECK_EQ(create_missing(&s, 0, 200), FPS_OK);
    for (uint32_t i = 0; i < 200; i++) CHECK_EQ(s.rows[i], i);
    check_table(s.t);
    drop_scene(&s);
}

/* As a whole table is: all that could change. */
typedef struct picture {
    fps_control control;
    uint8_t *rows;
} picture;

static picture picture_of(const scene *s)
{
    picture p;
    uint64_t bytes = fps_load_relaxed(&s->t->control->high) * s->t->layout.row_bytes;
    memcpy(&p.control, s->t->control, sizeof p.control);
    p.rows = malloc(bytes + 1);
    CHECK(p.rows != NULL);
    memcpy(p.rows, s->t->rows, bytes);
    return p;
}

static void check_unchanged(const scene *s, picture *p)
{
    const size_t from = offsetof(fps_control, live);
    const size_t to = offsetof(fps_control, tombstones) + sizeof(fps_word); /* an index may have been built */
    CHECK_EQ(memcmp((const uint8_t *)&p->control + from, (const uint8_t *)s->t->control + from, to - from), 0);
    CHECK_EQ(memcmp(p->rows, s->t->rows, fps_load_relaxed(&s->t->control->high) * s->t->layout.row_bytes), 0);
    CHECK(fps_load_relaxed(&s->t->control->rows_backed) >= fps_load_relaxed(&p->control.rows_backed));
    free(p->rows);
    check_table(s->t);
}

static void a_full_table_bears_all_or_none(void)
{
    static scene s;
    make_scene(&s, 100);
    CHECK_EQ(create_missing(&s, 0, 90), FPS_OK);
    picture p = picture_of(&s);
    CHECK_EQ(create_missing(&s, 80, 21), FPS_TABLE_FULL);
    CHECK_EQ(create_missing(&s, 90, 11), FPS_TABLE_FULL);
    CHECK_EQ(create_missing(&s, 0, 2000), FPS_TABLE_FULL);
    check_unchanged(&s, &p);
    CHECK_EQ(create_missing(&s, 80, 20), FPS_OK);
    CHECK_EQ(live_of(s.t), 100);
    CHECK_EQ(create_missing(&s, 0, 100), FPS_OK);
    CHECK_EQ(create_missing(&s, 100, 1), FPS_TABLE_FULL);
    uint8_t removed;
    CHECK_EQ(remove_rows(&s.session, 0, &s.keys[5], 1, NULL, &removed), FPS_OK);
    CHECK_EQ(create_missing(&s, 100, 2), FPS_TABLE_FULL);
    CHECK_EQ(create_missing(&s, 100, 1), FPS_OK);
    check_table(s.t);
    drop_scene(&s);
}

static void a_table_of_one_row_has_one_row(void)
{
    static scene s;
    make_scene(&s, 1);
    CHECK_EQ(create_missing(&s, 0, 2), FPS_TABLE_FULL);
    CHECK_EQ(live_of(s.t), 0);
    CHECK_EQ(create_missing(&s, 7, 1), FPS_OK);
    CHECK_EQ(create_missing(&s, 8, 1), FPS_TABLE_FULL);
    check_table(s.t);
    drop_scene(&s);
}

/* Whichever allocation fails, of the index or of the rows, with small pages or in steps of 2 MiB. */
static void without_memory_nothing_is_created(void)
{
    fps_table_layout layout = table_of(2000, 0, MAX_ROWS);
    static scene s;
    uint32_t refusals = 0;
    make_scene(&s, MAX_ROWS);
    drop_scene(&s);
    s.arena = make_table(layout, 2);
    s.t = &s.arena.tables[0];
    s.session = open_session(&s.arena);
    static const uint32_t steps[] = {1, 7, 30, 200, 500, 700};
    for (uint32_t i = 0, from = 0; i < COUNT(steps); from += steps[i], i++) {
        for (uint32_t fails = 0;; fails++) {
            picture p = picture_of(&s);
            allocations_left = fails;
            fps_status status = create_missing(&s, from, steps[i]);
            allocations_left = UINT32_MAX;
            if (status == FPS_OK) {
                free(p.rows);
                break;
            }
            CHECK_EQ(status, FPS_NO_MEMORY);
            check_unchanged(&s, &p);
            refusals++;
        }
        CHECK_EQ(live_of(s.t), from + steps[i]);
        check_table(s.t);
    }
    CHECK(refusals >= 6);
    drop_scene(&s);
}

/* Memory that a refused growth leaves to the rows is known of still: they are found after a death, too. */
static void enter_and_die(void *argument)
{
    const scene *s = argument;
    CHECK_EQ(fps_rowset_enter(&s->arena, s->t, &for_ever), FPS_OK);
    die();
}

static void a_death_behind_a_growth_without_memory_loses_no_row(void)
{
    static scene s;
    make_scene(&s, MAX_ROWS);
    drop_scene(&s);
    s.arena = make_table(table_of(2000, 0, MAX_ROWS), 2);
    s.t = &s.arena.tables[0];
    s.session = open_session(&s.arena);
    CHECK_EQ(create_missing(&s, 0, 3), FPS_OK);
    allocations_left = 0;
    CHECK_EQ(create_missing(&s, 3, 400), FPS_NO_MEMORY);
    allocations_left = UINT32_MAX;
    expect_killed(start_process(enter_and_die, &s));
    enter_and_leave(&s.arena, s.t);
    CHECK_EQ(live_of(s.t), 3);
    check_table(s.t);
    CHECK_EQ(create_missing(&s, 0, 400), FPS_OK);
    check_table(s.t);
    drop_scene(&s);
}

static void a_closed_arena_bears_nothing(void)
{
    static scene s;
    uint8_t removed;
    make_scene(&s, MAX_ROWS);
    CHECK_EQ(create_missing(&s, 0, 5), FPS_OK);
    fps_arena_retire(&s.arena);
    CHECK_EQ(create_missing(&s, 0, 7), FPS_CLOSED);
    CHECK_EQ(remove_rows(&s.session, 0, s.keys, 5, NULL, &removed), FPS_CLOSED);
    CHECK_EQ(fps_table_configure(&s.arena, s.t, 1, (double[FPS_MAX_HYPER]){1}, &for_ever), FPS_CLOSED);
    CHECK_EQ(fps_lock_holder(&s.t->control->lock), 0);
    drop_scene(&s);
}

static void one_at_a_time_adds_rows(void)
{
    static scene s;
    make_scene(&s, MAX_ROWS);
    CHECK_EQ(create_missing(&s, 0, 1), FPS_OK);
    CHECK_EQ(fps_rowset_enter(&s.arena, s.t, &no_wait), FPS_OK);
    fps_wait brief = wait_ms(20);
    CHECK_EQ(fps_table_create_rows(&s.arena, s.t, s.keys, s.hashes, 2, s.rows, &no_wait), FPS_BUSY);
    CHECK_EQ(fps_table_create_rows(&s.arena, s.t, s.keys, s.hashes, 2, s.rows, &brief), FPS_TIMEOUT);
    fps_rowset_leave(s.t);
    CHECK_EQ(live_of(s.t), 1);
    CHECK_EQ(fps_table_create_rows(&s.arena, s.t, s.keys, s.hashes, 2, s.rows, &no_wait), FPS_OK);
    check_table(s.t);
    drop_scene(&s);
}

/* Ends */

static void what_a_removed_row_held_is_received(void)
{
    static scene s;
    float values[8][DIM], slots[8][DIM], expected[DIM];
    uint8_t removed[8], *const streams[] = {(uint8_t *)values, (uint8_t *)slots};
    make_scene(&s, MAX_ROWS);
    CHECK_EQ(create_missing(&s, 0, 6), FPS_OK);
    memset(values, 255, sizeof values);
    memset(slots, 255, sizeof slots);
    const uint64_t keys[8] = {3, 77, 0, 3, 5, 1, 0, 78}; /* some twice, some unknown */
    static const bool there[] = {true, false, true, false, true, true, false, false};
    CHECK_EQ(remove_rows(&s.session, 0, keys, 8, streams, removed), FPS_OK);
    for (uint32_t i = 0; i < 8; i++) {
        CHECK_EQ(removed[i], there[i]);
        if (!there[i]) {
            for (uint32_t k = 0; k < sizeof values[i]; k++) CHECK_EQ(((uint8_t *)values[i])[k], 255);
            continue;
        }
        fps_initial_fill(&s.t->layout, keys[i], expected);
        CHECK_EQ(memcmp(values[i], expected, sizeof expected), 0);
        check_all_equal(slots[i], DIM, 0.25F);
        CHECK_EQ(fps_rowset_find(s.t, keys[i], fps_hash(keys[i])), FPS_NO_ROW);
    }
    CHECK_EQ(live_of(s.t), 2);
    CHECK_EQ(fps_load_relaxed(&s.t->control->rows_removed), 4);
    check_table(s.t);
    drop_scene(&s);
}

static void streams_that_nobody_wants_are_left_out(void)
{
    static scene s;
    float slot[DIM] = {0};
    uint8_t removed[3], *const only_slot[] = {NULL, (uint8_t *)slot};
    make_scene(&s, MAX_ROWS);
    CHECK_EQ(create_missing(&s, 0, 3), FPS_OK);
    CHECK_EQ(remove_rows(&s.session, 0, &s.keys[1], 1, only_slot, removed), FPS_OK);
    check_all_equal(slot, DIM, 0.25F);
    CHECK_EQ(remove_rows(&s.session, 0, s.keys, 3, NULL, removed), FPS_OK);
    CHECK(removed[0] && !removed[1] && removed[2]);
    CHECK_EQ(live_of(s.t), 0);
    CHECK_EQ(remove_rows(&s.session, 0, s.keys, 0, NULL, removed), FPS_OK);
    check_table(s.t);
    drop_scene(&s);
}

static void the_row_that_was_freed_last_is_used_first(void)
{
    static scene s;
    uint8_t removed[3];
    make_scene(&s, MAX_ROWS);
    CHECK_EQ(create_missing(&s, 0, 10), FPS_OK);
    memset(fps_row_at(s.t, 4) + s.t->head_bytes, 7, s.t->layout.row_bytes - s.t->head_bytes);
    CHECK_EQ(remove_rows(&s.session, 0, (const uint64_t[]){2, 7, 4}, 3, NULL, removed), FPS_OK);
    check_table(s.t);
    CHECK_EQ(create_missing(&s, 100, 4), FPS_OK);
    CHECK_EQ(s.rows[100], 4);
    CHECK_EQ(s.rows[101], 7);
    CHECK_EQ(s.rows[102], 2);
    CHECK_EQ(s.rows[103], 10);
    for (uint32_t i = 100; i < 104; i++) check_first_values(&s, i); /* and nothing of who was there before */
    check_table(s.t);
    drop_scene(&s);
}

static void a_row_that_is_created_again_has_its_first_values_again(void)
{
    static scene s;
    uint8_t removed[2];
    make_scene(&s, MAX_ROWS);
    for (uint32_t round = 0; round < 5; round++) {
        CHECK_EQ(create_missing(&s, 0, 2), FPS_OK);
        for (uint32_t i = 0; i < 2; i++) {
            check_first_values(&s, i);
            memset(fps_row_at(s.t, s.rows[i]) + s.t->head_bytes, 9, 2 * DIM * 4);
        }
        CHECK_EQ(remove_rows(&s.session, 0, s.keys, 2, NULL, removed), FPS_OK);
    }
    CHECK_EQ(fps_load_relaxed(&s.t->control->high), 2);
    check_table(s.t);
    drop_scene(&s);
}

/* Who reads it while it ends and begins again finds another word behind its copy than before. */
static void a_row_that_is_created_again_has_not_been_the_same_all_the_time(void)
{
    static scene s;
    uint8_t removed;
    make_scene(&s, MAX_ROWS);
    for (uint64_t round = 0, last = 0; round < 4; round++) {
        CHECK_EQ(create_missing(&s, 0, 1), FPS_OK);
        CHECK_EQ(s.rows[0], 0);
        const uint64_t word = fps_load_relaxed(fps_row_word(fps_row_at(s.t, 0)));
        CHECK(round == 0 || word > last);
        last = word;
        CHECK_EQ(remove_rows(&s.session, 0, s.keys, 1, NULL, &removed), FPS_OK);
    }
    drop_scene(&s);
}

/* Whoever still knows its number from before sees that it is another's now. */
static void a_row_that_has_another_key_is_nobodys_for_who_comes_late(void)
{
    static scene s;
    uint8_t removed;
    uint64_t word, again;
    make_scene(&s, MAX_ROWS);
    CHECK_EQ(create_missing(&s, 0, 1), FPS_OK);
    const uint32_t row = s.rows[0];
    CHECK_EQ(fps_row_try(&s.session, s.t, row, 0, &word), FPS_OK);
    CHECK_EQ(FPS_ROW_WRITER(fps_load_relaxed(fps_row_word(fps_row_at(s.t, row)))), s.session.index + 1);
    CHECK_EQ(fps_row_try(&s.session, s.t, row, 0, &again), FPS_BUSY);
    fps_row_leave(s.t, row, word);
    CHECK_EQ(remove_rows(&s.session, 0, s.keys, 1, NULL, &removed), FPS_OK);
    CHECK_EQ(fps_row_try(&s.session, s.t, row, 0, &word), FPS_ALREADY); /* dead */
    CHECK_EQ(create_missing(&s, 1, 1), FPS_OK);
    CHECK_EQ(s.rows[1], row);
    CHECK_EQ(fps_row_try(&s.session, s.t, row, 0, &word), FPS_ALREADY); /* another's */
    check_table(s.t);
    CHECK_EQ(fps_row_try(&s.session, s.t, row, 1, &word), FPS_OK);
    fps_row_leave(s.t, row, fps_row_next(s.t, word));
    check_table(s.t);
    drop_scene(&s);
}

static void removing_waits_for_who_writes_the_row_and_goes_on_later(void)
{
    static scene s;
    uint64_t word;
    uint32_t done = 0;
    uint8_t removed[3] = {9, 9, 9};
    float values[3][DIM];
    uint8_t *const streams[] = {(uint8_t *)values, NULL};
    make_scene(&s, MAX_ROWS);
    fps_session writer = open_session(&s.arena);
    CHECK_EQ(create_missing(&s, 0, 3), FPS_OK);
    CHECK_EQ(fps_row_try(&writer, s.t, 1, 1, &word), FPS_OK);
    fps_wait brief = wait_ms(20);
    CHECK_EQ(fps_table_remove(&s.session, s.t, s.keys, 3, UINT32_MAX, streams, removed, &done, &brief), FPS_TIMEOUT);
    CHECK_EQ(done, 1);
    CHECK_EQ(fps_table_remove(&s.session, s.t, s.keys, 3, UINT32_MAX, streams, removed, &done, &no_wait), FPS_BUSY);
    CHECK_EQ(done, 1);
    CHECK_EQ(live_of(s.t), 2);
    fps_row_leave(s.t, 1, fps_row_next(s.t, word));
    CHECK_EQ(fps_table_remove(&s.session, s.t, s.keys, 3, UINT32_MAX, streams, removed, &done, &no_wait), FPS_OK);
    CHECK_EQ(done, 3);
    for (uint32_t i = 0; i < 3; i++) CHECK_EQ(removed[i], 1);
    check_table(s.t);
    fps_session_close(&writer);
    drop_scene(&s);
}

/* A process that waits, for at most 20 s, to remove the row of key 1. */
static void remove_one(void *argument)
{
    const scene *s = argument;
    uint32_t done = 0;
    uint8_t removed = 9;
    fps_wait wait = wait_ms(20000);
    fps_session session = open_session(&s->arena);
    CHECK_EQ(fps_table_remove(&session, s->t, &s->keys[1], 1, UINT32_MAX, NULL, &removed, &done, &wait), FPS_OK);
    CHECK_EQ(removed, 1);
    fps_session_close(&session);
}

static void row_creation_goes_on_while_a_removal_waits_for_a_writer(void)
{
    static scene s;
    uint64_t word;
    make_scene(&s, MAX_ROWS); /* it has two sessions */
    CHECK_EQ(create_missing(&s, 0, 3), FPS_OK);
    CHECK_EQ(fps_row_try(&s.session, s.t, 1, 1, &word), FPS_OK);
    pid_t remover = start_process(remove_one, &s);
    fps_wait wait = wait_ms(10000);
    for (uint32_t i = 3; i < 40; i++) {
        CHECK_EQ(fps_table_create_rows(&s.arena, s.t, &s.keys[i], &s.hashes[i], 1, &s.rows[i], &wait), FPS_OK);
        clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    CHECK_EQ(live_of(s.t), 40);
    fps_row_leave(s.t, 1, fps_row_next(s.t, word));
    expect_success(remover);
    CHECK_EQ(live_of(s.t), 39);
    check_table(s.t);
    drop_scene(&s);
}

static void rows_that_were_asked_for_since_stay(void)
{
    static scene s;
    uint32_t done = 0;
    uint8_t removed[5] = {9, 9, 9, 9, 9};
    float values[5][DIM];
    uint8_t *const streams[] = {(uint8_t *)values, NULL};
    make_scene(&s, MAX_ROWS);
    drop_scene(&s);
    fps_table_layout layout = table_of(DIM, 0, MAX_ROWS);
    layout.tracked = 1;
    layout.initial = FPS_INITIAL_CONSTANT;
    layout.first = 3;
    s.arena = make_table(layout, 2);
    s.t = &s.arena.tables[0];
    s.session = open_session(&s.arena);
    CHECK_EQ(create_missing(&s, 0, 4), FPS_OK); /* of five keys */
    const uint32_t since = 100;
    for (uint32_t i = 0; i < 4; i++) fps_row_track(fps_row_at(s.t, s.rows[i]), since - 1 + i, 1);
    CHECK_EQ(fps_table_remove(&s.session, s.t, s.keys, 5, since, streams, removed, &done, &no_wait), FPS_OK);
    CHECK_EQ(done, 5);
    const uint8_t ended[5] = {1, 1, 0, 0, 0};
    CHECK_EQ(memcmp(removed, ended, sizeof ended), 0);
    check_all_equal(values[1], DIM, 3);
    CHECK_EQ(live_of(s.t), 2);
    check_table(s.t);

    done = 0; /* nobody has written them */
    CHECK_EQ(fps_table_remove(&s.session, s.t, s.keys, 5, UINT32_MAX, NULL, removed, &done, &no_wait), FPS_OK);
    CHECK_EQ(live_of(s.t), 0);
    drop_scene(&s);
}

/* Against a list: rows come and go, by many at a time. */
static void random_creations_and_removals_leave_what_a_list_would_hold(void)
{
    static scene s;
    static bool there[MAX_ROWS];
    uint64_t seed = (uint64_t)time(NULL), state = seed;
    uint8_t removed[50];
    uint32_t live = 0;
    printf("  seed %ju\n", (uintmax_t)seed);
    make_scene(&s, 800);
    for (uint32_t i = 0; i < MAX_ROWS; i += 3) { /* a third in four tags */
        s.keys[i] = key_of_tag(i % 4 * 0x55555555, i);
        s.hashes[i] = fps_hash(s.keys[i]);
    }
    for (uint32_t round = 0; round < 3000; round++) {
        uint32_t from = random_below(&state, MAX_ROWS - 50), n = 1 + random_below(&state, 50), known = 0;
        for (uint32_t i = from; i < from + n; i++) known += there[i];
        if (random_below(&state, 10) < (round / 500 % 2 ? 3 : 6)) {
            bool fits = live + n - known <= 800;
            CHECK_EQ(create_missing(&s, from, n), fits ? FPS_OK : FPS_TABLE_FULL);
            if (!fits) continue;
            live += n - known;
            for (uint32_t i = from; i < from + n; i++) {
                if (!there[i]) check_first_values(&s, i);
                there[i] = true;
            }
        } else {
            CHECK_EQ(remove_rows(&s.session, 0, s.keys + from, n, NULL, removed), FPS_OK);
            live -= known;
            for (uint32_t i = from; i < from + n; i++) {
                CHECK_EQ(removed[i - from], there[i]);
                there[i] = false;
            }
        }
        CHECK_EQ(live_of(s.t), live);
        if (round % 100 == 0) check_table(s.t);
    }
    for (uint32_t i = 0; i < MAX_ROWS; i++)
        CHECK_EQ(fps_rowset_find(s.t, s.keys[i], s.hashes[i]) != FPS_NO_ROW, there[i]);
    check_table(s.t);
    drop_scene(&s);
}

/* Memory */

static void a_small_table_takes_little_memory(void)
{
    const fps_table_layout tables[] = {table_of(16, 0, 1 << 20), table_of(16, 0, 1 << 20)};
    fps_arena arena = make_tables(tables, 2, 1);
    const fps_table *t = &arena.tables[0];
    const int64_t empty = memory_of(&arena);
    const uint64_t key = 1, hash = fps_hash(1);
    CHECK(empty <= (int64_t)arena.layout.fixed_bytes + (64 << 10)); /* tables without rows take none */
    uint32_t row = FPS_NO_ROW;
    CHECK_EQ(fps_table_create_rows(&arena, t, &key, &hash, 1, &row, &for_ever), FPS_OK);
    CHECK_EQ(fps_load_relaxed(&t->control->rows_backed), 64 << 10);
    CHECK_EQ(fps_load_relaxed(&t->control->index_backed[1]), 64 << 10);
    CHECK_EQ(fps_load_relaxed(&t->control->index_backed[0]), 0);
    CHECK(memory_of(&arena) - empty <= (2 * 64 + 64) << 10);
    CHECK_EQ(live_of(&arena.tables[1]), 0);
    drop_arena(&arena);
}

static void memory_comes_with_the_rows(void)
{
    static uint64_t keys[1 << 16], hashes[1 << 16];
    static uint32_t rows[1 << 16];
    fps_arena arena = make_table(table_of(30, 0, 1 << 20), 1);
    const fps_table *t = &arena.tables[0];
    const int64_t empty = memory_of(&arena);
    uint64_t backed = 0;
    for (uint32_t n = 256; n <= 1 << 16; n *= 2) {
        for (uint32_t i = 0; i < n; i++) {
            keys[i] = i;
            hashes[i] = fps_hash(i);
            rows[i] = FPS_NO_ROW;
        }
        CHECK_EQ(fps_table_create_rows(&arena, t, keys, hashes, n, rows, &for_ever), FPS_OK);
        const uint64_t now = fps_load_relaxed(&t->control->rows_backed), bytes = n * t->layout.row_bytes;
        CHECK(now >= bytes && now >= backed && now <= 2 * bytes + FPS_HUGE_PAGE);
        if (now > FPS_HUGE_PAGE) CHECK_EQ(now % FPS_HUGE_PAGE, 0);
        const uint64_t word = fps_load_relaxed(&t->control->index);
        const uint64_t index = fps_load_relaxed(&t->control->index_backed[FPS_INDEX_GENERATION(word) & 1]);
        const uint64_t taken = (uint64_t)(memory_of(&arena) - empty);
        CHECK(index >= n * 8 && index <= n * 32 + FPS_HUGE_PAGE);
        CHECK(taken <= now + index + (256 << 10)); /* the index before is gone */
        backed = now;
    }
    check_table(t);
    drop_arena(&arena);
}

static void a_retired_arena_gives_the_memory_of_its_tables_back(void)
{
    static scene s;
    fps_arena peer;
    make_scene(&s, MAX_ROWS);
    CHECK_EQ(fps_arena_open(dup(s.arena.fd), s.arena.layout.arena_id, &peer), FPS_OK);
    CHECK_EQ(create_missing(&s, 0, MAX_ROWS), FPS_OK);
    CHECK_EQ(memcmp(peer.tables[0].rows, s.t->rows, 1000), 0);
    int64_t before = memory_of(&peer);
    drop_scene(&s);
    CHECK(before - memory_of(&peer) >= (int64_t)(MAX_ROWS * (16 + 2 * DIM * 4 + 8)));
    CHECK(memory_of(&peer) < 256 << 10);
    CHECK_EQ(peer.tables[0].rows[16], 0); /* still mapped: nobody gets a SIGBUS */
    CHECK_EQ(fps_arena_state(&peer), FPS_CLOSED);
    fps_arena_close(&peer);
}

static void a_peer_sees_the_same_tables(void)
{
    static scene s;
    fps_arena peer;
    make_scene(&s, MAX_ROWS);
    CHECK_EQ(fps_arena_open(dup(s.arena.fd), s.arena.layout.arena_id, &peer), FPS_OK);
    CHECK_EQ(memcmp(&peer.tables[0].layout, &s.t->layout, sizeof s.t->layout), 0);
    CHECK_EQ(create_missing(&s, 0, 1000), FPS_OK);
    for (uint32_t i = 0; i < 1000; i++) CHECK_EQ(fps_rowset_find(&peer.tables[0], s.keys[i], s.hashes[i]), s.rows[i]);
    uint32_t row = FPS_NO_ROW;
    CHECK_EQ(fps_table_create_rows(&peer, &peer.tables[0], &s.keys[2000], &s.hashes[2000], 1, &row, &for_ever), FPS_OK);
    CHECK_EQ(fps_rowset_find(s.t, s.keys[2000], s.hashes[2000]), row);
    check_table(s.t);
    check_table(&peer.tables[0]);
    fps_arena_close(&peer);
    drop_scene(&s);
}

/* Deaths with the table's lock. What they may leave is made by hand: kill_tables.c lets them happen. */

static void die_with_the_lock(scene *s) { expect_killed(start_process(enter_and_die, s)); }

static void counts_that_a_death_left_wrong_are_made_anew(void)
{
    static scene s;
    uint8_t removed[100];
    make_scene(&s, MAX_ROWS);
    CHECK_EQ(create_missing(&s, 0, 500), FPS_OK);
    CHECK_EQ(remove_rows(&s.session, 0, &s.keys[50], 100, NULL, removed), FPS_OK);
    die_with_the_lock(&s);
    fps_control *c = s.t->control;
    const uint64_t tombstones = fps_load_relaxed(&c->tombstones);
    fps_store_relaxed(&c->live, 3);
    fps_store_relaxed(&c->high, 7);
    fps_store_relaxed(&c->free, 12345);
    fps_store_relaxed(&c->tombstones, 99);
    enter_and_leave(&s.arena, s.t);
    CHECK_EQ(live_of(s.t), 400);
    CHECK_EQ(fps_load_relaxed(&c->tombstones), tombstones);
    CHECK_EQ(fps_load_relaxed(&c->high), 500);
    CHECK_EQ(fps_load_relaxed(&s.arena.header->recovered_locks), 1);
    check_table(s.t);
    CHECK_EQ(create_missing(&s, 0, 600), FPS_OK);
    CHECK_EQ(fps_load_relaxed(&c->high), 600);
    check_table(s.t);
    drop_scene(&s);
}

/* Between the two, a row that is created, or one that is removed, is in the index or not. */
static void rows_that_the_index_does_not_name_are_free_after_a_death(void)
{
    static scene s;
    make_scene(&s, MAX_ROWS);
    CHECK_EQ(create_missing(&s, 0, 20), FPS_OK);
    die_with_the_lock(&s);
    for (uint32_t row = 3; row < 20; row += 4) fps_index_remove(s.t, fps_hash_tag(s.hashes[row]), row);
    fps_index_insert(s.t, fps_hash_tag(s.hashes[20]), 20); /* named, and not yet counted */
    fps_store_relaxed(fps_row_key(fps_row_at(s.t, 20)), 20);
    enter_and_leave(&s.arena, s.t);
    CHECK_EQ(live_of(s.t), 16);
    CHECK_EQ(fps_load_relaxed(&s.t->control->high), 21);
    check_table(s.t);
    CHECK_EQ(create_missing(&s, 0, 25), FPS_OK);
    for (uint32_t i = 0; i < 20; i++) check_first_values(&s, i);
    check_table(s.t);
    drop_scene(&s);
}

static void a_death_is_put_right_without_memory_too(void)
{
#ifndef __SANITIZE_ADDRESS__
    static scene s;
    uint8_t removed[100];
    make_scene(&s, 500);
    CHECK_EQ(create_missing(&s, 0, 500), FPS_OK);
    CHECK_EQ(remove_rows(&s.session, 0, &s.keys[50], 100, NULL, removed), FPS_OK);
    die_with_the_lock(&s);
    no_zeroed_memory = true;
    enter_and_leave(&s.arena, s.t);
    no_zeroed_memory = false;
    CHECK_EQ(live_of(s.t), 400);
    check_table(s.t);
    CHECK_EQ(create_missing(&s, 0, 500), FPS_OK);
    check_table(s.t);
    drop_scene(&s);
#endif
}

static void a_death_in_a_closed_arena_takes_no_memory(void)
{
    static scene s;
    fps_arena peer;
    make_scene(&s, MAX_ROWS);
    CHECK_EQ(create_missing(&s, 0, MAX_ROWS), FPS_OK);
    CHECK_EQ(fps_arena_open(dup(s.arena.fd), s.arena.layout.arena_id, &peer), FPS_OK);
    die_with_the_lock(&s);
    drop_scene(&s);
    const int64_t closed = memory_of(&peer);
    uint32_t row = FPS_NO_ROW;
    CHECK_EQ(fps_table_create_rows(&peer, &peer.tables[0], s.keys, s.hashes, 1, &row, &for_ever), FPS_CLOSED);
    CHECK(memory_of(&peer) <= closed + (64 << 10));
    fps_arena_close(&peer);
}

int main(void)
{
    static const test tests[] = {
        TEST(a_head_with_tables_parses_to_what_was_planned),
        TEST(every_flipped_bit_of_a_table_is_refused),
        TEST(every_field_of_a_table_that_does_not_add_up_is_refused),
        TEST(a_head_that_ends_within_its_tables_is_refused),
        TEST(a_number_of_tables_that_cannot_be_is_refused),
        TEST(a_table_of_nonsense_is_refused),
        TEST(an_arena_has_parameters_or_a_table_and_not_too_many),
        TEST(a_table_that_no_address_space_holds_is_refused),
        TEST(tables_lie_apart_from_each_other_and_from_all_else),
        TEST(streams_of_a_row_lie_one_behind_the_other),
        TEST(a_row_is_created_with_its_first_values),
        TEST(a_key_that_has_a_row_keeps_it),
        TEST(keys_of_one_tag_have_rows_of_their_own),
        TEST(a_full_table_bears_all_or_none),
        TEST(a_table_of_one_row_has_one_row),
        TEST(without_memory_nothing_is_created),
        TEST(a_death_behind_a_growth_without_memory_loses_no_row),
        TEST(a_closed_arena_bears_nothing),
        TEST(one_at_a_time_adds_rows),
        TEST(what_a_removed_row_held_is_received),
        TEST(streams_that_nobody_wants_are_left_out),
        TEST(the_row_that_was_freed_last_is_used_first),
        TEST(a_row_that_is_created_again_has_its_first_values_again),
        TEST(a_row_that_is_created_again_has_not_been_the_same_all_the_time),
        TEST(a_row_that_has_another_key_is_nobodys_for_who_comes_late),
        TEST(removing_waits_for_who_writes_the_row_and_goes_on_later),
        TEST(row_creation_goes_on_while_a_removal_waits_for_a_writer),
        TEST(rows_that_were_asked_for_since_stay),
        TEST(random_creations_and_removals_leave_what_a_list_would_hold),
        TEST(a_small_table_takes_little_memory),
        TEST(memory_comes_with_the_rows),
        TEST(a_retired_arena_gives_the_memory_of_its_tables_back),
        TEST(a_peer_sees_the_same_tables),
        TEST(counts_that_a_death_left_wrong_are_made_anew),
        TEST(rows_that_the_index_does_not_name_are_free_after_a_death),
        TEST(a_death_is_put_right_without_memory_too),
        TEST(a_death_in_a_closed_arena_takes_no_memory),
    };
    return run_tests(tests, COUNT(tests));
}

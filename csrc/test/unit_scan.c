/* What has changed in a table since an earlier scan, and a table that continues another one. */
#define _GNU_SOURCE
#include "tables.h"

#define DIM 4u
#define ROWS 8u

static const fps_wait for_ever = {.deadline_ns = FPS_NEVER};

typedef struct scene {
    fps_arena arena;
    const fps_table *t;
    fps_session session;
    fps_scan_start last;
} scene;

static void make_scene(scene *s, uint32_t tracked)
{
    fps_table_layout layout = table_of(DIM, 0, ROWS);
    layout.tracked = tracked;
    *s = (scene){.arena = make_table(layout, 2)};
    s->t = &s->arena.tables[0];
    s->session = open_session(&s->arena);
}

static void drop_scene(scene *s)
{
    check_table(s->t);
    fps_session_close(&s->session);
    drop_arena(&s->arena);
}

static void push_key(scene *s, uint64_t key)
{
    const float ones[DIM] = {1, 1, 1, 1};
    CHECK_EQ(push_rows(&s->session, 0, &key, 1, ones, NULL), FPS_OK);
}

/* The keys that have changed since the last call, as bits. */
static uint32_t changed(scene *s)
{
    uint64_t keys[ROWS], cursor = 0;
    uint32_t n, bits = 0;
    fps_scan_start now;
    CHECK_EQ(fps_scan_begin(&s->arena, s->t, &for_ever, &now), FPS_OK);
    CHECK_EQ(fps_scan_rows(&s->arena, s->t, &cursor, ROWS, (fps_since){s->last.epoch, s->last.now}, keys,
                           (uint8_t *const[]){NULL}, NULL, NULL, &for_ever, &n),
             FPS_OK);
    for (uint32_t i = 0; i < n; i++) bits |= 1u << keys[i];
    s->last = now;
    return bits;
}

static void a_scan_finds_what_was_written_or_created_since(void)
{
    static scene s;
    float row[DIM], sets[DIM] = {7, 7, 7, 7};
    uint8_t removed;
    make_scene(&s, 0);
    push_key(&s, 0);
    push_key(&s, 1);
    CHECK_EQ(changed(&s), 3); /* all */
    CHECK_EQ(changed(&s), 0);
    push_key(&s, 1);
    CHECK_EQ(changed(&s), 2);
    CHECK_EQ(pull_rows(&s.session, 0, &(uint64_t){0}, 1, row, true), FPS_OK); /* not a change */
    CHECK_EQ(pull_rows(&s.session, 0, &(uint64_t){2}, 1, row, true), FPS_OK); /* creates it */
    CHECK_EQ(changed(&s), 4);
    CHECK_EQ(set_rows(&s.session, 0, &(uint64_t){0}, 1, (const uint8_t *const[]){(uint8_t *)sets}), FPS_OK);
    CHECK_EQ(changed(&s), 1);
    CHECK_EQ(s.last.removed, 0);
    CHECK_EQ(remove_rows(&s.session, 0, &(uint64_t){1}, 1, (uint8_t *const[]){NULL}, &removed), FPS_OK);
    CHECK_EQ(changed(&s), 0);
    CHECK_EQ(s.last.removed, 1);
    push_key(&s, 1);
    CHECK_EQ(changed(&s), 2);
    CHECK_EQ(s.last.version, 4);
    drop_scene(&s);
}

static void of_a_tracked_table_it_finds_what_was_used_since_too(void)
{
    static scene s;
    make_scene(&s, 1);
    push_key(&s, 0);
    push_key(&s, 1);
    CHECK_EQ(changed(&s), 3);
    fps_row_track(fps_row_at(s.t, 0), s.last.now - 1, 1);
    fps_row_track(fps_row_at(s.t, 1), s.last.now, 1);
    CHECK_EQ(changed(&s), 2);
    drop_scene(&s);
}

static void after_the_last_epoch_a_scan_finds_more_and_never_less(void)
{
    static scene s;
    make_scene(&s, 0);
    fps_store_relaxed(&s.t->control->epoch, FPS_ROW_LAST_EPOCH - 1);
    push_key(&s, 0);
    CHECK_EQ(changed(&s), 1);
    push_key(&s, 1);
    CHECK_EQ(changed(&s), 2);
    CHECK_EQ(s.last.epoch, FPS_ROW_LAST_EPOCH);
    CHECK_EQ(changed(&s), 2); /* nothing tells it apart any more */
    drop_scene(&s);
}

/* The number of writes has 31 bits, and what is above them stays what it is. */
static void a_row_that_was_written_very_often_keeps_its_epoch(void)
{
    static scene s;
    make_scene(&s, 0);
    push_key(&s, 0);
    CHECK_EQ(changed(&s), 1);
    fps_word *word = fps_row_word(fps_row_at(s.t, 0));
    fps_store_relaxed(word, FPS_ROW_WORD(0, ~UINT64_C(0x1fff)));
    push_key(&s, 0);
    CHECK_EQ(fps_load_relaxed(word), FPS_ROW_WORD(1, 0));
    drop_scene(&s);
}

static void a_table_goes_on_from_a_count_and_a_time(void)
{
    static scene s;
    uint32_t seen[2 * 3];
    const uint64_t keys[] = {0, 1, 2};
    make_scene(&s, 1);
    CHECK_EQ(fps_table_resume(&s.arena, s.t, 40, 1000000, &for_ever), FPS_OK);
    push_key(&s, 0);
    push_key(&s, 1);
    CHECK_EQ(fps_load_relaxed(&s.t->control->version), 42);
    const uint32_t now = fps_row_now(s.t);
    CHECK(now >= 1000000 && now < 1000000 + 16 * 60);
    fps_table_use(s.t, keys, 3, (const uint32_t[]){500, 3, 2000000, 4, 1, 1});
    fps_scan_seen(s.t, keys, 3, seen);
    CHECK(seen[0] >= now - 500 && seen[0] < now - 500 + 16 * 60);
    CHECK_EQ(seen[1], 3);
    CHECK_EQ(seen[2], 1); /* the first tick that there is */
    CHECK_EQ(seen[3], 4);
    CHECK_EQ(seen[4] | seen[5], 0); /* it has no row */
    drop_scene(&s);
}

static void a_closed_table_is_neither_scanned_nor_continued(void)
{
    static scene s;
    fps_scan_start start;
    make_scene(&s, 0);
    CHECK_EQ(fps_arena_retire(&s.arena), FPS_OK);
    CHECK_EQ(fps_scan_begin(&s.arena, s.t, &for_ever, &start), FPS_CLOSED);
    CHECK_EQ(fps_table_resume(&s.arena, s.t, 1, 1, &for_ever), FPS_CLOSED);
    fps_session_close(&s.session);
    drop_arena(&s.arena);
}

int main(void)
{
    static const test tests[] = {
        TEST(a_scan_finds_what_was_written_or_created_since),
        TEST(of_a_tracked_table_it_finds_what_was_used_since_too),
        TEST(after_the_last_epoch_a_scan_finds_more_and_never_less),
        TEST(a_row_that_was_written_very_often_keeps_its_epoch),
        TEST(a_table_goes_on_from_a_count_and_a_time),
        TEST(a_closed_table_is_neither_scanned_nor_continued),
    };
    return run_tests(tests, COUNT(tests));
}

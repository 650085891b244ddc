/* The redo record: what a repairer finishes, and what it leaves alone. */
#define _GNU_SOURCE
#include "redo.h"
#include "tables.h"

#define DIM 3u
#define STRIPE 8192u
#define BYTES 20000u

static void a_record_holds_every_position_stream_and_length(void)
{
    static const uint64_t positions[] = {
        0, 4, 8, 4092, 4096, (UINT64_C(1) << 32) - 4, UINT64_C(1) << 32, (UINT64_C(1) << 45) - 4, UINT64_C(1) << 45};
    static const uint64_t lengths[] = {0, 4, 8, 2048, 4092, 4096, FPS_BLOCK_MAX_BYTES - 4, FPS_BLOCK_MAX_BYTES};
    for (size_t p = 0; p < COUNT(positions); p++) {
        for (size_t c = 0; c < COUNT(lengths); c++) {
            for (uint32_t k = 0; k < 2 * (1 + FPS_MAX_SLOTS); k++) {
                uint32_t stream = k / 2, streams = k % 2 ? FPS_STREAM_ALONE(stream) : FPS_STREAMS_UP_TO(stream);
                uint64_t record = FPS_REDO_PIECE(positions[p], streams, lengths[c]);
                CHECK_EQ(record & (FPS_REDO_COMPLETE | FPS_REDO_IS_ROW), 0);
                record |= FPS_REDO_COMPLETE;
                CHECK_EQ(FPS_REDO_POSITION(record), positions[p]);
                CHECK_EQ(FPS_REDO_STREAMS(record), streams);
                CHECK_EQ(FPS_REDO_BYTES(record), lengths[c]);
            }
        }
    }
    CHECK_EQ(FPS_REDO_PIECE(0, 0, 0), FPS_REDO_NOTHING); /* a new seat's */
    CHECK(FPS_STREAM_ALONE(0) != FPS_STREAMS_UP_TO(FPS_MAX_SLOTS));
}

static void a_record_holds_every_row_of_every_table(void)
{
    static const uint32_t rows[] = {0, 1, 1000, (uint32_t)(FPS_MAX_ROWS - 1)};
    static const uint64_t positions[] = {0, 1, (1 << 25) - 1, 1 << 25, UINT32_MAX};
    for (uint32_t table = 0; table < FPS_MAX_TABLES; table++) {
        for (size_t r = 0; r < COUNT(rows); r++) {
            for (size_t p = 0; p < COUNT(positions); p++) {
                uint64_t record = FPS_REDO_ROW(table, rows[r], positions[p]);
                CHECK_EQ(record & (FPS_REDO_COMPLETE | FPS_REDO_IS_ROW), FPS_REDO_IS_ROW);
                record |= FPS_REDO_COMPLETE;
                CHECK_EQ(FPS_REDO_ROW_TABLE(record), table);
                CHECK_EQ(FPS_REDO_ROW_NUMBER(record), rows[r]);
                CHECK_EQ(FPS_REDO_ROW_STEP(record), positions[p] % (1 << 25));
            }
        }
    }
}

/* An arena of three stripes and two tables, with a session whose redo block holds sevens. */
typedef struct scene {
    fps_arena arena;
    fps_session session;
    fps_seat *seat;
    const fps_table *t;
} scene;

static void make_scene(scene *s)
{
    const fps_table_layout tables[] = {table_of(DIM, 0, 10), table_of(DIM, 0, 10)};
    fps_arena_spec spec = spec_of_tables(tables, 2, 2);
    const uint64_t keys[] = {1, 2};
    const float zeros[2 * DIM] = {0};
    spec.params_bytes = BYTES;
    spec.stripe_bytes = STRIPE;
    spec.n_slots = 1;
    CHECK_EQ(fps_arena_create(&spec, &s->arena), FPS_OK);
    CHECK_EQ(s->arena.layout.n_stripes, 3);
    s->session = open_session(&s->arena);
    s->seat = s->session.seat;
    s->t = &s->arena.tables[1];
    for (uint32_t table = 0; table < 2; table++) CHECK_EQ(push_rows(&s->session, table, keys, 2, zeros, NULL), FPS_OK);
    for (uint32_t k = 0; k <= 1; k++) {
        float *redo = (float *)(void *)fps_arena_redo(&s->arena, 0, k);
        for (uint32_t i = 0; i < FPS_BLOCK_BYTES / 4; i++) redo[i] = 7;
    }
}

static void drop_scene(scene *s)
{
    fps_session_close(&s->session);
    drop_arena(&s->arena);
}

/* How many elements of a stream the repair of stripe 1 has changed, from `at` on. */
static uint64_t changed(const scene *s, uint32_t stream, uint64_t at)
{
    const float *values = (const float *)(const void *)fps_arena_stream(&s->arena, stream);
    uint64_t n = 0;
    for (uint64_t i = 0; i < BYTES / 4; i++) n += values[i] > 0;
    for (uint64_t i = at / 4; i < at / 4 + n; i++) CHECK_FLOAT(values[i], 7);
    return n;
}

static void a_complete_piece_in_the_stripe_is_finished_once(void)
{
    scene s;
    make_scene(&s);
    fps_redo_begin(s.seat, STRIPE);
    fps_redo_commit(s.seat, FPS_REDO_PIECE(STRIPE + 64, FPS_STREAMS_UP_TO(1), 400)); /* behind a gap between spans */
    for (int times = 0; times < 2; times++) {
        fps_redo_finish_piece(&s.arena, 0, STRIPE, 2 * STRIPE);
        CHECK_EQ(fps_load_relaxed(&s.seat->position), STRIPE + 464);
        for (uint32_t k = 0; k <= 1; k++) CHECK_EQ(changed(&s, k, STRIPE + 64), 100);
        ((float *)(void *)fps_arena_redo(&s.arena, 0, 0))[0] = 9; /* the next block is being made */
    }
    drop_scene(&s);
}

static void only_the_streams_that_a_piece_names_are_written(void)
{
    scene s;
    make_scene(&s);
    fps_redo_begin(s.seat, STRIPE);
    fps_redo_commit(s.seat, FPS_REDO_PIECE(STRIPE, FPS_STREAM_ALONE(1), 400));
    fps_redo_finish_piece(&s.arena, 0, STRIPE, 2 * STRIPE);
    CHECK_EQ(changed(&s, 0, STRIPE), 0);
    CHECK_EQ(changed(&s, 1, STRIPE), 100);
    drop_scene(&s);
}

/* Whatever the record says: it may name only the stripe whose lock the repairer holds. */
static void a_record_that_names_anything_else_changes_nothing_in_a_stripe(void)
{
    const uint64_t complete = FPS_REDO_COMPLETE, from = STRIPE, behind = 2 * STRIPE;
    const uint64_t records[] = {
        FPS_REDO_NOTHING,
        FPS_REDO_PIECE(from, 0, 400),                               /* not complete */
        FPS_REDO_PIECE(from, 0, 0) | complete,                      /* nothing in it */
        FPS_REDO_PIECE(from - 4, 0, 400) | complete,                /* begins in the stripe before */
        FPS_REDO_PIECE(behind - 4, 0, 400) | complete,              /* ends in the next one */
        FPS_REDO_PIECE(behind, 0, 400) | complete,                  /* lies in the next one */
        FPS_REDO_PIECE(from, 0, FPS_BLOCK_BYTES + 4) | complete,    /* longer than a block */
        FPS_REDO_PIECE(from, FPS_STREAMS_UP_TO(2), 400) | complete, /* a stream that there is not */
        FPS_REDO_PIECE(from, FPS_STREAM_ALONE(15), 400) | complete, /* as well */
        FPS_REDO_PIECE(UINT64_C(1) << 45, 0, 400) | complete,       /* far beyond */
        FPS_REDO_ROW(1, 0, 0),
        FPS_REDO_ROW(1, from / 4 << 18 | 100, 0) | complete,
        UINT64_MAX,
    };
    scene s;
    make_scene(&s);
    for (size_t i = 0; i < COUNT(records); i++) {
        fps_redo_begin(s.seat, 0);
        fps_store_relaxed(&s.seat->redo, records[i]);
        fps_redo_finish_piece(&s.arena, 0, from, behind);
        CHECK_EQ(fps_load_relaxed(&s.seat->position), 0);
        for (uint32_t k = 0; k <= 1; k++) CHECK_EQ(changed(&s, k, 0), 0);
    }
    drop_scene(&s);
}

/* The session has gone on: to the next piece, or to a push that begins where the piece lies. */
static void a_piece_that_is_done_is_not_written_again(void)
{
    scene s;
    make_scene(&s);
    fps_redo_write_piece(&s.session, STRIPE, FPS_STREAMS_UP_TO(1), 400);
    for (uint32_t k = 0; k <= 1; k++) memset(fps_arena_stream(&s.arena, k), 0, BYTES);
    fps_redo_finish_piece(&s.arena, 0, STRIPE, 2 * STRIPE);
    fps_redo_begin(s.seat, STRIPE);
    fps_redo_finish_piece(&s.arena, 0, STRIPE, 2 * STRIPE);
    CHECK_EQ(fps_load_relaxed(&s.seat->position), STRIPE);
    for (uint32_t k = 0; k <= 1; k++) CHECK_EQ(changed(&s, k, STRIPE), 0);
    drop_scene(&s);
}

static float value_in(const fps_table *t, uint32_t row)
{
    float values[DIM];
    memcpy(values, fps_row_at(t, row) + t->at[0], sizeof values);
    for (uint32_t i = 1; i < DIM; i++) CHECK_FLOAT(values[i], values[0]);
    return values[0];
}

static void a_complete_row_is_finished_and_counted_once(void)
{
    scene s;
    make_scene(&s);
    for (uint64_t from = 3; from < UINT64_C(1) << 27; from += (1 << 25) - 4) {
        memset(fps_row_at(s.t, 1) + s.t->head_bytes, 0, DIM * 4);
        fps_redo_begin(s.seat, from);
        fps_redo_name_row(s.seat, s.t, 1);
        fps_redo_finish_row(&s.arena, 0, s.t, 1);
        CHECK_FLOAT(value_in(s.t, 1), 0);
        CHECK_EQ(fps_load_relaxed(&s.seat->position), from);
        fps_redo_commit(s.seat, fps_load_relaxed(&s.seat->redo));
        for (int times = 0; times < 2; times++) { /* as when the first repairer dies before it is through */
            fps_redo_finish_row(&s.arena, 0, s.t, 1);
            CHECK_FLOAT(value_in(s.t, 1), 7);
            CHECK_EQ(fps_load_relaxed(&s.seat->position), from + 1);
        }
    }
    CHECK_FLOAT(value_in(s.t, 0), 0);
    CHECK_FLOAT(value_in(&s.arena.tables[0], 1), 0);
    drop_scene(&s);
}

static void a_row_whose_writer_died_behind_its_count_is_counted_once(void)
{
    scene s;
    make_scene(&s);
    fps_redo_begin(s.seat, 5);
    fps_redo_name_row(s.seat, s.t, 1);
    fps_redo_write_row(&s.session, s.t, 1, 6);
    fps_redo_finish_row(&s.arena, 0, s.t, 1);
    CHECK_EQ(fps_load_relaxed(&s.seat->position), 6);
    CHECK_FLOAT(value_in(s.t, 1), 7);
    drop_scene(&s);
}

static void a_record_that_names_anything_else_changes_nothing_in_a_row(void)
{
    const uint64_t complete = FPS_REDO_COMPLETE;
    const uint64_t records[] = {
        FPS_REDO_NOTHING,
        FPS_REDO_ROW(1, 1, 0),             /* not complete */
        FPS_REDO_ROW(1, 0, 0) | complete,  /* another row */
        FPS_REDO_ROW(0, 1, 0) | complete,  /* another table's */
        FPS_REDO_ROW(63, 1, 0) | complete, /* of no table */
        FPS_REDO_PIECE(0, FPS_STREAMS_UP_TO(0), 4) | complete,
        UINT64_MAX,
    };
    scene s;
    make_scene(&s);
    for (size_t i = 0; i < COUNT(records); i++) {
        fps_redo_begin(s.seat, 0);
        fps_store_relaxed(&s.seat->redo, records[i]);
        fps_redo_finish_row(&s.arena, 0, s.t, 1);
        CHECK_EQ(fps_load_relaxed(&s.seat->position), 0);
        for (uint32_t row = 0; row < 2; row++) CHECK_FLOAT(value_in(s.t, row), 0);
    }
    drop_scene(&s);
}

static void a_named_row_is_one_that_there_is(void)
{
    scene s;
    uint32_t row;
    make_scene(&s);
    fps_redo_begin(s.seat, 0);
    CHECK(!fps_redo_named_row(&s.arena, 0, &row));
    fps_store_relaxed(&s.seat->redo, FPS_REDO_PIECE(4096, 1, 400) | FPS_REDO_COMPLETE);
    CHECK(!fps_redo_named_row(&s.arena, 0, &row));
    for (uint32_t table = 0; table < FPS_MAX_TABLES; table++) {
        for (uint32_t i = 0; i < 20; i++) {
            fps_store_relaxed(&s.seat->redo, FPS_REDO_ROW(table, i, 9) | (i % 2 ? FPS_REDO_COMPLETE : 0));
            const fps_table *t = fps_redo_named_row(&s.arena, 0, &row);
            CHECK(t == (table < 2 && i < 10 ? &s.arena.tables[table] : NULL));
            if (t) CHECK_EQ(row, i);
        }
    }
    fps_store_relaxed(&s.seat->redo, UINT64_MAX);
    CHECK(!fps_redo_named_row(&s.arena, 0, &row));
    drop_scene(&s);
}

/* Of a push to parameters that stopped half-way, its position is known whatever rows the session writes meanwhile. */
static void rows_that_are_removed_leave_the_position_of_a_push_as_it_was(void)
{
    scene s;
    const uint64_t key = 1;
    uint8_t removed;
    make_scene(&s);
    fps_redo_begin(s.seat, 4096);
    CHECK_EQ(remove_rows(&s.session, 1, &key, 1, NULL, &removed), FPS_OK);
    CHECK_EQ(removed, 1);
    CHECK_EQ(fps_load_relaxed(&s.seat->position), 4096);
    drop_scene(&s);
}

int main(void)
{
    static const test tests[] = {
        TEST(a_record_holds_every_position_stream_and_length),
        TEST(a_record_holds_every_row_of_every_table),
        TEST(a_complete_piece_in_the_stripe_is_finished_once),
        TEST(only_the_streams_that_a_piece_names_are_written),
        TEST(a_record_that_names_anything_else_changes_nothing_in_a_stripe),
        TEST(a_piece_that_is_done_is_not_written_again),
        TEST(a_complete_row_is_finished_and_counted_once),
        TEST(a_row_whose_writer_died_behind_its_count_is_counted_once),
        TEST(a_record_that_names_anything_else_changes_nothing_in_a_row),
        TEST(a_named_row_is_one_that_there_is),
        TEST(rows_that_are_removed_leave_the_position_of_a_push_as_it_was),
    };
    return run_tests(tests, COUNT(tests));
}

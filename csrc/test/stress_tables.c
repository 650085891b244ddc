/* Threads, each with a session, on one table. `stress_tables [operations per thread]`. */
#define _GNU_SOURCE
#include <fcntl.h>

#include "stripe.h"
#include "tables.h"

#define N_PUSHING 2 /* one of them pulls in the same call */
#define N_THREADS (N_PUSHING + 4)
#define DIM 37 /* odd, so that rows lie across cache lines in all ways */
#define MAX_KEYS 6000u
#define BATCH 24u

static long operations = 2000;

/* Every push adds 1 to all values of a row, and 2 to its slot: a row whose elements differ is torn. What was pushed is
 * in a row or was removed with one. */
typedef struct load {
    fps_arena *arena;
    uint32_t number;
    uint32_t first_keys, all_keys; /* the keys that are used: so many in the beginning, and in the end */
    bool removes;                  /* one of the threads does */
    uint64_t pushed, removed;
    fps_word32 *done;
} load;

static void check_row(const float *row)
{
    for (uint32_t i = 1; i < DIM; i++) CHECK_FLOAT(row[i], row[0]);
    CHECK(row[0] >= 0);
}

static void check_slot(const float *slot, const float *row)
{
    for (uint32_t i = 0; i < DIM; i++) CHECK_FLOAT(slot[i], 2 * row[0]);
}

/* A third of the keys have one of four tags. */
static uint64_t key_of(uint32_t i) { return i % 3 ? i : key_of_tag(i % 4 * 0x55555555, i); }

static void pick_keys(const load *l, uint64_t *state, long i, uint32_t *which, uint64_t *keys, uint32_t n)
{
    const uint32_t range = l->first_keys + (uint32_t)((l->all_keys - l->first_keys) * i / operations);
    for (uint32_t k = 0; k < n; k++) {
        which[k] = random_below(state, range);
        keys[k] = key_of(which[k]);
    }
}

static _Thread_local double last_change;

/* A push finds hyper-parameters of one change, and none of an earlier one than the push before. */
static int32_t prepare_from_one_change(const double *hyper, double step, double *uniforms)
{
    (void)step, (void)uniforms;
    for (uint32_t i = 1; i < FPS_MAX_HYPER; i++) CHECK_FLOAT(hyper[i], hyper[0]);
    CHECK(hyper[0] >= last_change);
    last_change = hyper[0];
    return 0;
}

static void *push_all_the_time(void *argument)
{
    load *l = argument;
    uint64_t state = l->number, keys[BATCH];
    uint32_t which[BATCH];
    float *ones = filled(BATCH * DIM, 1), *outs = l->number == 0 ? filled(BATCH * DIM, -1) : NULL;
    fps_session s = open_session(l->arena);
    errand e;
    for (long i = 0; i < operations; i++) {
        const uint32_t n = 1 + random_below(&state, BATCH);
        pick_keys(l, &state, i, which, keys, n);
        prepare_rows(&e, &s, 0, keys, n, ones, outs);
        e.rule.prepare = prepare_from_one_change;
        CHECK_EQ(run_rows(&e), FPS_OK);
        drop_errand(&e);
        l->pushed += n;
        for (uint32_t k = 0; k < n && outs; k++) check_row(outs + k * DIM);
        for (uint32_t k = 0; k < n && outs; k++) CHECK(outs[k * DIM] >= 1);
    }
    fps_session_close(&s);
    free(ones);
    free(outs);
    return NULL;
}

static void *pull_all_the_time(void *argument)
{
    load *l = argument;
    uint64_t state = l->number, keys[BATCH];
    uint32_t which[BATCH];
    float *outs = filled(BATCH * DIM, -1), *last = filled(MAX_KEYS, 0);
    fps_session s = open_session(l->arena);
    for (long i = 0; i < operations; i++) {
        const uint32_t n = 1 + random_below(&state, BATCH);
        pick_keys(l, &state, i, which, keys, n);
        CHECK_EQ(pull_rows(&s, 0, keys, n, outs, random_below(&state, 2)), FPS_OK);
        for (uint32_t k = 0; k < n; k++) {
            check_row(outs + k * DIM);
            CHECK(l->removes || outs[k * DIM] >= last[which[k]]); /* a row that there was is found again */
            last[which[k]] = outs[k * DIM];
        }
    }
    fps_session_close(&s);
    free(outs);
    free(last);
    return NULL;
}

static void *remove_until_done(void *argument)
{
    load *l = argument;
    uint64_t state = l->number, keys[BATCH];
    uint32_t which[BATCH];
    uint8_t removed[BATCH];
    float *rows = filled(BATCH * DIM, -1), *slots = filled(BATCH * DIM, -1);
    uint8_t *const streams[] = {(uint8_t *)rows, (uint8_t *)slots};
    fps_session s = open_session(l->arena);
    while (!fps_load32_acquire(l->done)) {
        const uint32_t n = 1 + random_below(&state, BATCH / 4);
        pick_keys(l, &state, random_below(&state, (uint32_t)operations), which, keys, n);
        CHECK_EQ(remove_rows(&s, 0, keys, n, streams, removed), FPS_OK);
        for (uint32_t k = 0; k < n; k++) {
            if (!removed[k]) continue;
            check_row(rows + k * DIM);
            check_slot(slots + k * DIM, rows + k * DIM);
            l->removed += (uint64_t)rows[k * DIM];
        }
    }
    fps_session_close(&s);
    free(rows);
    free(slots);
    return NULL;
}

static void *scan_until_done(void *argument)
{
    load *l = argument;
    uint64_t *keys = malloc(64 * sizeof *keys);
    float *rows = filled(64 * DIM, -1), *slots = filled(64 * DIM, -1);
    uint8_t *const streams[] = {(uint8_t *)rows, (uint8_t *)slots};
    const fps_wait wait = {.deadline_ns = FPS_NEVER};
    CHECK(keys != NULL);
    for (uint64_t cursor = 0; !fps_load32_acquire(l->done);) {
        uint32_t n;
        const uint64_t from = cursor;
        CHECK_EQ(fps_scan_rows(l->arena, &l->arena->tables[0], &cursor, 64, FPS_SCAN_ALL, keys, streams, NULL, NULL,
                               &wait, &n),
                 FPS_OK);
        CHECK(cursor >= from + n);
        for (uint32_t k = 0; k < n; k++) {
            check_row(rows + k * DIM);
            check_slot(slots + k * DIM, rows + k * DIM);
        }
        if (n == 0) cursor = 0;
    }
    free(keys);
    free(rows);
    free(slots);
    return NULL;
}

static void *configure_until_done(void *argument)
{
    load *l = argument;
    double values[FPS_MAX_HYPER], got[FPS_MAX_HYPER];
    const fps_wait wait = {.deadline_ns = FPS_NEVER};
    for (double change = 1; !fps_load32_acquire(l->done); change++) {
        for (uint32_t i = 0; i < FPS_MAX_HYPER; i++) values[i] = change;
        CHECK_EQ(fps_table_configure(l->arena, &l->arena->tables[0], UINT32_MAX, values, &wait), FPS_OK);
        fps_table_hyper(&l->arena->tables[0], got);
        CHECK_EQ(memcmp(got, values, sizeof got), 0); /* nobody else changes them */
        nap_us(20);
    }
    return NULL;
}

static uint64_t sum_of_rows(const fps_arena *arena)
{
    const uint64_t n = live_of(&arena->tables[0]);
    uint64_t *keys = malloc((n + 1) * sizeof *keys), sum = 0;
    float *rows = filled((n + 1) * DIM, -1), *slots = filled((n + 1) * DIM, -1);
    uint8_t *const streams[] = {(uint8_t *)rows, (uint8_t *)slots};
    CHECK(keys != NULL);
    CHECK_EQ(scan_rows(arena, 0, (uint32_t)n + 1, keys, streams), n);
    for (uint64_t i = 0; i < n; i++) {
        check_row(rows + i * DIM);
        check_slot(slots + i * DIM, rows + i * DIM);
        sum += (uint64_t)rows[i * DIM];
    }
    free(keys);
    free(rows);
    free(slots);
    return sum;
}

static void check_load(uint32_t first_keys, uint32_t all_keys, bool removes)
{
    static void *(*const roles[N_THREADS])(void *) = {push_all_the_time, push_all_the_time, pull_all_the_time,
                                                      remove_until_done, scan_until_done,   configure_until_done};
    fps_table_layout layout = table_of(DIM, 1, all_keys);
    layout.tracked = removes;
    fps_arena arena = make_table(layout, N_THREADS);
    pthread_t threads[N_THREADS];
    load loads[N_THREADS];
    fps_word32 done = 0;
    uint64_t pushed = 0, removed = 0;
    for (uint32_t i = 0; i < N_THREADS; i++) {
        loads[i] = (load){.arena = &arena,
                          .number = i,
                          .first_keys = first_keys,
                          .all_keys = all_keys,
                          .removes = removes,
                          .done = &done};
        if (i == 3 && !removes) continue;
        CHECK_EQ(pthread_create(&threads[i], NULL, roles[i], &loads[i]), 0);
    }
    for (uint32_t i = 0; i < N_THREADS; i++) {
        if (i == 3) fps_store32_release(&done, 1);
        if (i == 3 && !removes) continue;
        pthread_join(threads[i], NULL);
        pushed += loads[i].pushed;
        removed += loads[i].removed;
    }
    const fps_table *t = &arena.tables[0];
    CHECK_EQ(sum_of_rows(&arena) + removed, pushed);
    CHECK_EQ(fps_load_relaxed(&t->control->version), N_PUSHING * operations);
    CHECK_EQ(fps_load_relaxed(&t->control->rows_created) - fps_load_relaxed(&t->control->rows_removed), live_of(t));
    CHECK_EQ(fps_load_relaxed(&arena.header->recovered_locks), 0);
    check_table(t);
    drop_arena(&arena);
}

static void one_row_is_a_whole_number_of_pushes(void) { check_load(1, 1, false); }
static void rows_that_come_and_go_lose_no_push(void) { check_load(40, 40, true); }
static void a_table_that_grows_loses_no_push(void) { check_load(3, MAX_KEYS, false); }
static void a_table_that_grows_while_rows_go_loses_no_push(void) { check_load(3, MAX_KEYS, true); }

/* One thread repairs what the dead left, and does nothing else that another could see. Then another takes their seat,
 * and writes to the redo block that the first has read. */
typedef struct heir {
    fps_arena arena;
    const fps_table *t;
    bool in_a_row; /* they died there, and else in a stripe */
    fps_word32 *ready;
    fps_word32 over;
} heir;

#define HEIR_N 512u
static const uint64_t heirs_keys[] = {5,
                                      6}; /* of rows 0 and 1: the dead wrote the first, their heir writes the other */

static bool is_repaired(const heir *h)
{
    const uint32_t row = 0;
    if (!h->in_a_row) return fps_load32_relaxed(&h->arena.stripes[0].writer) == 0;
    return FPS_ROW_WRITER(fps_load_relaxed(fps_row_word(fps_row_at(h->t, row)))) == 0;
}

/* It is forked before there are threads, and opens what there is then. */
static void die_with_results(void *argument)
{
    heir *h = argument;
    char path[64];
    const fps_wait wait = wait_ms(20000);
    uint64_t word;
    await(h->ready, 1);
    snprintf(path, sizeof path, "/proc/%d/fd/%u", getppid(), fps_load32_acquire(h->ready));
    fps_arena_spec spec = spec_of(0, 0, 1);
    CHECK_EQ(fps_arena_open(open(path, O_RDWR | O_CLOEXEC), spec.arena_id, &h->arena), FPS_OK);
    fps_session s = open_session(&h->arena);
    float *redo = (float *)(void *)fps_arena_redo(&h->arena, s.index, 0);
    for (uint32_t i = 0; i < DIM; i++) redo[i] = 1;
    if (h->in_a_row) {
        CHECK_EQ(fps_row_try(&s, &h->arena.tables[0], 0, heirs_keys[0], &word), FPS_OK);
        fps_redo_commit(s.seat, fps_load_relaxed(&s.seat->redo));
    } else {
        CHECK_EQ(fps_stripe_enter(&h->arena, 0, &wait), FPS_OK);
        fps_store32_relaxed(&h->arena.stripes[0].writer, s.index + 1);
        fps_redo_begin(s.seat, 0);
        fps_redo_commit(s.seat, FPS_REDO_PIECE(0, FPS_STREAMS_UP_TO(0), DIM * 4));
    }
    die();
}

static void *repair_and_stay(void *argument)
{
    heir *h = argument;
    const fps_wait wait = wait_ms(20000);
    fps_waiting w = fps_waiting_for(FPS_WAIT_ROW, &wait, h->arena.header);
    if (h->in_a_row) {
        while (!is_repaired(h)) CHECK_EQ(fps_row_wait(&h->arena, h->t, 0, &w), FPS_OK);
    } else {
        CHECK_EQ(fps_stripe_enter(&h->arena, 0, &wait), FPS_OK);
        fps_stripe_leave(&h->arena, 0);
    }
    while (!fps_load32_relaxed(&h->over)) nap_us(100);
    return NULL;
}

static void *inherit(void *argument)
{
    heir *h = argument;
    float ones[DIM], out[DIM];
    for (uint32_t i = 0; i < DIM; i++) ones[i] = 1;
    while (!is_repaired(h)) nap_us(100);
    fps_session s = open_session(&h->arena);
    CHECK_EQ(push_rows(&s, 0, &heirs_keys[1], 1, ones, out), FPS_OK);
    CHECK_FLOAT(out[0], 1);
    fps_session_close(&s);
    fps_store32_relaxed(&h->over, 1);
    return NULL;
}

static void check_inheritance(bool in_a_row)
{
    heir h = {.in_a_row = in_a_row, .ready = share(sizeof *h.ready)};
    pthread_t threads[2];
    pid_t pid = start_process(die_with_results, &h);
    fps_table_layout table = table_of(DIM, 0, 10);
    fps_arena_spec spec = spec_of_tables(&table, 1, 1);
    spec.params_bytes = HEIR_N * 4;
    CHECK_EQ(fps_arena_create(&spec, &h.arena), FPS_OK);
    h.t = &h.arena.tables[0];
    uint32_t rows[] = {FPS_NO_ROW, FPS_NO_ROW};
    const uint64_t hashes[] = {fps_hash(heirs_keys[0]), fps_hash(heirs_keys[1])};
    const fps_wait wait = wait_ms(20000);
    CHECK_EQ(fps_table_create_rows(&h.arena, h.t, heirs_keys, hashes, 2, rows, &wait), FPS_OK);
    CHECK(rows[0] == 0 && rows[1] == 1);
    fps_store32_release(h.ready, (uint32_t)h.arena.fd);
    expect_killed(pid);
    CHECK(!is_repaired(&h));
    CHECK_EQ(pthread_create(&threads[0], NULL, inherit, &h), 0);
    CHECK_EQ(pthread_create(&threads[1], NULL, repair_and_stay, &h), 0);
    for (size_t i = 0; i < COUNT(threads); i++) pthread_join(threads[i], NULL);
    CHECK_EQ(fps_load_relaxed(&h.arena.header->recovered_locks), 1);
    munmap(h.ready, sizeof *h.ready);
    drop_arena(&h.arena);
}

static void a_seat_is_used_behind_the_repair_of_the_stripe_of_the_dead(void) { check_inheritance(false); }
static void a_seat_is_used_behind_the_repair_of_the_row_of_the_dead(void) { check_inheritance(true); }

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(one_row_is_a_whole_number_of_pushes),
        TEST(rows_that_come_and_go_lose_no_push),
        TEST(a_table_that_grows_loses_no_push),
        TEST(a_table_that_grows_while_rows_go_loses_no_push),
        TEST(a_seat_is_used_behind_the_repair_of_the_stripe_of_the_dead),
        TEST(a_seat_is_used_behind_the_repair_of_the_row_of_the_dead),
    };
    if (argc > 1) operations = atol(argv[1]);
    return run_tests(tests, COUNT(tests));
}

/* Processes that die while they work on a table: at every instruction, or at random. `kill_tables [seed]`. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/stat.h>

#include "step.h"
#include "tables.h"

#define DIM 3u
#define MAX_KEYS 1200u
#define DEATHS                                                                                                         \
    short_or_long(8, 16) /* of each act, spread over its instructions: in a virtual machine a step takes 25 us */
#define ABSENT (-1.0F)

static uint32_t seed;

/* Keys are numbers below MAX_KEYS; a row holds how often it was pushed to, in all its values, and twice that in its
 * slot. */
typedef struct scene {
    fps_arena arena;
    const fps_table *t;
    fps_session witness, other;
    float values[MAX_KEYS]; /* as they were before the death */
} scene;

static void make_scene(scene *s, uint64_t max_rows)
{
    s->arena = make_table(table_of(DIM, 1, max_rows), 5);
    s->t = &s->arena.tables[0];
    s->witness = open_session(&s->arena);
    s->other = open_session(&s->arena);
}

static void drop_scene(scene *s)
{
    fps_session_close(&s->witness);
    fps_session_close(&s->other);
    drop_arena(&s->arena);
}

/* A third of the keys have one of four tags. */
static uint64_t key_of(uint32_t i) { return i % 3 ? i : key_of_tag(i % 4 * 0x55555555, i); }

static uint32_t number_of(uint64_t key)
{
    uint32_t i = key < MAX_KEYS ? (uint32_t)key : (uint32_t)fps_hash(key);
    CHECK(i < MAX_KEYS && key_of(i) == key);
    return i;
}

static void push_ones(fps_session *session, uint32_t from, uint32_t n)
{
    uint64_t keys[MAX_KEYS];
    float *ones = filled((size_t)n * DIM, 1);
    for (uint32_t i = 0; i < n; i++) keys[i] = key_of(from + i);
    CHECK_EQ(push_rows(session, 0, keys, n, ones, NULL), FPS_OK);
    free(ones);
}

/* Every row is whole, and no key has two. */
static void look(const scene *s, float *values)
{
    static uint64_t keys[MAX_KEYS];
    static float rows[MAX_KEYS][DIM], slots[MAX_KEYS][DIM];
    uint8_t *const streams[] = {(uint8_t *)rows, (uint8_t *)slots};
    for (uint32_t i = 0; i < MAX_KEYS; i++) values[i] = ABSENT;
    const uint32_t n = scan_rows(&s->arena, 0, MAX_KEYS, keys, streams);
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t k = 0; k < DIM; k++) {
            CHECK_FLOAT(rows[i][k], rows[i][0]);
            CHECK_FLOAT(slots[i][k], 2 * rows[i][0]);
        }
        CHECK_FLOAT(values[number_of(keys[i])], ABSENT);
        values[number_of(keys[i])] = rows[i][0];
    }
}

/* Whoever comes first finds rows whole, and puts right what the dead left. */
static void recover(scene *s, float *values)
{
    float found[MAX_KEYS], pulled[DIM];
    look(s, found);
    enter_and_leave(&s->arena, s->t);
    look(s, values);
    check_table(s->t);
    for (uint32_t i = 0; i < MAX_KEYS; i++) {
        const uint64_t key = key_of(i);
        if (values[i] < 0) continue;
        CHECK_EQ(pull_rows(&s->witness, 0, &key, 1, pulled, false), FPS_OK);
        CHECK_FLOAT(pulled[0], values[i]);
    }
}

/* Deaths at any instruction */

typedef struct act {
    const char *name;
    void (*make)(scene *s); /* before each death */
    void (*run)(void *s);   /* and dies in it; calls be_stepped */
    void (*check)(scene *s, const float *after);
} act;

/* An act that waits has more instructions at one time than at another: the last ones may not come. */
static void check_deaths(const act *a, uint64_t max_rows, uint32_t deaths, bool same_scene)
{
    scene s;
    float after[MAX_KEYS];
    uint64_t all = 0, state = seed;
    for (uint32_t death = 0; death <= deaths; death++) {
        if (death == 0 || !same_scene) make_scene(&s, max_rows);
        a->make(&s);
        look(&s, s.values);
        const uint64_t from = death ? all * (death - 1) / deaths : 0, behind = death ? all * death / deaths : 0;
        const uint64_t at = death ? from + random_below(&state, (uint32_t)(behind - from) + 1) : UINT64_MAX;
        const uint64_t steps = step_and_kill(a->run, &s, at, NULL);
        if (death == 0) all = steps;
        recover(&s, after);
        a->check(&s, after);
        push_ones(&s.other, 0, 20); /* life goes on */
        if (!same_scene || death == deaths) drop_scene(&s);
    }
    printf("  %s: %ju instructions\n", a->name, (uintmax_t)all);
}

/* From key `from` on, each of n keys in their order was changed by so much, up to one of them. */
static void check_prefix(const scene *s, const float *after, uint32_t from, uint32_t n, float by)
{
    bool over = false;
    for (uint32_t i = 0; i < MAX_KEYS; i++) {
        if (i < from || i >= from + n) {
            CHECK_FLOAT(after[i], s->values[i]);
            continue;
        }
        const bool changed = after[i] > s->values[i] || after[i] < s->values[i];
        CHECK(!changed || !over);
        over |= !changed;
        if (changed) CHECK_FLOAT(after[i], s->values[i] + by);
    }
}

static void have_rows(scene *s) { push_ones(&s->witness, 0, 30); }

static fps_word32 *pushing; /* the seat of whoever pushes */

/* All that belongs to nobody else is done before. */
static void push_stepped(scene *s, uint32_t from, uint32_t n)
{
    errand e;
    uint64_t keys[MAX_KEYS];
    float *ones = filled((size_t)n * DIM, 1);
    fps_session session = open_session(&s->arena);
    for (uint32_t i = 0; i < n; i++) keys[i] = key_of(from + i);
    prepare_rows(&e, &session, 0, keys, n, ones, NULL);
    CHECK_EQ(fps_batch_reserve(&e.batch, n, s->t->bytes[0]), FPS_OK);
    fps_store32_release(pushing, session.index);
    be_stepped();
    CHECK_EQ(run_rows(&e), FPS_OK);
    _exit(0);
}

static void push_to_some(void *argument) { push_stepped(argument, 10, 3); }

/* The record of a push that was interrupted tells how many rows of it were changed. */
static void check_some(scene *s, const float *after)
{
    const fps_seat *seat = &s->arena.seats[fps_load32_acquire(pushing)];
    uint32_t changed = 0;
    check_prefix(s, after, 10, 3, 1);
    for (uint32_t i = 10; i < 13; i++) changed += after[i] > s->values[i];
    if (fps_load_relaxed(&seat->begun_seq) != fps_load_relaxed(&seat->applied_seq))
        CHECK_EQ(fps_load_relaxed(&seat->position), changed);
}

static void a_death_at_any_instruction_of_a_push_leaves_whole_rows_in_order(void)
{
    check_deaths(&(act){"push", have_rows, push_to_some, check_some}, 100, DEATHS, true);
}

static void remove_keys(fps_session *session, uint32_t from, uint32_t n)
{
    uint64_t keys[MAX_KEYS];
    uint8_t removed[MAX_KEYS];
    for (uint32_t i = 0; i < n; i++) keys[i] = key_of(from + i);
    CHECK_EQ(remove_rows(session, 0, keys, n, NULL, removed), FPS_OK);
}

/* Some of the rows that are created were there before, and some are new. */
static void have_free_rows(scene *s)
{
    have_rows(s);
    remove_keys(&s->witness, 40, 3);
    remove_keys(&s->witness, 12, 2);
}

static void push_new_rows(void *argument) { push_stepped(argument, 40, 3); }

/* Created and changed in their order. A row whose tag is another's, too, is created when it is changed. */
static void check_new_rows(scene *s, const float *after)
{
    for (uint32_t i = 0; i < MAX_KEYS; i++) {
        if (i >= 40 && i < 43)
            CHECK(after[i] <= (i > 40 ? after[i - 1] : 1));
        else
            CHECK_FLOAT(after[i], s->values[i]);
    }
}

static void a_death_at_any_instruction_of_row_creation_leaves_rows_and_index_in_agreement(void)
{
    check_deaths(&(act){"row creation", have_free_rows, push_new_rows, check_new_rows}, 100, DEATHS, true);
}

static void remove_some(void *argument)
{
    scene *s = argument;
    fps_session session = open_session(&s->arena);
    be_stepped();
    remove_keys(&session, 10, 3);
}

static void check_removed(scene *s, const float *after)
{
    bool over = false;
    for (uint32_t i = 0; i < MAX_KEYS; i++) {
        const bool gone = s->values[i] >= 0 && after[i] < 0;
        if (!gone) CHECK_FLOAT(after[i], s->values[i]);
        if (gone) CHECK(i >= 10 && i < 13 && !over);
        over |= i >= 10 && !gone;
    }
}

static void a_death_at_any_instruction_of_a_removal_leaves_whole_rows(void)
{
    check_deaths(&(act){"removal", have_rows, remove_some, check_removed}, 100, DEATHS, true);
}

static void set_some(void *argument)
{
    scene *s = argument;
    const uint64_t keys[] = {key_of(10), key_of(11), key_of(12)};
    float values[3][DIM], slots[3][DIM];
    for (uint32_t i = 0; i < 3; i++) {
        for (uint32_t k = 0; k < DIM; k++) {
            values[i][k] = s->values[10 + i] + 7;
            slots[i][k] = 2 * values[i][k];
        }
    }
    fps_session session = open_session(&s->arena);
    be_stepped();
    set_rows(&session, 0, keys, 3, (const uint8_t *const[]){(uint8_t *)values, (uint8_t *)slots});
}

static void check_set(scene *s, const float *after) { check_prefix(s, after, 10, 3, 7); }

static void a_death_at_any_instruction_of_a_set_leaves_whole_rows_in_order(void)
{
    check_deaths(&(act){"set", have_rows, set_some, check_set}, 100, DEATHS, true);
}

/* Not one row more has room in the index. */
static void fill_the_index(scene *s)
{
    push_ones(&s->witness, 0, 30);
    const uint64_t buckets = FPS_INDEX_BUCKETS(fps_load_relaxed(&s->t->control->index));
    push_ones(&s->witness, 100, (uint32_t)buckets * FPS_BUCKET_SLOTS * 9 / 10 - 30);
    CHECK_EQ(fps_load_relaxed(&s->t->control->rebuilt), 1);
}

/* The next index is built where the dead one began one. */
static void check_growing(scene *s, const float *after)
{
    float values[MAX_KEYS];
    check_new_rows(s, after);
    CHECK(fps_load_relaxed(&s->t->control->rebuilt) >= (after[40] < 0 ? 1 : 2));
    push_ones(&s->other, 600, 500);
    check_table(s->t);
    look(s, values);
    for (uint32_t i = 0; i < MAX_KEYS; i++) CHECK_FLOAT(values[i], i >= 600 && i < 1100 ? 1 : after[i]);
}

static void a_death_at_any_instruction_of_growing_loses_no_row(void)
{
    check_deaths(&(act){"growing", fill_the_index, push_new_rows, check_growing}, 2000, 2, false);
}

/* So many instructions are many steps, but little time. */
static fps_word32 *going;

static void push_at_once(void *argument)
{
    scene *s = argument;
    fps_session session = open_session(&s->arena);
    fps_store32_release(going, 1);
    push_ones(&session, 40, 3);
}

static void deaths_at_random_in_growing_lose_no_row(void)
{
    const uint32_t deaths = 100;
    uint32_t grown = 0, created = 0;
    uint64_t state = seed;
    going = share(sizeof *going);
    for (uint32_t death = 0; death < deaths; death++) {
        scene s;
        float after[MAX_KEYS];
        make_scene(&s, 2000);
        fill_the_index(&s);
        look(&s, s.values);
        const uint32_t turns_to_wait = random_below(&state, 12000);
        fps_store32_relaxed(going, 0);
        pid_t pid = start_process(push_at_once, &s);
        while (!fps_load32_acquire(going)) fps_pause();
        for (volatile uint32_t i = 0; i < turns_to_wait; i++) {
        }
        kill(pid, SIGKILL);
        CHECK_EQ(waitpid(pid, NULL, 0), pid); /* it may have come to its end */
        grown += fps_load_relaxed(&s.t->control->rebuilt) == 2;
        recover(&s, after);
        created += after[42] >= 0;
        check_growing(&s, after);
        drop_scene(&s);
    }
    printf("  of %u deaths %u were behind the new index, and %u behind all creations\n", deaths, grown, created);
    munmap(going, sizeof *going);
}

static void change_hyper(void *argument)
{
    scene *s = argument;
    double values[FPS_MAX_HYPER];
    const fps_wait wait = {.deadline_ns = FPS_NEVER};
    for (uint32_t i = 0; i < FPS_MAX_HYPER; i++) values[i] = 2;
    be_stepped();
    CHECK_EQ(fps_table_configure(&s->arena, s->t, UINT32_MAX, values, &wait), FPS_OK);
    CHECK_EQ(fps_dense_configure(&s->arena, 1, UINT32_MAX, values, &wait), FPS_OK);
}

static void have_hyper(scene *s)
{
    double values[FPS_MAX_HYPER];
    const fps_wait wait = {.deadline_ns = FPS_NEVER};
    have_rows(s);
    for (uint32_t i = 0; i < FPS_MAX_HYPER; i++) values[i] = 1;
    CHECK_EQ(fps_table_configure(&s->arena, s->t, UINT32_MAX, values, &wait), FPS_OK);
    CHECK_EQ(fps_dense_configure(&s->arena, 1, UINT32_MAX, values, &wait), FPS_OK);
}

static void check_hyper(scene *s, const float *after)
{
    double table[FPS_MAX_HYPER], shard[FPS_MAX_HYPER];
    check_prefix(s, after, 0, 0, 0);
    fps_table_hyper(s->t, table);
    fps_dense_hyper(&s->arena, 1, shard);
    CHECK(table[0] >= 1 && table[0] <= 2);
    CHECK(shard[0] >= 1 && shard[0] <= table[0]);
    for (uint32_t i = 1; i < FPS_MAX_HYPER; i++) { /* all of them, or none */
        CHECK_FLOAT(table[i], table[0]);
        CHECK_FLOAT(shard[i], shard[0]);
    }
}

static void a_death_at_any_instruction_of_a_change_of_hyper_parameters_holds_nobody_up(void)
{
    check_deaths(&(act){"hyper-parameters", have_hyper, change_hyper, check_hyper}, 100, DEATHS, true);
}

/* Readers, at any instruction of somebody else's */

/* Others' rows are found, with what is in them. */
static void find_others(const scene *s)
{
    for (uint32_t i = 0; i < 10; i++) {
        const uint64_t key = key_of(i);
        uint32_t row;
        float values[DIM];
        fps_scan_find(s->t, &key, 1, &row);
        CHECK(row != FPS_NO_ROW);
        CHECK_EQ(fps_load_relaxed(fps_row_key(fps_row_at(s->t, row))), key);
        memcpy(values, fps_row_at(s->t, row) + s->t->at[0], sizeof values);
        CHECK_FLOAT(values[0], s->values[i]);
    }
}

/* And the ones that are created or removed now are there, as they were or at first, or are not. */
static void find_the_new(void *argument)
{
    const scene *s = argument;
    fps_session reader = s->other;
    find_others(s);
    for (uint32_t i = 10; i < 43; i = i == 12 ? 40 : i + 1) {
        const uint64_t key = key_of(i);
        float out[DIM];
        errand e;
        prepare_rows(&e, &reader, 0, &key, 1, NULL, out);
        e.call.create = false;
        e.call.wait = (fps_wait){.deadline_ns = FPS_NO_WAIT};
        const fps_status status = run_rows(&e);
        CHECK(status == FPS_OK || status == FPS_BUSY);
        for (uint32_t k = 1; k < DIM && status == FPS_OK; k++) CHECK_FLOAT(out[k], out[0]);
        if (status == FPS_OK) CHECK(out[0] <= 0 || out[0] <= (i < 40 ? s->values[i] + 1 : 1));
        drop_errand(&e);
    }
}

static void check_looks(const act *a, uint64_t max_rows, void (*between)(void *))
{
    scene s;
    float after[MAX_KEYS];
    make_scene(&s, max_rows);
    a->make(&s);
    look(&s, s.values);
    const uint64_t steps = step_and_kill(a->run, &s, UINT64_MAX, between);
    recover(&s, after);
    a->check(&s, after);
    drop_scene(&s);
    printf("  %s: %ju instructions\n", a->name, (uintmax_t)steps);
}

static void readers_find_every_row_at_any_instruction_of_growing(void)
{
    check_looks(&(act){"growing", fill_the_index, push_new_rows, check_growing}, 2000, find_the_new);
}

static void readers_see_whole_rows_at_any_instruction_of_creations_and_removals(void)
{
    check_looks(&(act){"row creation", have_free_rows, push_new_rows, check_new_rows}, 100, find_the_new);
    check_looks(&(act){"removal", have_rows, remove_some, check_removed}, 100, find_the_new);
    check_looks(&(act){"push", have_rows, push_to_some, check_some}, 100, find_the_new);
}

/* Those who repair die, too. */

/* Holds the row, with what its push makes of it in the redo block: complete, or not yet. */
static bool commits;

static void die_in_a_row(void *argument)
{
    scene *s = argument;
    uint64_t word;
    uint32_t row;
    const uint64_t key = key_of(10);
    fps_session session = open_session(&s->arena);
    fps_scan_find(s->t, &key, 1, &row);
    CHECK_EQ(fps_row_try(&session, s->t, row, key, &word), FPS_OK);
    float *redo = (float *)(void *)fps_arena_redo(&s->arena, session.index, 0);
    for (uint32_t k = 0; k < DIM; k++) {
        redo[k] = s->values[10] + 1;
        redo[DIM + k] = 2 * redo[k];
    }
    if (commits) fps_redo_commit(session.seat, fps_load_relaxed(&session.seat->redo));
    if (commits) memcpy(fps_row_at(s->t, row) + s->t->head_bytes, redo, DIM * 4 + 2); /* torn */
    die();
}

static void have_a_row_of_the_dead(scene *s)
{
    have_rows(s);
    look(s, s->values);
    expect_killed(start_process(die_in_a_row, s));
}

/* Which `look` would repair already. */
static void check_deaths_in_repair(bool committed)
{
    scene s;
    float after[MAX_KEYS];
    uint64_t all = 0, state = seed;
    commits = committed;
    make_scene(&s, 100);
    for (uint32_t death = 0; death <= DEATHS; death++) {
        have_a_row_of_the_dead(&s);
        const uint64_t from = death ? all * (death - 1) / DEATHS : 0, behind = death ? all * death / DEATHS : 0;
        const uint64_t at = death ? from + random_below(&state, (uint32_t)(behind - from) + 1) : UINT64_MAX;
        const uint64_t steps = step_and_kill(push_to_some, &s, at, NULL);
        if (death == 0) all = steps;
        recover(&s, after);
        if (committed) s.values[10]++; /* whoever came first has finished it */
        check_prefix(&s, after, 10, 3, 1);
    }
    CHECK(fps_load_relaxed(&s.arena.header->recovered_locks) > DEATHS);
    printf("  repair: %ju instructions\n", (uintmax_t)all);
    drop_scene(&s);
}

static void a_death_at_any_instruction_of_a_repair_leaves_it_to_the_next(void)
{
    check_deaths_in_repair(true);
    check_deaths_in_repair(false);
}

/* Somebody has taken the seat of the dead over and given it back, since it could not be used yet. It is then no longer
 * marked as that of the dead. */
static void a_row_of_the_dead_is_repaired_when_their_seat_was_given_back(void)
{
    for (int committed = 0; committed < 2; committed++) {
        scene s;
        errand e;
        float after[MAX_KEYS];
        const float ones[DIM] = {1, 1, 1};
        const uint64_t key = key_of(10);
        commits = committed;
        make_scene(&s, 100);
        have_a_row_of_the_dead(&s);
        CHECK_EQ(fps_life_take(&s.arena.seats[2].life, FPS_LIFE_SESSION), FPS_OK);
        CHECK(fps_life_give(&s.arena.seats[2].life));
        prepare_rows(&e, &s.witness, 0, &key, 1, ones, NULL);
        e.call.wait = wait_ms(5000);
        CHECK_EQ(run_rows(&e), FPS_OK);
        recover(&s, after);
        CHECK_FLOAT(after[10], s.values[10] + 1 + (float)committed);
        drop_errand(&e);
        drop_scene(&s);
    }
}

/* Dies with the table's lock, behind all that a death may have left to do. */
static void leave_a_mess(void *argument)
{
    scene *s = argument;
    const fps_wait wait = {.deadline_ns = FPS_NEVER};
    CHECK_EQ(fps_rowset_enter(&s->arena, s->t, &wait), FPS_OK);
    const uint64_t key = key_of(11), hash = fps_hash(key);
    fps_index_remove(s->t, fps_hash_tag(hash), fps_rowset_find(s->t, key, hash));
    fps_store_relaxed(&s->t->control->live, 5);
    fps_store_relaxed(&s->t->control->free, 3);
    die();
}

static void have_a_mess(scene *s)
{
    have_rows(s);
    remove_keys(&s->witness, 20, 6);
    expect_killed(start_process(leave_a_mess, s));
}

static void tidy_up(void *argument)
{
    scene *s = argument;
    be_stepped();
    enter_and_leave(&s->arena, s->t);
}

static void check_tidied(scene *s, const float *after)
{
    CHECK_FLOAT(after[11], ABSENT);
    s->values[11] = ABSENT; /* `look` sees rows, and this one was one until somebody tidied up */
    check_prefix(s, after, 0, 0, 0);
}

static void a_death_at_any_instruction_of_tidying_up_leaves_it_to_the_next(void)
{
    check_deaths(&(act){"tidying up", have_a_mess, tidy_up, check_tidied}, 100, DEATHS, true);
}

/* A push that waited knows a row's number from before it was removed. Meanwhile the same key's row is created again, by
 * somebody who dies. What the push adds must be there in the end. */
static void pull_new_row(void *argument)
{
    scene *s = argument;
    float out[DIM];
    const uint64_t key = key_of(10);
    fps_session session = open_session(&s->arena);
    be_stepped();
    CHECK_EQ(pull_rows(&session, 0, &key, 1, out, true), FPS_OK);
    _exit(0);
}

static void check_late_push(scene *s, uint64_t at, uint64_t *steps)
{
    errand e;
    uint64_t word;
    uint32_t row;
    const uint64_t key = key_of(10);
    const float ones[DIM] = {1, 1, 1};
    float after[MAX_KEYS];
    have_rows(s);
    fps_scan_find(s->t, &key, 1, &row);
    CHECK_EQ(fps_row_try(&s->other, s->t, row, key, &word), FPS_OK);
    prepare_rows(&e, &s->witness, 0, &key, 1, ones, NULL);
    e.call.wait = (fps_wait){.deadline_ns = FPS_NO_WAIT};
    CHECK_EQ(run_rows(&e), FPS_BUSY);
    fps_row_leave(s->t, row, word);
    remove_keys(&s->other, 10, 1);
    *steps = step_and_kill(pull_new_row, s, at, NULL);
    e.call.wait = wait_ms(20000);
    CHECK_EQ(run_rows(&e), FPS_OK);
    recover(s, after);
    CHECK_FLOAT(after[10], 1);
    drop_errand(&e);
}

static void a_push_that_comes_late_is_not_lost_with_a_row_creation_that_died(void)
{
    scene s;
    uint64_t all = 0, steps, state = seed;
    make_scene(&s, 100);
    check_late_push(&s, UINT64_MAX, &all);
    for (uint32_t death = 1; death <= 4 * DEATHS; death++) {
        const uint64_t from = all * (death - 1) / (4 * DEATHS), behind = all * death / (4 * DEATHS);
        check_late_push(&s, from + random_below(&state, (uint32_t)(behind - from) + 1), &steps);
    }
    printf("  row creation: %ju instructions\n", (uintmax_t)all);
    drop_scene(&s);
}

/* Workers on two tables, one of short rows and one of long ones, until they are told to stop, die, or are stopped for a
 * while. */
#define N_WORKERS 3
#define N_TABLES 2
#define LONG_DIM 700u
#define BATCH 6u
#define ROUNDS 160
#define ROUNDS_AN_ARENA 40
#define MAX_OPERATIONS 4000u

static const uint32_t dims[N_TABLES] = {DIM, LONG_DIM};

typedef enum kind { PUSH = 1, REMOVE } kind;

/* What a worker does that changes something. Complete when it is one of the log's `done`. */
typedef struct entry {
    kind kind;
    uint32_t table, n;
    uint32_t which[BATCH];
    float removed[BATCH]; /* what was in the row, or ABSENT */
} entry;

typedef struct diary {
    fps_word32 ready;
    fps_word begun, done; /* entries */
    fps_word operations;
    fps_word longest_ns;
    entry entries[MAX_OPERATIONS];
    float rows[BATCH][LONG_DIM], slots[BATCH][LONG_DIM]; /* of the removal under way */
} diary;

typedef struct crowd {
    fps_arena arena;
    fps_session witness;
    fps_word32 *stop;
    diary *diaries;
    float known[N_TABLES][MAX_KEYS]; /* what is in the rows, 0 without one */
    uint32_t worker, range, round;
    bool slow;
} crowd;

static uint32_t turns; /* of a kernel's busy loop per element */

static int32_t add_slowly(const void *const *state, const void *grad, void *const *results, int64_t n, int64_t ahead,
                          const double *uniforms)
{
    add_1_f32(state, grad, results, n, ahead, uniforms);
    for (volatile uint32_t t = 0; t < turns * n; t++) {
    }
    return 0;
}

static void check_rows(const float *rows, uint32_t dim, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = 1; k < dim; k++) CHECK_FLOAT(rows[i * dim + k], rows[i * dim]);
}

/* Different keys, so that what becomes of each is known. */
static void pick_keys(const crowd *c, uint64_t *state, uint32_t n, uint32_t *which, uint64_t *keys)
{
    for (uint32_t i = 0; i < n;) {
        uint32_t k = 0;
        which[i] = random_below(state, c->range);
        while (which[k] != which[i]) k++;
        if (k < i) continue;
        keys[i] = key_of(which[i]);
        i++;
    }
}

static void push_and_tell(const crowd *c, fps_session *s, uint64_t *state, const float *ones, float *outs)
{
    diary *d = &c->diaries[c->worker];
    entry *e = &d->entries[fps_load_relaxed(&d->done)];
    uint64_t keys[BATCH];
    errand work;
    *e = (entry){.kind = PUSH, .table = random_below(state, N_TABLES), .n = 1 + random_below(state, BATCH)};
    pick_keys(c, state, e->n, e->which, keys);
    prepare_rows(&work, s, e->table, keys, e->n, ones, random_below(state, 2) ? outs : NULL);
    work.rule.kernel = add_slowly;
    fps_store_release(&d->begun, fps_load_relaxed(&d->done) + 1);
    CHECK_EQ(run_rows(&work), FPS_OK);
    fps_store_release(&d->done, fps_load_relaxed(&d->begun));
    if (work.call.outs) check_rows(outs, dims[e->table], e->n);
    drop_errand(&work);
}

static void remove_and_tell(const crowd *c, const fps_session *s, uint64_t *state)
{
    diary *d = &c->diaries[c->worker];
    entry *e = &d->entries[fps_load_relaxed(&d->done)];
    uint64_t keys[BATCH];
    uint8_t removed[BATCH], *const streams[] = {(uint8_t *)d->rows, (uint8_t *)d->slots};
    *e = (entry){.kind = REMOVE, .table = random_below(state, N_TABLES), .n = 1 + random_below(state, BATCH / 2)};
    pick_keys(c, state, e->n, e->which, keys);
    const uint32_t dim = dims[e->table];
    for (uint32_t i = 0; i < e->n; i++) ((float *)d->rows)[i * dim] = e->removed[i] = ABSENT;
    fps_store_release(&d->begun, fps_load_relaxed(&d->done) + 1);
    CHECK_EQ(remove_rows(s, e->table, keys, e->n, streams, removed), FPS_OK);
    for (uint32_t i = 0; i < e->n; i++)
        if (removed[i]) e->removed[i] = ((float *)d->rows)[i * dim];
    fps_store_release(&d->done, fps_load_relaxed(&d->begun));
    for (uint32_t i = 0; i < e->n; i++) {
        if (!removed[i]) continue;
        check_rows((float *)d->rows + i * dim, dim, 1);
        for (uint32_t k = 0; k < dim; k++) CHECK_FLOAT(((float *)d->slots)[i * dim + k], 2 * e->removed[i]);
    }
}

static void only_look(const crowd *c, fps_session *s, uint64_t *state, float *outs)
{
    const uint32_t table = random_below(state, N_TABLES), n = 1 + random_below(state, BATCH);
    uint64_t keys[BATCH], cursor = random_below(state, c->range);
    uint32_t which[BATCH], found;
    const fps_wait wait = wait_ms(20000);
    pick_keys(c, state, n, which, keys);
    CHECK_EQ(pull_rows(s, table, keys, n, outs, random_below(state, 2)), FPS_OK);
    check_rows(outs, dims[table], n);
    CHECK_EQ(fps_scan_rows(&c->arena, &c->arena.tables[table], &cursor, BATCH, FPS_SCAN_ALL, keys,
                           (uint8_t *const[]){(uint8_t *)outs, NULL}, NULL, NULL, &wait, &found),
             FPS_OK);
    check_rows(outs, dims[table], found);
}

static void work_until_told(void *argument)
{
    const crowd *c = argument;
    diary *d = &c->diaries[c->worker];
    uint64_t state = (uint64_t)seed << 32 | c->round * N_WORKERS | c->worker;
    float *ones = filled(BATCH * LONG_DIM, 1), *outs = filled(BATCH * LONG_DIM, -1);
    turns = c->slow ? 3 : 0;
    fps_session s = open_session(&c->arena);
    fps_store32_release(&d->ready, 1);
    while (!fps_load32_acquire(c->stop)) {
        const int64_t start = fps_now_ns();
        const uint32_t what = random_below(&state, 4);
        if (fps_load_relaxed(&d->done) == MAX_OPERATIONS || what == 3)
            only_look(c, &s, &state, outs);
        else if (what == 2)
            remove_and_tell(c, &s, &state);
        else
            push_and_tell(c, &s, &state, ones, outs);
        const uint64_t took = (uint64_t)(fps_now_ns() - start);
        if (took > fps_load_relaxed(&d->longest_ns)) fps_store_relaxed(&d->longest_ns, took);
        fps_store_release(&d->operations, fps_load_relaxed(&d->operations) + 1);
    }
    fps_session_close(&s);
    free(ones);
    free(outs);
}

/* What the diaries say: all that is done, and what each worker's last entry may have changed when it is not. */
static void read_diaries(crowd *c, float changes[N_WORKERS][N_TABLES][MAX_KEYS])
{
    for (uint32_t w = 0; w < N_WORKERS; w++) {
        const diary *d = &c->diaries[w];
        const uint64_t done = fps_load_acquire(&d->done), begun = fps_load_acquire(&d->begun);
        CHECK(begun == done || begun == done + 1);
        for (uint64_t i = 0; i < done; i++) {
            const entry *e = &d->entries[i];
            for (uint32_t k = 0; k < e->n; k++)
                if (e->kind == PUSH || e->removed[k] >= 0)
                    c->known[e->table][e->which[k]] += e->kind == PUSH ? 1 : -e->removed[k];
        }
        if (begun == done) continue;
        const entry *e = &d->entries[done];
        for (uint32_t k = 0; k < e->n; k++) {
            const float value = ((const float *)d->rows)[k * dims[e->table]];
            if (e->kind == PUSH || value >= 0) changes[w][e->table][e->which[k]] = e->kind == PUSH ? 1 : -value;
        }
    }
}

static bool explained(float difference, const float *options)
{
    for (uint32_t of = 0; of < 1u << N_WORKERS; of++) {
        float sum = 0;
        for (uint32_t w = 0; w < N_WORKERS; w++) sum += of >> w & 1 ? options[w] : 0;
        if (sum <= difference && sum >= difference) return true;
    }
    return false;
}

/* Of the keys of an entry that a death interrupted, those before one that was changed were changed, too. */
static void check_order(const entry *e, float differences[N_TABLES][MAX_KEYS])
{
    bool over = false;
    for (uint32_t k = 0; k < e->n && e->kind == PUSH; k++) {
        const bool changed = differences[e->table][e->which[k]] > 0;
        CHECK(!changed || !over);
        over |= !changed;
    }
}

static void look_at_table(const crowd *c, uint32_t table, float *values)
{
    static uint64_t keys[MAX_KEYS];
    static float rows[MAX_KEYS * LONG_DIM], slots[MAX_KEYS * LONG_DIM];
    const uint32_t dim = dims[table],
                   n = scan_rows(&c->arena, table, 100, keys, (uint8_t *const[]){(uint8_t *)rows, (uint8_t *)slots});
    memset(values, 0, MAX_KEYS * sizeof *values);
    check_rows(rows, dim, n);
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t k = 0; k < dim; k++) CHECK_FLOAT(slots[i * dim + k], 2 * rows[i * dim]);
        values[number_of(keys[i])] = rows[i * dim];
    }
    CHECK_EQ(n, live_of(&c->arena.tables[table]));
}

/* Answers how many entries were interrupted. */
static uint32_t check_after_deaths(crowd *c, uint32_t victims)
{
    static float changes[N_WORKERS][N_TABLES][MAX_KEYS], differences[N_TABLES][MAX_KEYS];
    uint32_t interrupted = 0, last = 0;
    memset(changes, 0, sizeof changes);
    read_diaries(c, changes);
    for (uint32_t t = 0; t < N_TABLES; t++) {
        float values[MAX_KEYS];
        enter_and_leave(&c->arena, &c->arena.tables[t]);
        look_at_table(c, t, values);
        check_table(&c->arena.tables[t]);
        for (uint32_t i = 0; i < MAX_KEYS; i++) {
            float options[N_WORKERS];
            for (uint32_t w = 0; w < N_WORKERS; w++) options[w] = changes[w][t][i];
            differences[t][i] = values[i] - c->known[t][i];
            CHECK(explained(differences[t][i], options));
            c->known[t][i] = values[i];
        }
    }
    for (uint32_t w = 0; w < N_WORKERS; w++) {
        const diary *d = &c->diaries[w];
        if (fps_load_relaxed(&d->begun) == fps_load_relaxed(&d->done)) continue;
        CHECK(victims >> w & 1);
        interrupted++;
        last = w;
    }
    const diary *d = &c->diaries[last];
    if (interrupted == 1) check_order(&d->entries[fps_load_relaxed(&d->done)], differences);
    return interrupted;
}

static void await_operations(const diary *d, uint64_t more)
{
    const uint64_t until = fps_load_acquire(&d->operations) + more;
    while (fps_load_acquire(&d->operations) < until) nap_us(100);
}

static void stop_for_a_moment(pid_t pid)
{
    int status = 0;
    CHECK_EQ(kill(pid, SIGSTOP), 0);
    CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
    CHECK(WIFSTOPPED(status));
    nap_us(1000);
    CHECK_EQ(kill(pid, SIGCONT), 0);
}

/* Answers which workers were killed: one, at times two at once. */
static uint32_t strike(crowd *c, const pid_t *pids)
{
    uint32_t victims = 1u << random() % N_WORKERS;
    nap_us(random() % 2000);
    if (c->round % 4 == 1) stop_for_a_moment(pids[random() % N_WORKERS]);
    if (c->round % 4 == 3) victims |= 1u << random() % N_WORKERS;
    for (uint32_t w = 0; w < N_WORKERS; w++)
        if (victims >> w & 1) kill(pids[w], SIGKILL);
    for (uint32_t w = 0; w < N_WORKERS; w++)
        if (victims >> w & 1) expect_killed(pids[w]);
    for (uint32_t w = 0; w < N_WORKERS; w++)
        if (!(victims >> w & 1)) await_operations(&c->diaries[w], 2);
    return victims;
}

static void open_crowd(crowd *c)
{
    const fps_table_layout tables[N_TABLES] = {table_of(DIM, 1, MAX_KEYS), table_of(LONG_DIM, 1, MAX_KEYS)};
    c->arena = make_tables(tables, N_TABLES, N_WORKERS + 1);
    c->witness = open_session(&c->arena);
    memset(c->known, 0, sizeof c->known);
}

static void close_crowd(crowd *c)
{
    fps_session_close(&c->witness);
    drop_arena(&c->arena);
}

static void random_deaths_lose_nothing_and_stop_nobody(void)
{
    static crowd c;
    uint32_t deaths = 0, interrupted = 0;
    uint64_t longest = 0, rebuilt = 0, changes = 0;
    c.stop = share(sizeof *c.stop);
    c.diaries = share(N_WORKERS * sizeof *c.diaries);
    srandom(seed);
    for (c.round = 0; c.round < ROUNDS; c.round++) {
        pid_t pids[N_WORKERS];
        const uint32_t age = c.round % ROUNDS_AN_ARENA;
        if (age == 0) open_crowd(&c);
        c.range = 30 + (MAX_KEYS - 30) * age / (ROUNDS_AN_ARENA - 1);
        c.slow = c.round % 2;
        fps_store32_relaxed(c.stop, 0);
        memset(c.diaries, 0, N_WORKERS * sizeof *c.diaries);
        for (c.worker = 0; c.worker < N_WORKERS; c.worker++) pids[c.worker] = start_process(work_until_told, &c);
        for (uint32_t w = 0; w < N_WORKERS && c.round % 8 < 6; w++)
            await(&c.diaries[w].ready, 1); /* or while it comes */
        const uint32_t victims = strike(&c, pids);
        fps_store32_release(c.stop, 1);
        for (uint32_t w = 0; w < N_WORKERS; w++) {
            if (victims >> w & 1)
                deaths++;
            else
                expect_success(pids[w]);
            const uint64_t took = fps_load_relaxed(&c.diaries[w].longest_ns);
            if (took > longest) longest = took;
            changes += fps_load_relaxed(&c.diaries[w].done);
        }
        interrupted += check_after_deaths(&c, victims);
        if (age < ROUNDS_AN_ARENA - 1) continue;
        for (uint32_t t = 0; t < N_TABLES; t++) rebuilt += fps_load_relaxed(&c.arena.tables[t].control->rebuilt);
        close_crowd(&c);
    }
    printf(
        "  seed %u: %u deaths, %u left something half-way, %ju changes, %ju times a new index; the longest operation "
        "took %.1f ms\n",
        seed, deaths, interrupted, (uintmax_t)changes, (uintmax_t)rebuilt, (double)longest / 1e6);
    CHECK(longest < 10000000000); /* no limit on speed: what nobody recovers is never free again */
    munmap(c.diaries, N_WORKERS * sizeof *c.diaries);
    munmap(c.stop, sizeof *c.stop);
}

/* The owner of the arena dies while others work. Whoever finds out gives the memory back, under those who have not. */
#define N_HEIRS 3u
#define ESTATES 40u
#define ESTATE_N 16384u

typedef struct estate {
    fps_word32 fd, at_work;
    pid_t owner;
} estate;

static void open_estate(estate *e, fps_arena *arena)
{
    char path[64];
    fps_arena_spec spec = spec_of(0, 0, 1);
    await(&e->fd, 1);
    snprintf(path, sizeof path, "/proc/%d/fd/%u", e->owner, fps_load32_acquire(&e->fd));
    CHECK_EQ(fps_arena_open(open(path, O_RDWR | O_CLOEXEC), spec.arena_id, arena), FPS_OK);
}

static void own_until_killed(void *argument)
{
    estate *e = argument;
    fps_arena arena;
    fps_table_layout table = table_of(DIM, 1, MAX_KEYS);
    fps_arena_spec spec = spec_of_tables(&table, 1, N_HEIRS + 1);
    spec.params_bytes = ESTATE_N * 4;
    spec.stripe_bytes = 8192;
    spec.n_slots = 1;
    CHECK_EQ(fps_arena_create(&spec, &arena), FPS_OK);
    fps_store32_release(&e->fd, (uint32_t)arena.fd);
    for (;;) pause();
}

/* What is answered with FPS_OK was read before the memory went. */
static fps_status work_once(fps_session *s, uint64_t *state, const float *ones, float *out, float *last)
{
    uint64_t keys[8];
    uint8_t removed[8];
    const uint32_t what = random_below(state, 5);
    fps_status status;
    for (uint32_t i = 0; i < COUNT(keys); i++) keys[i] = key_of(random_below(state, MAX_KEYS));
    if (what == 0) {
        status = pull(s, out);
        if (status == FPS_OK) check_all_equal(out, ESTATE_N, out[0]);
        if (status == FPS_OK) CHECK(out[0] >= *last);
        if (status == FPS_OK) *last = out[0];
    } else if (what == 1) {
        status = push(s, ones);
    } else if (what == 2) {
        status = push_rows(s, 0, keys, COUNT(keys), ones, out);
        for (uint32_t i = 0; i < COUNT(keys) && status == FPS_OK; i++) CHECK(out[i * DIM] >= 1);
    } else if (what == 3) {
        status = pull_rows(s, 0, keys, COUNT(keys), out, true);
    } else {
        uint32_t done = 0;
        const fps_wait wait = wait_ms(20000);
        status = fps_table_remove(s, &s->arena->tables[0], keys, COUNT(keys), UINT32_MAX, NULL, removed, &done, &wait);
    }
    return status;
}

static void inherit(void *argument)
{
    estate *e = argument;
    fps_arena arena;
    open_estate(e, &arena);
    fps_session s = open_session(&arena);
    uint64_t state = (uint64_t)seed << 32 | (uint32_t)getpid();
    float *ones = filled(ESTATE_N, 1), *out = filled(ESTATE_N, -1), last = 0;
    fps_status status = FPS_OK;
    atomic_fetch_add(&e->at_work, 1);
    while (status == FPS_OK) status = work_once(&s, &state, ones, out, &last);
    CHECK(status == FPS_OWNER_DIED || status == FPS_CLOSED);
    CHECK_EQ(fps_arena_retire(&arena), FPS_OK);
    CHECK_EQ(work_once(&s, &state, ones, out, &last), FPS_CLOSED);
    fps_session_close(&s);
    fps_arena_close(&arena);
    free(ones);
    free(out);
}

static void the_memory_of_a_dead_owners_arena_is_given_back_under_those_who_work(void)
{
    uint64_t state = seed;
    for (uint32_t i = 0; i < ESTATES; i++) {
        estate *e = share(sizeof *e);
        fps_arena arena;
        pid_t heirs[N_HEIRS];
        struct stat file;
        e->owner = start_process(own_until_killed, e);
        open_estate(e, &arena);
        for (uint32_t k = 0; k < N_HEIRS; k++) heirs[k] = start_process(inherit, e);
        await(&e->at_work, N_HEIRS);
        nap_us(random_below(&state, 10000));
        kill_process(e->owner);
        for (uint32_t k = 0; k < N_HEIRS; k++) expect_success(heirs[k]);
        CHECK_EQ(fps_arena_retire(&arena), FPS_OK); /* what one wrote while another gave it back */
        CHECK_EQ(fstat(arena.fd, &file), 0);
        CHECK((uint64_t)file.st_blocks * 512 <= fps_page_up(arena.layout.params_offset));
        fps_arena_close(&arena);
        munmap(e, sizeof *e);
    }
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(a_death_at_any_instruction_of_a_push_leaves_whole_rows_in_order),
        TEST(a_death_at_any_instruction_of_row_creation_leaves_rows_and_index_in_agreement),
        TEST(a_death_at_any_instruction_of_a_removal_leaves_whole_rows),
        TEST(a_death_at_any_instruction_of_a_set_leaves_whole_rows_in_order),
        TEST(a_death_at_any_instruction_of_growing_loses_no_row),
        TEST(deaths_at_random_in_growing_lose_no_row),
        TEST(a_death_at_any_instruction_of_a_change_of_hyper_parameters_holds_nobody_up),
        TEST(readers_find_every_row_at_any_instruction_of_growing),
        TEST(readers_see_whole_rows_at_any_instruction_of_creations_and_removals),
        TEST(a_death_at_any_instruction_of_a_repair_leaves_it_to_the_next),
        TEST(a_row_of_the_dead_is_repaired_when_their_seat_was_given_back),
        TEST(a_death_at_any_instruction_of_tidying_up_leaves_it_to_the_next),
        TEST(a_push_that_comes_late_is_not_lost_with_a_row_creation_that_died),
        TEST(random_deaths_lose_nothing_and_stop_nobody),
        TEST(the_memory_of_a_dead_owners_arena_is_given_back_under_those_who_work),
    };
    seed = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : (uint32_t)time(NULL);
    printf("  seed %u\n", seed);
    pushing = share(sizeof *pushing);
    return run_tests(tests, COUNT(tests));
}

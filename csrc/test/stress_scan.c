/* A thread keeps a copy of a table up to date by asking what has changed since, while others push, set, create and
 * remove rows. Whenever they rest, the copy is the table. `stress_scan [tables]`. */
#define _GNU_SOURCE
#include "tables.h"

#define N_WRITERS 3u
#define DIM 8u
#define KEYS 200u
#define BATCH 16u

#define RESTS 20u
#define OPERATIONS 8u /* of a thread between two rests */

static long tables = 100;

typedef struct load {
    fps_arena *arena;
    uint64_t state;
    fps_word32 *go, *rest; /* how often all may work, and how often one of them has come to rest */
} load;

static void *write_all_the_time(void *argument)
{
    load *l = argument;
    uint64_t keys[BATCH];
    float values[BATCH * DIM];
    uint8_t removed[BATCH];
    fps_session s = open_session(l->arena);
    for (uint32_t i = 0; i < RESTS * OPERATIONS; i++) {
        if (i % OPERATIONS == 0) await(l->go, 1 + i / OPERATIONS);
        const uint32_t n = 1 + random_below(&l->state, BATCH), kind = random_below(&l->state, 8);
        for (uint32_t k = 0; k < n; k++) keys[k] = random_below(&l->state, KEYS);
        for (uint32_t k = 0; k < n * DIM; k++) values[k] = (float)random_below(&l->state, 1000);
        if (kind < 4) CHECK_EQ(push_rows(&s, 0, keys, n, values, NULL), FPS_OK);
        if (kind == 4) CHECK_EQ(set_rows(&s, 0, keys, n, (const uint8_t *const[]){(uint8_t *)values, NULL}), FPS_OK);
        if (kind == 5) CHECK_EQ(pull_rows(&s, 0, keys, n, values, true), FPS_OK);
        if (kind > 5) CHECK_EQ(remove_rows(&s, 0, keys, n, (uint8_t *const[]){NULL, NULL}, removed), FPS_OK);
        if (i % OPERATIONS == OPERATIONS - 1) atomic_fetch_add_explicit(l->rest, 1, memory_order_release);
    }
    fps_session_close(&s);
    return NULL;
}

typedef struct copy {
    float rows[KEYS][2 * DIM]; /* values and a slot */
    bool there[KEYS];
} copy;

/* Reads the rows that `since` asks for into the copy, and forgets those that the table has not any more. */
static void read_rows(const fps_arena *arena, fps_since since, copy *c)
{
    bool seen[KEYS] = {false};
    uint64_t keys[BATCH], rest[BATCH], cursor = 0;
    float values[BATCH * DIM], slots[BATCH * DIM];
    uint8_t *const streams[] = {(uint8_t *)values, (uint8_t *)slots};
    fps_others others = {.keys = rest};
    const fps_wait wait = wait_ms(20000);
    uint32_t n;
    do {
        CHECK_EQ(
            fps_scan_rows(arena, &arena->tables[0], &cursor, BATCH, since, keys, streams, NULL, &others, &wait, &n),
            FPS_OK);
        for (uint32_t k = 0; k < n; k++) {
            memcpy(c->rows[keys[k]], values + k * DIM, sizeof(float) * DIM);
            memcpy(c->rows[keys[k]] + DIM, slots + k * DIM, sizeof(float) * DIM);
            seen[keys[k]] = true;
            c->there[keys[k]] = true;
        }
        for (uint32_t k = 0; k < others.n; k++) seen[rest[k]] = true;
    } while (n + others.n > 0);
    for (uint32_t k = 0; k < KEYS; k++) c->there[k] &= seen[k];
}

static void bring_up_to_date(const fps_arena *arena, fps_scan_start *last, copy *c)
{
    const fps_wait wait = wait_ms(20000);
    fps_scan_start now;
    CHECK_EQ(fps_scan_begin(arena, &arena->tables[0], &wait, &now), FPS_OK);
    CHECK(now.epoch == last->epoch + 1 && now.version >= last->version && now.removed >= last->removed);
    read_rows(arena, (fps_since){last->epoch, last->now}, c);
    *last = now;
}

static void check_copy(const fps_arena *arena, const copy *ours)
{
    static copy theirs;
    memset(theirs.there, 0, sizeof theirs.there);
    read_rows(arena, FPS_SCAN_ALL, &theirs);
    for (uint32_t k = 0; k < KEYS; k++) {
        CHECK_EQ(ours->there[k], theirs.there[k]);
        if (theirs.there[k]) CHECK(memcmp(ours->rows[k], theirs.rows[k], sizeof theirs.rows[k]) == 0);
    }
}

static void check_a_table(uint64_t seed)
{
    static copy ours;
    fps_arena arena = make_table(table_of(DIM, 1, KEYS), N_WRITERS);
    pthread_t threads[N_WRITERS];
    load loads[N_WRITERS];
    fps_word32 go = 0, rest = 0;
    fps_scan_start last = {0};
    memset(ours.there, 0, sizeof ours.there);
    for (uint32_t i = 0; i < N_WRITERS; i++) {
        loads[i] = (load){.arena = &arena, .state = seed * N_WRITERS + i + 1, .go = &go, .rest = &rest};
        CHECK_EQ(pthread_create(&threads[i], NULL, write_all_the_time, &loads[i]), 0);
    }
    for (uint32_t i = 1; i <= RESTS; i++) {
        fps_store32_release(&go, i);
        while (fps_load32_acquire(&rest) < i * N_WRITERS) bring_up_to_date(&arena, &last, &ours);
        bring_up_to_date(&arena, &last, &ours);
        check_copy(&arena, &ours);
    }
    for (uint32_t i = 0; i < N_WRITERS; i++) pthread_join(threads[i], NULL);
    check_table(&arena.tables[0]);
    drop_arena(&arena);
}

static void a_copy_that_asks_what_changed_since_is_the_table(void)
{
    for (long i = 0; i < tables; i++) check_a_table((uint64_t)i);
}

int main(int argc, char **argv)
{
    if (argc > 1) tables = atol(argv[1]);
    static const test tests[] = {TEST(a_copy_that_asks_what_changed_since_is_the_table)};
    return run_tests(tests, COUNT(tests));
}

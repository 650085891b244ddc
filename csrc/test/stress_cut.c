/* Threads that push to all of several shards or to some, while others read consistent cuts.
 * `stress_cut [pushes per thread]`. */
#define _GNU_SOURCE

#include "shards.h"

#define N_PUSHERS 3u
#define N_READERS 2u

static long pushes = 2000;
static shards all;
static fps_word32 pushing;

static void *push_often(void *argument)
{
    caller *c = calloc(1, sizeof *c);
    CHECK(c != NULL);
    open_caller(c, &all);
    uint64_t random = (uintptr_t)argument;
    for (long i = 0; i < pushes; i++) {
        const uint32_t first = random_below(&random, N_SHARDS);
        CHECK_EQ(i % 3 ? push_ones(c, first, 60000) : push_some_ones(c, first, 60000), FPS_OK);
    }
    close_caller(c);
    free(c);
    atomic_fetch_sub(&pushing, 1);
    return NULL;
}

/* Every push is in all shards or in none, and none goes. */
static void *read_cuts(void *argument)
{
    uint64_t *cuts = argument, last = 0;
    caller *c = calloc(1, sizeof *c);
    CHECK(c != NULL);
    open_caller(c, &all);
    while (fps_load32_relaxed(&pushing) > 0) {
        CHECK_EQ(read_cut(c, 60000), FPS_OK);
        for (uint32_t i = 0; i < N_SHARDS; i++) {
            CHECK_EQ(c->parts[i].wholes, c->parts[0].version);
            CHECK_EQ(c->parts[i].version, c->parts[i ? 1 : 0].version);
            check_all_equal(c->read[i], elements[i], (float)c->parts[i].version);
        }
        CHECK(c->parts[1].version >= last);
        last = c->parts[1].version;
        ++*cuts;
    }
    close_caller(c);
    free(c);
    return NULL;
}

static void a_cut_has_whole_pushes(void)
{
    pthread_t pushers[N_PUSHERS], readers[N_READERS];
    uint64_t cuts[N_READERS] = {0};
    open_shards(&all, N_PUSHERS + N_READERS);
    fps_store32_relaxed(&pushing, N_PUSHERS);
    for (uintptr_t i = 0; i < N_PUSHERS; i++)
        CHECK_EQ(pthread_create(&pushers[i], NULL, push_often, (void *)(i + 1)), 0);
    for (uint32_t i = 0; i < N_READERS; i++) CHECK_EQ(pthread_create(&readers[i], NULL, read_cuts, &cuts[i]), 0);
    for (uint32_t i = 0; i < N_PUSHERS; i++) pthread_join(pushers[i], NULL);
    for (uint32_t i = 0; i < N_READERS; i++) pthread_join(readers[i], NULL);
    printf("  %ju and %ju cuts of %ld pushes\n", (uintmax_t)cuts[0], (uintmax_t)cuts[1], N_PUSHERS * pushes);
    CHECK(cuts[0] > 0 && cuts[1] > 0);
    drop_shards(&all);
}

int main(int argc, char **argv)
{
    static const test tests[] = {TEST(a_cut_has_whole_pushes)};
    if (argc > 1) pushes = atol(argv[1]);
    return run_tests(tests, COUNT(tests));
}

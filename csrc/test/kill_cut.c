/* Processes that die where they push to several shards, or read a consistent cut of them. `kill_cut [seed]`. */
#define _GNU_SOURCE

#include "shards.h"
#include "step.h"

#define DEATHS short_or_long(8, 60)

static shards all;
static caller survivor;

/* The one who dies has the second seat of each shard. */
static void push_stepped(void *argument)
{
    caller *c = argument;
    open_caller(c, &all);
    be_stepped();
    CHECK_EQ(push_ones(c, 1, 60000), FPS_OK);
    _exit(0);
}

static void read_stepped(void *argument)
{
    caller *c = argument;
    open_caller(c, &all);
    be_stepped();
    CHECK_EQ(read_cut(c, 60000), FPS_OK);
    _exit(0);
}

/* Another process that has entered some shards lives: the cut is sought in vain, which closes the shards. */
static void seek_stepped(void *argument)
{
    caller *c = argument;
    open_caller(c, &all);
    be_stepped();
    CHECK_EQ(read_cut(c, 3), FPS_TIMEOUT);
    _exit(0);
}

static void work_goes_on(void)
{
    const uint64_t before = fps_load_relaxed(&all.arenas[0].header->version);
    CHECK_EQ(push_ones(&survivor, 0, 10000), FPS_OK);
    CHECK_EQ(read_cut(&survivor, 10000), FPS_OK);
    CHECK_EQ(survivor.parts[0].version, before + 1);
    for (uint32_t i = 0; i < N_SHARDS; i++) /* each shard is after whole blocks, and its last push is whole */
        for (uint64_t k = 0; k < elements[i]; k++)
            CHECK(survivor.read[i][k] >= 1 && survivor.read[i][k] <= (float)survivor.parts[i].version);
}

static void die_anywhere(void (*act)(void *), const char *what)
{
    open_shards(&all, 3);
    open_caller(&survivor, &all);
    caller *dies = share(sizeof *dies);
    uint64_t steps = 0;
    for (uint32_t nth = 0; nth <= DEATHS; nth++) {
        const bool seeks = act == seek_stepped;
        if (seeks) fps_store32_relaxed(&survivor.sessions[1].seat->elsewhere, 1);
        const uint64_t from = nth ? steps * (nth - 1) / DEATHS : 0, behind = steps * nth / DEATHS;
        const uint64_t at = nth ? from + (uint64_t)random() % (behind - from + 1) : UINT64_MAX;
        const uint64_t stepped = step_and_kill(act, dies, at, NULL);
        if (nth == 0) steps = stepped;
        if (seeks) fps_store32_relaxed(&survivor.sessions[1].seat->elsewhere, 0);
        work_goes_on();
    }
    printf("  %s: %ju instructions\n", what, (uintmax_t)steps);
    munmap(dies, sizeof *dies);
    close_caller(&survivor);
    drop_shards(&all);
}

static void a_death_in_a_push_of_several_shards_leaves_cuts_possible(void) { die_anywhere(push_stepped, "push"); }
static void a_death_in_a_cut_stops_nobody(void) { die_anywhere(read_stepped, "cut"); }
static void a_death_where_a_cut_is_sought_stops_nobody_for_long(void) { die_anywhere(seek_stepped, "search"); }

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(a_death_in_a_push_of_several_shards_leaves_cuts_possible),
        TEST(a_death_in_a_cut_stops_nobody),
        TEST(a_death_where_a_cut_is_sought_stops_nobody_for_long),
    };
    const uint32_t seed = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : (uint32_t)getpid();
    printf("seed %u\n", seed);
    srandom(seed);
    return run_tests(tests, COUNT(tests));
}

/* A consistent cut: reads of several shards at one moment, at which no push has entered some of them only. */
#define _GNU_SOURCE

#include "shards.h"
#include "stripe.h"

static shards all;
static caller reader, pusher;

static void begin(void)
{
    open_shards(&all, 4);
    open_caller(&reader, &all);
    open_caller(&pusher, &all);
}

static void end(void)
{
    close_caller(&reader);
    close_caller(&pusher);
    drop_shards(&all);
}

static uint64_t closed_until(uint32_t shard) { return fps_load_relaxed(&all.arenas[shard].header->closed_until_ns); }
static uint32_t elsewhere(const caller *c, uint32_t shard)
{
    return fps_load32_relaxed(&c->sessions[shard].seat->elsewhere);
}

static void mark(const caller *c, uint32_t shard, uint32_t value)
{
    fps_store32_relaxed(&c->sessions[shard].seat->elsewhere, value);
}

static void a_cut_reads_all_shards(void)
{
    begin();
    CHECK_EQ(read_cut(&reader, 1000), FPS_OK);
    check_cut(&reader, 0);
    CHECK_EQ(push_ones(&pusher, 1, 1000), FPS_OK);
    CHECK_EQ(read_cut(&reader, 1000), FPS_OK);
    check_cut(&reader, 1);
    for (uint32_t i = 0; i < N_SHARDS; i++) CHECK_EQ(closed_until(i), 0);
    end();
}

static void a_push_is_marked_until_it_has_entered_its_last_shard(void)
{
    begin();
    const fps_wait none = {.deadline_ns = FPS_NO_WAIT};
    CHECK_EQ(fps_stripe_enter(&all.arenas[2], 0, &none), FPS_OK);
    aim_at_shards(&pusher, FPS_PUSH, 1, none);
    CHECK_EQ(run_caller(&pusher), FPS_BUSY);
    CHECK(pusher.parts[1].done && !pusher.parts[2].done);
    CHECK_EQ(elsewhere(&pusher, 1), 1);
    fps_stripe_leave(&all.arenas[2], 0);

    CHECK_EQ(read_cut(&reader, 30), FPS_TIMEOUT);
    CHECK_EQ(reader.at, 1);
    pusher.call.wait = wait_ms(1000);
    CHECK_EQ(run_caller(&pusher), FPS_OK); /* the shards are not closed to it */
    CHECK_EQ(elsewhere(&pusher, 1), 0);
    CHECK_EQ(read_cut(&reader, 1000), FPS_OK);
    check_cut(&reader, 1);
    CHECK_EQ(closed_until(0), 0);
    end();
}

static int asked_in_closed_shards(void *count)
{
    for (uint32_t i = 0; i < N_SHARDS; i++) CHECK(closed_until(i) > 0);
    for (uint32_t i = 0; i < N_SHARDS; i++) { /* under no lock */
        CHECK_EQ(fps_stripe_enter(&all.arenas[i], 0, &(fps_wait){.deadline_ns = FPS_NO_WAIT}), FPS_OK);
        fps_stripe_leave(&all.arenas[i], 0);
    }
    return ++*(int *)count == 2;
}

static void a_signal_ends_the_search_and_opens_the_shards(void)
{
    begin();
    int asked = 0;
    mark(&pusher, 1, 1);
    aim_at_shards(&reader, FPS_GET, 0, wait_ms(20000));
    reader.call.wait.interrupted = asked_in_closed_shards;
    reader.call.wait.state = &asked;
    CHECK_EQ(run_caller(&reader), FPS_INTERRUPTED);
    CHECK_EQ(asked, 2);
    for (uint32_t i = 0; i < N_SHARDS; i++) CHECK_EQ(closed_until(i), 0);
    mark(&pusher, 1, 0);
    end();
}

static void a_push_that_fails_is_marked_no_longer(void)
{
    begin();
    const fps_wait none = {.deadline_ns = FPS_NO_WAIT};
    CHECK_EQ(fps_stripe_enter(&all.arenas[0], 0, &none), FPS_OK);
    CHECK_EQ(push_ones(&pusher, 1, 5), FPS_TIMEOUT);
    for (uint32_t i = 0; i < N_SHARDS; i++) CHECK_EQ(elsewhere(&pusher, i), 0);
    fps_stripe_leave(&all.arenas[0], 0);
    CHECK_EQ(read_cut(&reader, 1000), FPS_OK); /* it was told where it was applied */
    CHECK_EQ(reader.parts[0].version, 0);
    CHECK_EQ(reader.parts[2].version, 1);
    end();
}

static void while_a_cut_is_sought_pushes_that_have_not_begun_wait_for_a_while(void)
{
    begin();
    caller *other = calloc(1, sizeof *other);
    CHECK(other != NULL);
    open_caller(other, &all);
    mark(other, 2, 1);
    CHECK_EQ(read_cut(&reader, 15), FPS_TIMEOUT);
    CHECK_EQ(reader.at, 2);
    const uint64_t until = (uint64_t)fps_now_ns() + UINT64_C(200000000);
    for (uint32_t i = 0; i < N_SHARDS; i++) fps_store_relaxed(&all.arenas[i].header->closed_until_ns, until);
    aim_at_shards(&pusher, FPS_PUSH, 0, (fps_wait){.deadline_ns = FPS_NO_WAIT});
    CHECK_EQ(run_caller(&pusher), FPS_BUSY);
    CHECK_EQ(push_ones(&pusher, 0, 10), FPS_TIMEOUT);
    CHECK(!pusher.parts[0].applied && pusher.parts[0].position == 0);
    CHECK_EQ(push_ones(&pusher, 0, 10000), FPS_OK); /* nobody opens the shards: the time is up */
    CHECK((uint64_t)fps_now_ns() >= until);
    mark(other, 2, 0);
    CHECK_EQ(read_cut(&reader, 1000), FPS_OK);
    check_cut(&reader, 1);
    close_caller(other);
    free(other);
    end();
}

static void a_push_of_one_shard_is_always_whole(void)
{
    begin();
    fps_store_relaxed(&all.arenas[0].header->closed_until_ns, UINT64_MAX >> 1);
    aim_at_shards(&pusher, FPS_PUSH, 0, (fps_wait){.deadline_ns = FPS_NO_WAIT});
    pusher.call.n_parts = 1;
    CHECK_EQ(run_caller(&pusher), FPS_OK);
    CHECK_EQ(elsewhere(&pusher, 0), 0);
    end();
}

static void a_partial_push_of_one_shard_is_whole_too(void)
{
    begin();
    const fps_wait none = {.deadline_ns = FPS_NO_WAIT};
    fps_store_relaxed(&all.arenas[1].header->closed_until_ns, UINT64_MAX >> 1);
    aim_at_shards(&pusher, FPS_PUSH, 0, none);
    pusher.call.partial = true;
    pusher.parts[1].some = pusher.parts[1].spans;
    pusher.parts[1].n_some = 1;
    CHECK_EQ(run_caller(&pusher), FPS_OK);
    CHECK_EQ(elsewhere(&pusher, 1), 0);

    aim_at_shards(&pusher, FPS_PUSH, 1, none);
    pusher.call.partial = true;
    for (uint32_t i = 1; i < N_SHARDS; i++) {
        pusher.parts[i].some = pusher.parts[i].spans;
        pusher.parts[i].n_some = 1;
    }
    CHECK_EQ(run_caller(&pusher), FPS_BUSY); /* it is one of two */
    fps_store_relaxed(&all.arenas[1].header->closed_until_ns, 0);
    CHECK_EQ(fps_stripe_enter(&all.arenas[2], 0, &none), FPS_OK);
    CHECK_EQ(run_caller(&pusher), FPS_BUSY);
    CHECK_EQ(elsewhere(&pusher, 1), 1);
    fps_stripe_leave(&all.arenas[2], 0);
    CHECK_EQ(run_caller(&pusher), FPS_OK);
    CHECK_EQ(elsewhere(&pusher, 1), 0);
    end();
}

static void enter_one_shard_and_die(void *argument)
{
    caller *c = argument;
    open_caller(c, &all);
    mark(c, 0, 1);
    die();
}

static void the_mark_of_the_dead_is_none_and_a_new_owner_has_none(void)
{
    begin();
    caller *dead = share(sizeof *dead);
    expect_killed(start_process(enter_one_shard_and_die, dead));
    CHECK_EQ(elsewhere(dead, 0), 1);
    CHECK_EQ(read_cut(&reader, 1000), FPS_OK);
    fps_session third = open_session(&all.arenas[0]), fourth = open_session(&all.arenas[0]);
    CHECK_EQ(elsewhere(dead, 0), 0);
    fps_session_close(&third);
    fps_session_close(&fourth);
    munmap(dead, sizeof *dead);
    end();
}

static void a_shard_that_is_closed_or_held_is_told(void)
{
    begin();
    const fps_wait none = {.deadline_ns = FPS_NO_WAIT};
    CHECK_EQ(fps_stripe_enter(&all.arenas[1], 0, &none), FPS_OK);
    CHECK_EQ(read_cut(&reader, 20), FPS_TIMEOUT);
    CHECK_EQ(reader.at, 1);
    fps_stripe_leave(&all.arenas[1], 0);
    CHECK_EQ(fps_stripe_enter(&all.arenas[2], 1, &none), FPS_OK); /* behind the first */
    CHECK_EQ(read_cut(&reader, 20), FPS_TIMEOUT);
    CHECK_EQ(reader.at, 2);
    for (uint32_t i = 0; i < N_SHARDS; i++) { /* nothing stays locked */
        CHECK_EQ(fps_stripe_enter(&all.arenas[i], 0, &none), FPS_OK);
        fps_stripe_leave(&all.arenas[i], 0);
    }
    CHECK_EQ(fps_stripe_enter(&all.arenas[1], 1, &none), FPS_OK);
    fps_stripe_leave(&all.arenas[1], 1);
    fps_stripe_leave(&all.arenas[2], 1);
    CHECK_EQ(read_cut(&reader, 1000), FPS_OK);
    fps_arena_retire(&all.arenas[1]);
    CHECK_EQ(read_cut(&reader, 1000), FPS_CLOSED);
    CHECK_EQ(reader.at, 1);
    for (uint32_t i = 0; i < N_SHARDS; i++) CHECK_EQ(fps_lock_holder(&all.arenas[i].stripes[0].lock), 0);
    end();
}

int main(void)
{
    static const test tests[] = {
        TEST(a_cut_reads_all_shards),
        TEST(a_push_is_marked_until_it_has_entered_its_last_shard),
        TEST(a_signal_ends_the_search_and_opens_the_shards),
        TEST(a_push_that_fails_is_marked_no_longer),
        TEST(while_a_cut_is_sought_pushes_that_have_not_begun_wait_for_a_while),
        TEST(a_push_of_one_shard_is_always_whole),
        TEST(a_partial_push_of_one_shard_is_whole_too),
        TEST(the_mark_of_the_dead_is_none_and_a_new_owner_has_none),
        TEST(a_shard_that_is_closed_or_held_is_told),
    };
    return run_tests(tests, COUNT(tests));
}

#define _GNU_SOURCE
#include "wait.h"

#include "check.h"

static const fps_manner all[] = {FPS_WAIT_SHORT, FPS_WAIT_BEHIND,  FPS_WAIT_AWAY, FPS_WAIT_ROW,
                                 FPS_WAIT_TURN,  FPS_WAIT_VERSION, FPS_WAIT_SEAT, FPS_WAIT_CLOCK};

/* A caller who sleeps where it says so, and never finds what it wants. */
static fps_status wait_in_vain(fps_waiting *w)
{
    for (;;) {
        const fps_status status = fps_waiting_step(w);
        if (status != FPS_OK) return status;
        while (w->until_ns != 0 && fps_now_ns() < w->until_ns) nap_us(200);
    }
}

static fps_status in_vain(fps_manner manner, const fps_wait *wait)
{
    fps_waiting w = fps_waiting_for(manner, wait, NULL);
    return wait_in_vain(&w);
}

static void who_does_not_wait_is_told_that_it_is_busy(void)
{
    const fps_wait wait = {.deadline_ns = FPS_NO_WAIT};
    for (size_t i = 0; i < COUNT(all); i++) {
        fps_waiting w = fps_waiting_for(all[i], &wait, NULL);
        CHECK_EQ(wait_in_vain(&w), FPS_BUSY);
        CHECK_EQ(w.started_ns, 0);
        CHECK_EQ(w.looks, all[i] == FPS_WAIT_ROW ? 65 : 1); /* a row is free again in less than it takes to come back */
    }
}

static void a_wait_ends_at_its_deadline_and_not_before(void)
{
    for (size_t i = 0; i < COUNT(all); i++) {
        for (int64_t ms = 0; ms <= 70; ms += 35) {
            const fps_wait wait = wait_ms(ms);
            CHECK_EQ(in_vain(all[i], &wait), FPS_TIMEOUT);
            CHECK(fps_now_ns() >= wait.deadline_ns);
        }
    }
}

static void neither_a_nap_nor_a_sleep_goes_beyond_the_deadline(void)
{
    for (size_t i = 0; i < COUNT(all); i++) {
        const fps_wait wait = wait_ms(1);
        fps_waiting w = fps_waiting_for(all[i], &wait, NULL);
        for (fps_status status; (status = fps_waiting_step(&w)) != FPS_TIMEOUT;) {
            CHECK_EQ(status, FPS_OK);
            CHECK(w.until_ns <= wait.deadline_ns);
        }
    }
}

static int count_and_stop_at_third(void *state) { return ++*(int *)state == 3; }

static void somebody_is_asked_now_and_then_whether_to_go_on(void)
{
    for (size_t i = 0; i < COUNT(all); i++) {
        int asked = 0;
        const fps_wait wait = {.deadline_ns = FPS_NEVER, .interrupted = count_and_stop_at_third, .state = &asked};
        const int64_t start = fps_now_ns();
        CHECK_EQ(in_vain(all[i], &wait), FPS_INTERRUPTED);
        CHECK_EQ(asked, 3);
        const bool at_once = all[i] == FPS_WAIT_VERSION || all[i] == FPS_WAIT_CLOCK;
        if (!at_once) CHECK(fps_now_ns() - start >= 3 * INT64_C(50000000));
    }
}

static int stop(void *state)
{
    (void)state;
    return 1;
}

static void who_waits_for_clocks_or_a_version_is_asked_before_it_sleeps(void)
{
    const fps_wait wait = {.deadline_ns = FPS_NEVER, .interrupted = stop};
    static const fps_manner manners[] = {FPS_WAIT_VERSION, FPS_WAIT_CLOCK};
    for (size_t i = 0; i < COUNT(manners); i++) {
        fps_waiting w = fps_waiting_for(manners[i], &wait, NULL);
        CHECK_EQ(wait_in_vain(&w), FPS_INTERRUPTED);
        CHECK_EQ(w.naps, 0);
    }
}

static void a_wait_sees_that_the_arena_was_closed(void)
{
    fps_arena arena = make_arena(4096, 4096, 1);
    const fps_wait wait = {.deadline_ns = FPS_NEVER};
    CHECK_EQ(fps_arena_retire(&arena), FPS_OK);
    for (size_t i = 0; i < COUNT(all); i++) {
        fps_waiting w = fps_waiting_for(all[i], &wait, arena.header);
        CHECK_EQ(wait_in_vain(&w), FPS_CLOSED);
    }
    drop_arena(&arena);
}

/* Steps until one that is not the pause between two looks. */
static void spin(fps_waiting *w)
{
    while (!fps_waiting_has_spun(w)) CHECK_EQ(fps_waiting_step(w), FPS_OK);
}

static void spinning_comes_before_everything_else(void)
{
    static const struct {
        fps_manner manner;
        int64_t least_ns;
    } spinners[] = {{FPS_WAIT_SHORT, 2000}, {FPS_WAIT_BEHIND, 20000}, {FPS_WAIT_TURN, 20000}, {FPS_WAIT_CLOCK, 20000}};
    const fps_wait wait = {.deadline_ns = FPS_NEVER, .interrupted = stop};
    for (size_t i = 0; i < COUNT(spinners); i++) {
        fps_waiting w = fps_waiting_for(spinners[i].manner, &wait, NULL);
        spin(&w);
        CHECK(fps_now_ns() - w.started_ns >= spinners[i].least_ns);
        CHECK_EQ(w.naps, 0);
        CHECK(w.looks > 1);
    }
}

static void only_who_can_be_woken_is_told_to_sleep(void)
{
    for (size_t i = 0; i < COUNT(all); i++) {
        const fps_wait wait = {.deadline_ns = FPS_NEVER};
        const bool woken = all[i] <= FPS_WAIT_AWAY || all[i] == FPS_WAIT_CLOCK;
        const uint32_t naps = all[i] == FPS_WAIT_AWAY ? 20 : woken ? 0 : 3;
        fps_waiting w = fps_waiting_for(all[i], &wait, NULL);
        const int64_t start = fps_now_ns();
        spin(&w);
        while (w.naps < naps) {
            CHECK_EQ(fps_waiting_step(&w), FPS_OK);
            CHECK_EQ(w.until_ns, 0);
        }
        if (naps > 0) CHECK(fps_now_ns() - start >= naps * INT64_C(50000));
        if (!woken) continue;
        CHECK_EQ(fps_waiting_step(&w), FPS_OK);
        CHECK(w.slept && w.until_ns > 0);
    }
}

static void a_wait_is_counted_when_it_took_a_step(void)
{
    fps_meters meters = {0};
    const fps_wait wait = {.deadline_ns = FPS_NEVER, .meters = &meters}, no_wait = {.meters = &meters};
    fps_waiting w = fps_waiting_for(FPS_WAIT_SHORT, &wait, NULL);
    fps_waiting_count(&w, FPS_OK); /* found at once */
    fps_waiting busy = fps_waiting_for(FPS_WAIT_SHORT, &no_wait, NULL);
    fps_waiting_count(&busy, wait_in_vain(&busy));
    CHECK_EQ(fps_load_relaxed(&meters.lock_waits), 0);

    spin(&w);
    fps_waiting_count(&w, FPS_OK);
    CHECK_EQ(fps_load_relaxed(&meters.lock_waits), 1);
    CHECK_EQ(fps_load_relaxed(&meters.lock_sleeps), 0);
    CHECK(fps_load_relaxed(&meters.lock_wait_ns) >= 2000);

    CHECK_EQ(fps_waiting_step(&w), FPS_OK);
    fps_waiting_count(&w, FPS_OK);
    CHECK_EQ(fps_load_relaxed(&meters.lock_waits), 2);
    CHECK_EQ(fps_load_relaxed(&meters.lock_sleeps), 1);

    fps_waiting again = fps_waiting_for(FPS_WAIT_AWAY, &wait, NULL);
    spin(&again);
    fps_waiting_count(&again, FPS_TIMEOUT); /* spinning did not end that one, either */
    CHECK_EQ(fps_load_relaxed(&meters.lock_sleeps), 2);
}

int main(void)
{
    static const test tests[] = {
        TEST(who_does_not_wait_is_told_that_it_is_busy),
        TEST(a_wait_ends_at_its_deadline_and_not_before),
        TEST(neither_a_nap_nor_a_sleep_goes_beyond_the_deadline),
        TEST(somebody_is_asked_now_and_then_whether_to_go_on),
        TEST(who_waits_for_clocks_or_a_version_is_asked_before_it_sleeps),
        TEST(a_wait_sees_that_the_arena_was_closed),
        TEST(spinning_comes_before_everything_else),
        TEST(only_who_can_be_woken_is_told_to_sleep),
        TEST(a_wait_is_counted_when_it_took_a_step),
    };
    return run_tests(tests, COUNT(tests));
}

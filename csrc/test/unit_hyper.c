#define _GNU_SOURCE
#include "hyper.h"

#include "check.h"

static void set_all(double *values, double to)
{
    for (uint32_t i = 0; i < FPS_MAX_HYPER; i++) values[i] = to;
}

static void check_all(const fps_hyper *h, double expected)
{
    double got[FPS_MAX_HYPER];
    fps_hyper_read(h, got);
    for (uint32_t i = 0; i < FPS_MAX_HYPER; i++) CHECK_FLOAT(got[i], expected);
}

static void at_first_all_are_0(void)
{
    fps_hyper h = {0};
    check_all(&h, 0);
}

static void a_change_changes_what_it_names_and_keeps_the_rest(void)
{
    fps_hyper h = {0};
    double twin[FPS_MAX_HYPER] = {0}, values[FPS_MAX_HYPER], got[FPS_MAX_HYPER];
    for (uint32_t change = 0; change < 200; change++) {
        const uint32_t which = change * 2654435761u >> 12;
        for (uint32_t i = 0; i < FPS_MAX_HYPER; i++) {
            values[i] = 0.1 * (change * 100 + i); /* of no short binary form */
            if (which >> i & 1) twin[i] = values[i];
        }
        fps_hyper_change(&h, which, values);
        fps_hyper_read(&h, got);
        CHECK_EQ(memcmp(got, twin, sizeof got), 0);
    }
}

static void a_change_that_was_left_half_done_is_never_seen(void)
{
    fps_hyper h = {0};
    double values[FPS_MAX_HYPER];
    for (uint32_t change = 1; change < 5; change++) {
        set_all(values, change);
        fps_hyper_change(&h, UINT32_MAX, values);
        fps_word *unread = h.sets[(fps_load_relaxed(&h.changes) + 1) & 1];
        for (uint32_t i = 0; i < FPS_MAX_HYPER / 2; i++) fps_store_relaxed(&unread[i], 77);
        check_all(&h, change);
        fps_hyper_change(&h, 0, values);
        check_all(&h, change);
    }
}

typedef struct reading {
    fps_hyper hyper;
    fps_word32 done;
} reading;

static void *read_until_done(void *argument)
{
    reading *r = argument;
    double got[FPS_MAX_HYPER], last = 0;
    while (!fps_load32_relaxed(&r->done)) {
        fps_hyper_read(&r->hyper, got);
        for (uint32_t i = 1; i < FPS_MAX_HYPER; i++) CHECK_FLOAT(got[i], got[0]);
        CHECK(got[0] >= last);
        last = got[0];
    }
    return NULL;
}

static void readers_get_one_whole_set_and_never_an_older_one_again(void)
{
    reading r = {0};
    pthread_t threads[2];
    double values[FPS_MAX_HYPER];
    for (size_t i = 0; i < COUNT(threads); i++) CHECK_EQ(pthread_create(&threads[i], NULL, read_until_done, &r), 0);
    const int64_t end = fps_now_ns() + 100 * INT64_C(1000000);
    for (double change = 1; fps_now_ns() < end; change++) {
        set_all(values, change);
        fps_hyper_change(&r.hyper, UINT32_MAX, values);
    }
    fps_store32_relaxed(&r.done, 1);
    for (size_t i = 0; i < COUNT(threads); i++) pthread_join(threads[i], NULL);
}

int main(void)
{
    static const test tests[] = {
        TEST(at_first_all_are_0),
        TEST(a_change_changes_what_it_names_and_keeps_the_rest),
        TEST(a_change_that_was_left_half_done_is_never_seen),
        TEST(readers_get_one_whole_set_and_never_an_older_one_again),
    };
    return run_tests(tests, COUNT(tests));
}

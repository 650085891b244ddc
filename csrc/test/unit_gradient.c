#define _GNU_SOURCE
#include <float.h>
#include <math.h>

#include "check.h"
#include "gradient.h"

#define MAX_N 67u /* four times the partial sums and a rest */

/* Every length around the number of partial sums, at every alignment of an element. */
static const size_t lengths[] = {0,  1,  2,  7,  15, 16, 17, 18, 19, 20, 21, 22,   23,
                                 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 48, MAX_N};

typedef struct vectors {
    float narrow[MAX_N + 8];
    double wide[MAX_N + 8];
} vectors;

static void set(vectors *v, size_t i, double value)
{
    v->narrow[i] = (float)value;
    v->wide[i] = value;
}

/* Whole numbers, so that no order of addition rounds. What lies outside would be noticed. */
static double fill(vectors *v, size_t from, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < MAX_N + 8; i++) set(v, i, NAN);
    for (size_t i = 0; i < n; i++) {
        double value = i % 2 ? -(double)(i + 1) : (double)(i + 1);
        set(v, from + i, value);
        sum += value * value;
    }
    return sum;
}

static void squares_are_summed_at_every_length_and_alignment(void)
{
    vectors v;
    for (size_t l = 0; l < COUNT(lengths); l++) {
        for (size_t from = 0; from < 8; from++) {
            double sum = fill(&v, from, lengths[l]);
            CHECK_FLOAT(fps_sum_squares(v.narrow + from, lengths[l], 4), sum);
            CHECK_FLOAT(fps_sum_squares(v.wide + from, lengths[l], 8), sum);
            CHECK(fps_all_finite(v.narrow + from, lengths[l], 4));
            CHECK(fps_all_finite(v.wide + from, lengths[l], 8));
        }
    }
}

static void nothing_has_no_squares_and_is_finite(void)
{
    CHECK_FLOAT(fps_sum_squares(NULL, 0, 4), 0.0);
    CHECK_FLOAT(fps_sum_squares(NULL, 0, 8), 0.0);
    CHECK(fps_all_finite(NULL, 0, 4));
    CHECK(fps_all_finite(NULL, 0, 8));
}

static void what_is_not_finite_is_found_at_every_place(void)
{
    static const double values[] = {NAN, -NAN, INFINITY, -INFINITY};
    vectors v;
    for (size_t l = 0; l < COUNT(lengths); l++) {
        size_t n = lengths[l];
        for (size_t at = 0; at < n; at++) {
            for (size_t k = 0; k < COUNT(values); k++) {
                fill(&v, 1, n);
                set(&v, 1 + at, values[k]);
                CHECK(!fps_all_finite(v.narrow + 1, n, 4));
                CHECK(!fps_all_finite(v.wide + 1, n, 8));
                double squares[] = {fps_sum_squares(v.narrow + 1, n, 4), fps_sum_squares(v.wide + 1, n, 8)};
                for (size_t i = 0; i < 2; i++) CHECK(k < 2 ? isnan(squares[i]) : isinf(squares[i]) && squares[i] > 0);
            }
        }
    }
}

/* One infinity would hide another in a sum of the elements themselves. */
static void infinities_of_both_signs_do_not_cancel(void)
{
    vectors v;
    fill(&v, 0, 33);
    for (size_t i = 0; i < 33; i++) set(&v, i, i % 2 ? INFINITY : -INFINITY);
    CHECK(!fps_all_finite(v.narrow, 33, 4));
    CHECK(!fps_all_finite(v.wide, 33, 8));
    CHECK(isinf(fps_sum_squares(v.narrow, 33, 4)));
    CHECK(isinf(fps_sum_squares(v.wide, 33, 8)));
}

static void squares_of_the_largest_floats_do_not_overflow(void)
{
    vectors v;
    for (size_t i = 0; i < MAX_N; i++) v.narrow[i] = i % 2 ? FLT_MAX : -FLT_MAX;
    CHECK(fps_all_finite(v.narrow, MAX_N, 4));
    double square = (double)FLT_MAX * (double)FLT_MAX, sum = fps_sum_squares(v.narrow, MAX_N, 4);
    CHECK(isfinite(sum));
    CHECK(fabs(sum / (MAX_N * square) - 1) < 1e-14);
}

static void the_largest_doubles_are_finite_though_their_squares_are_not(void)
{
    vectors v;
    for (size_t i = 0; i < MAX_N; i++) v.wide[i] = i % 2 ? DBL_MAX : -DBL_MAX;
    CHECK(fps_all_finite(v.wide, MAX_N, 8));
    CHECK(isinf(fps_sum_squares(v.wide, MAX_N, 8)));
}

static void the_smallest_numbers_and_signed_zeros_are_finite(void)
{
    vectors v;
    static const double values[] = {0.0, -0.0, DBL_MIN, -DBL_TRUE_MIN, FLT_TRUE_MIN, -FLT_MIN};
    for (size_t i = 0; i < MAX_N; i++) set(&v, i, values[i % COUNT(values)]);
    CHECK(fps_all_finite(v.narrow, MAX_N, 4));
    CHECK(fps_all_finite(v.wide, MAX_N, 8));
    CHECK_FLOAT(fps_sum_squares((float[]){FLT_TRUE_MIN}, 1, 4), (double)FLT_TRUE_MIN * (double)FLT_TRUE_MIN);
    CHECK(fps_sum_squares((float[]){FLT_TRUE_MIN}, 1, 4) > 0); /* in double there is room for it */
}

/* A sum of floats in float would stop growing at 2^24. */
static void a_long_sum_keeps_its_precision(void)
{
    const size_t n = (1u << 24) + 1001;
    float *ones = filled(n, 1);
    CHECK_FLOAT(fps_sum_squares(ones, n, 4), (double)n);
    CHECK(fps_all_finite(ones, n, 4));
    ones[n - 1] = NAN;
    CHECK(!fps_all_finite(ones, n, 4));
    free(ones);
}

int main(void)
{
    static const test tests[] = {
        TEST(squares_are_summed_at_every_length_and_alignment),
        TEST(nothing_has_no_squares_and_is_finite),
        TEST(what_is_not_finite_is_found_at_every_place),
        TEST(infinities_of_both_signs_do_not_cancel),
        TEST(squares_of_the_largest_floats_do_not_overflow),
        TEST(the_largest_doubles_are_finite_though_their_squares_are_not),
        TEST(the_smallest_numbers_and_signed_zeros_are_finite),
        TEST(a_long_sum_keeps_its_precision),
    };
    return run_tests(tests, COUNT(tests));
}

#define _GNU_SOURCE
#include <math.h>

#include "check.h"
#include "half.h"

#define ALL 65536u

static const uint32_t types[] = {FPS_BFLOAT16, FPS_FLOAT16};

static float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static float widened(uint16_t half, uint32_t type)
{
    float x;
    fps_widen(&x, &half, 1, type);
    return x;
}

static uint16_t narrowed(float x, uint32_t type)
{
    uint16_t half;
    fps_narrow(&half, &x, 1, type);
    return half;
}

/* The value by definition: sign, exponent, mantissa. NaN for all NaNs. */
static double meaning(uint16_t half, uint32_t type)
{
    const int mantissa_bits = type == FPS_BFLOAT16 ? 7 : 10, bias = type == FPS_BFLOAT16 ? 127 : 15;
    const int top = 2 * bias + 1, exponent = (half & 0x7fff) >> mantissa_bits;
    const int mantissa = half & ((1 << mantissa_bits) - 1);
    double value = exponent == top ? (mantissa ? NAN : INFINITY)
                   : exponent == 0 ? ldexp(mantissa, 1 - bias - mantissa_bits)
                                   : ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
    return half & 0x8000 ? -value : value;
}

static void every_half_widens_to_what_it_means(void)
{
    for (size_t t = 0; t < COUNT(types); t++) {
        for (uint32_t h = 0; h < ALL; h++) {
            const double value = meaning((uint16_t)h, types[t]), found = (double)widened((uint16_t)h, types[t]);
            CHECK(isnan(value) ? isnan(found) != 0 : found == value);
            CHECK_EQ(signbit(found) != 0, h >> 15);
        }
    }
}

static void every_half_comes_back(void)
{
    for (size_t t = 0; t < COUNT(types); t++)
        for (uint32_t h = 0; h < ALL; h++) {
            const uint16_t found = narrowed(widened((uint16_t)h, types[t]), types[t]);
            if (isnan(meaning((uint16_t)h, types[t]))) {
                CHECK(isnan(meaning(found, types[t])));
                CHECK_EQ(found >> 15, h >> 15);
            } else {
                CHECK_EQ(found, h);
            }
        }
}

/* Around every half: what lies below the middle to the next one, on it, and above it. */
static void floats_between_two_halves_go_to_the_nearest_and_ties_to_the_even_one(void)
{
    for (size_t t = 0; t < COUNT(types); t++) {
        for (uint32_t h = 0; h < 0x7fff; h++) {
            const double low = meaning((uint16_t)h, types[t]), high = meaning((uint16_t)(h + 1), types[t]);
            if (isnan(high) || isinf(low)) continue;
            /* the step to infinity is as large as the one before */
            const double step = isinf(high) ? low - meaning((uint16_t)(h - 1), types[t]) : high - low;
            const float middle = (float)(low + step / 2);
            CHECK((double)middle == low + step / 2);
            for (int sign = -1; sign <= 1; sign += 2) {
                const uint32_t minus = sign < 0 ? 0x8000u : 0, even = h + (h & 1u);
                const float by = (float)sign;
                CHECK_EQ(narrowed(by * middle, types[t]), even | minus);
                CHECK_EQ(narrowed(by * nextafterf(middle, 0), types[t]), h | minus);
                CHECK_EQ(narrowed(by * nextafterf(middle, INFINITY), types[t]), (h + 1u) | minus);
            }
        }
    }
}

static void what_no_half_has_becomes_infinite_or_0(void)
{
    CHECK_EQ(narrowed(3.4e38f, FPS_FLOAT16), 0x7c00);
    CHECK_EQ(narrowed(-65520.0f, FPS_FLOAT16), 0xfc00);
    CHECK_EQ(narrowed(65519.996f, FPS_FLOAT16), 0x7bff);
    CHECK_EQ(narrowed(3.4e38f, FPS_BFLOAT16), 0x7f80);
    CHECK_EQ(narrowed(0x1p-25f, FPS_FLOAT16), 0);
    CHECK_EQ(narrowed(-0x1.000002p-25f, FPS_FLOAT16), 0x8001);
    CHECK_EQ(narrowed(0x1p-149f, FPS_BFLOAT16), 0);
    CHECK_EQ(narrowed(-0.0f, FPS_BFLOAT16), 0x8000);
    CHECK_EQ(narrowed(-0.0f, FPS_FLOAT16), 0x8000);
}

static void every_nan_stays_one_with_its_sign(void)
{
    for (size_t t = 0; t < COUNT(types); t++)
        for (uint32_t sign = 0; sign < 2; sign++)
            for (uint32_t bit = 0; bit < 23; bit++) {
                const uint16_t half = narrowed(float_of(sign << 31 | 0x7f800000u | 1u << bit), types[t]);
                CHECK(isnan(meaning(half, types[t])));
                CHECK_EQ(half >> 15, sign);
            }
}

/* Vectors, the rests behind them, and single elements agree, at every length and alignment; nothing else is written. */
static void many_are_converted_as_one_is(void)
{
    enum { MOST = 150, MORE = 8 };
    static float from[MOST + MORE], wide[MOST + MORE];
    static uint16_t half[MOST + MORE];
    uint64_t random = 1;
    for (int round = 0; round < 200; round++) {
        for (size_t i = 0; i < COUNT(from); i++) {
            random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            const uint32_t exponent = round % 2 ? 100 + (uint32_t)(random >> 33) % 50 : (uint32_t)(random >> 33) % 256;
            from[i] = float_of(((uint32_t)(random >> 32) & 0x807fffffu) | exponent << 23);
        }
        for (size_t t = 0; t < COUNT(types); t++) {
            const size_t n = (size_t)round % MOST, at = (size_t)round % MORE;
            memset(half, 0x5a, sizeof half);
            memset(wide, 0x5a, sizeof wide);
            fps_narrow(half + at, from + at, n, types[t]);
            fps_widen(wide + at, half + at, n, types[t]);
            for (size_t i = 0; i < COUNT(from); i++) {
                const bool inside = i >= at && i < at + n;
                CHECK_EQ(half[i], inside ? narrowed(from[i], types[t]) : 0x5a5a);
                CHECK_EQ(bits_of(wide[i]), inside ? bits_of(widened(half[i], types[t])) : 0x5a5a5a5au);
            }
        }
    }
}

/* The next number, or the one before. */
static uint16_t towards(uint16_t half, double x, uint32_t type)
{
    const double now = meaning(half, type);
    if (x == now) return half;
    if (now == 0) return x > 0 ? 1 : 0x8001;
    return (uint16_t)((x > now) == (now > 0) ? half + 1 : half - 1);
}

static float any_number(uint64_t *state)
{
    const float x = (float)(random_below(state, 1u << 24) + 1) / (1 << 24);
    return ldexpf(random_below(state, 2) ? x : -x, (int)random_below(state, 36) - 24);
}

/* Of numbers of all sizes: the two nearest and no other, and the number itself in the mean. */
static void at_random_it_is_one_of_the_two_nearest_and_in_the_mean_the_number(void)
{
    enum { N = 4096 };
    static float same[N];
    static uint16_t halves[N];
    uint64_t state = 1;
    for (uint32_t i = 0; i < 600; i++) {
        const uint32_t type = types[i % 2];
        const float x = any_number(&state);
        const uint16_t one = narrowed(x, type), other = towards(one, (double)x, type);
        double sum = 0;
        for (uint32_t j = 0; j < N; j++) same[j] = x;
        fps_narrow_randomly(halves, same, N, type, i);
        for (uint32_t j = 0; j < N; j++) {
            CHECK(halves[j] == one || halves[j] == other || ((halves[j] | one) & 0x7fff) == 0);
            sum += meaning(halves[j], type);
        }
        const double step = fabs(meaning(other, type) - meaning(one, type));
        CHECK(fabs(sum / N - (double)x) <= 5 * step / sqrt(N)); /* ten standard deviations at most */
    }
}

static void at_random_what_is_a_half_stays_that_and_all_sets_of_instructions_do_the_same(void)
{
    static float floats[ALL];
    static uint16_t many[ALL], wanted[ALL];
    uint64_t state = 2;
    for (uint32_t k = 0; k < 2; k++) {
        for (uint32_t h = 0; h < ALL; h++) floats[h] = widened((uint16_t)h, types[k]);
        fps_narrow(wanted, floats, ALL, types[k]);
        fps_narrow_randomly(many, floats, ALL, types[k], 3);
        for (uint32_t h = 0; h < ALL; h++) CHECK_EQ(many[h], wanted[h]);
        for (uint32_t h = 0; h < ALL; h++) floats[h] = float_of((uint32_t)random_below(&state, UINT32_MAX));
        for (uint32_t h = 0; h < 8; h++)
            floats[h] = float_of(0x7fff0001u + h % 4 * 0x5555u + (h < 4 ? 0x80000000u : 0));
        fps_narrow_randomly(many, floats, 77, types[k], 3); /* with a rest that no vector holds */
        fps_narrow_randomly(wanted, floats, 13, types[k], 3);
        CHECK_EQ(memcmp(many, wanted, 13 * sizeof *many), 0);
        for (uint32_t h = 0; h < 77; h++)
            CHECK_EQ((many[h] & 0x7fffu) > (types[k] == FPS_BFLOAT16 ? 0x7f80u : 0x7c00u), isnan(floats[h]) != 0);
    }
}

int main(void)
{
    static const test tests[] = {
        TEST(every_half_widens_to_what_it_means),
        TEST(every_half_comes_back),
        TEST(floats_between_two_halves_go_to_the_nearest_and_ties_to_the_even_one),
        TEST(what_no_half_has_becomes_infinite_or_0),
        TEST(every_nan_stays_one_with_its_sign),
        TEST(many_are_converted_as_one_is),
        TEST(at_random_it_is_one_of_the_two_nearest_and_in_the_mean_the_number),
        TEST(at_random_what_is_a_half_stays_that_and_all_sets_of_instructions_do_the_same),
    };
    return run_tests(tests, COUNT(tests));
}

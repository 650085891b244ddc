#define _GNU_SOURCE
#include "initial.h"

#include <math.h>

#include "tables.h"

#define WEYL UINT64_C(0x9e3779b97f4a7c15)
#define GUARD 0x5a

static fps_table_layout layout_of(uint32_t initial, double first, double second)
{
    return (fps_table_layout){
        .dim = 24, .item_bytes = 8, .initial = initial, .seed = 42, .first = first, .second = second, .max_rows = 1};
}

static fps_table_layout kinds(size_t i)
{
    return i == 0   ? layout_of(FPS_INITIAL_CONSTANT, 0.1, 9)
           : i == 1 ? layout_of(FPS_INITIAL_UNIFORM, -0.05, 0.3)
                    : layout_of(FPS_INITIAL_NORMAL, 0.5, 0.02);
}

static double *fill(const fps_table_layout *l, uint64_t key)
{
    double *values = malloc(l->dim * sizeof *values);
    CHECK(values != NULL);
    fps_initial_fill(l, key, values);
    return values;
}

/* Element i of many rows, in a row. */
static double *sample(const fps_table_layout *l, uint32_t n_rows)
{
    double *values = malloc((size_t)n_rows * l->dim * sizeof *values);
    CHECK(values != NULL);
    for (uint32_t key = 0; key < n_rows; key++) fps_initial_fill(l, key, values + (size_t)key * l->dim);
    return values;
}

static void a_row_is_a_function_of_seed_and_key_alone(void)
{
    for (size_t i = 0; i < 3; i++) {
        fps_table_layout one = kinds(i), other = one;
        other.max_rows = 12345;
        other.n_slots = 3;
        other.slots[1] = 4;
        other.tracked = 1;
        other.rows_offset = other.checksum = 99;
        for (uint64_t key = 0; key < 100; key++) {
            double *a = fill(&one, key * WEYL), *b = fill(&other, key * WEYL);
            CHECK_EQ(memcmp(a, b, one.dim * sizeof *a), 0);
            free(a);
            free(b);
        }
    }
}

static void all_processors_make_the_same_bits(void)
{
    uint8_t wide[150 * 8], anywhere[sizeof wide];
    for (uint64_t key = 0; key < 5000; key++) {
        fps_table_layout l = kinds(key % 3);
        l.dim = 1 + (uint32_t)(key * 7 % 150);
        l.item_bytes = key % 2 ? 4 : 8;
        l.seed = key * WEYL;
        memset(wide, GUARD, sizeof wide);
        memset(anywhere, GUARD, sizeof anywhere);
        fps_initial_fill(&l, key * WEYL, wide);
        fps_initial_fill_anywhere(&l, key * WEYL, anywhere);
        CHECK_EQ(memcmp(wide, anywhere, sizeof wide), 0);
    }
}

static void a_shorter_row_is_the_beginning_of_a_longer_one(void)
{
    for (size_t i = 0; i < 3; i++) {
        fps_table_layout longer = kinds(i), shorter = longer;
        longer.dim = 300;
        double *all = fill(&longer, 77);
        for (shorter.dim = 1; shorter.dim < longer.dim; shorter.dim++) {
            double *some = fill(&shorter, 77);
            CHECK_EQ(memcmp(all, some, shorter.dim * sizeof *some), 0);
            free(some);
        }
        free(all);
    }
}

static void other_seeds_and_keys_give_other_rows(void)
{
    for (size_t i = 1; i < 3; i++) {
        fps_table_layout l = kinds(i);
        double *row = fill(&l, 5), *other;
        for (int bit = 0; bit < 64; bit++) {
            other = fill(&l, 5 ^ UINT64_C(1) << bit);
            for (uint32_t k = 0; k < l.dim; k++) CHECK(row[k] < other[k] || row[k] > other[k]);
            free(other);
            fps_table_layout sown = l;
            sown.seed ^= UINT64_C(1) << bit;
            other = fill(&sown, 5);
            for (uint32_t k = 0; k < l.dim; k++) CHECK(row[k] < other[k] || row[k] > other[k]);
            free(other);
        }
        free(row);
    }
}

static void elements_of_a_row_differ(void)
{
    for (size_t i = 1; i < 3; i++) {
        fps_table_layout l = kinds(i);
        l.dim = 1000;
        double *row = fill(&l, 5);
        for (uint32_t a = 0; a < l.dim; a++)
            for (uint32_t b = 0; b < a; b++) CHECK(row[a] < row[b] || row[a] > row[b]);
        free(row);
    }
}

static void float32_is_the_rounded_float64(void)
{
    for (size_t i = 0; i < 3; i++) {
        for (uint32_t dim = 1; dim <= 40; dim++) {
            fps_table_layout wide = kinds(i), narrow = wide;
            wide.dim = narrow.dim = dim;
            narrow.item_bytes = 4;
            double *values = fill(&wide, dim);
            float *rounded = filled(dim, -1);
            fps_initial_fill(&narrow, dim, rounded);
            for (uint32_t k = 0; k < dim; k++) CHECK_FLOAT(rounded[k], (float)values[k]);
            free(values);
            free(rounded);
        }
    }
}

/* At any address, since a row's values lie where its head ends. */
static void exactly_the_elements_of_the_row_are_written(void)
{
    for (size_t i = 0; i < 3; i++) {
        for (uint32_t dim = 1; dim <= 50; dim++) {
            for (uint32_t item = 4; item <= 8; item += 4) {
                uint8_t memory[16 + 50 * 8 + 16], bytes[50 * 8];
                fps_table_layout l = kinds(i);
                l.dim = dim;
                l.item_bytes = item;
                fps_initial_fill(&l, 3, bytes);
                for (uint32_t shift = 0; shift < 16; shift += item) {
                    memset(memory, GUARD, sizeof memory);
                    fps_initial_fill(&l, 3, memory + shift);
                    for (uint32_t b = 0; b < sizeof memory; b++) {
                        bool inside = b >= shift && b < shift + dim * item;
                        CHECK_EQ(memory[b], inside ? bytes[b - shift] : GUARD);
                    }
                }
            }
        }
    }
}

static void a_constant_is_the_same_everywhere(void)
{
    static const double values[] = {0, -0.0, 1.5, 0.1, -1e300, 5e-324, INFINITY};
    for (size_t i = 0; i < COUNT(values); i++) {
        fps_table_layout l = layout_of(FPS_INITIAL_CONSTANT, values[i], 3);
        double *row = fill(&l, i);
        for (uint32_t k = 0; k < l.dim; k++) CHECK_EQ(memcmp(&row[k], &values[i], sizeof *row), 0);
        free(row);
    }
}

static void an_uniform_number_is_in_its_range(void)
{
    static const double ranges[][2] = {{0, 1}, {-1, 1}, {-0.01, 0.02}, {5, 5}, {-1e300, 1e300}, {1, 1 + 0x1p-52}};
    for (size_t i = 0; i < COUNT(ranges); i++) {
        fps_table_layout l = layout_of(FPS_INITIAL_UNIFORM, ranges[i][0], ranges[i][1]);
        double *values = sample(&l, 2000);
        for (uint32_t k = 0; k < 2000 * l.dim; k++) CHECK(values[k] >= ranges[i][0] && values[k] <= ranges[i][1]);
        free(values);
    }
    fps_table_layout l = layout_of(FPS_INITIAL_UNIFORM, 0, 1);
    double *values = sample(&l, 2000);
    for (uint32_t k = 0; k < 2000 * l.dim; k++) CHECK(values[k] < 1);
    free(values);
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double below_uniform(double x) { return x; }
static double below_normal(double x) { return 0.5 * erfc(-x / sqrt(2)); }

/* The largest distance between the share of numbers below one of them and the share that belongs there: of n numbers it
 * exceeds 1.95 / sqrt(n) once in a thousand times, and these are always the same. */
static void check_distribution(const fps_table_layout *l, double (*below)(double), double mean, double variance)
{
    const uint32_t n_rows = 20000, n = n_rows * l->dim;
    double *values = sample(l, n_rows), sum = 0, squares = 0, together = 0, distance = 0;
    for (uint32_t i = 0; i < n; i++) sum += values[i];
    for (uint32_t i = 0; i < n; i++) squares += (values[i] - mean) * (values[i] - mean);
    for (uint32_t i = 0; i + 1 < n; i++) together += (values[i] - mean) * (values[i + 1] - mean);
    CHECK(fabs(sum / n - mean) < 4 * sqrt(variance / n));
    CHECK(fabs(squares / n / variance - 1) < 0.01);
    CHECK(fabs(together / n / variance) < 4 / sqrt(n)); /* neighbours know nothing of each other */
    qsort(values, n, sizeof *values, by_size);
    for (uint32_t i = 0; i < n; i++) {
        distance = fmax(distance, fabs(below(values[i]) - (double)i / n));
        distance = fmax(distance, fabs(below(values[i]) - (double)(i + 1) / n));
    }
    CHECK(distance < 1.95 / sqrt(n));
    free(values);
}

static void uniform_numbers_are_uniform(void)
{
    fps_table_layout l = layout_of(FPS_INITIAL_UNIFORM, 0, 1);
    check_distribution(&l, below_uniform, 0.5, 1.0 / 12);
}

static void normal_numbers_are_normal(void)
{
    fps_table_layout l = layout_of(FPS_INITIAL_NORMAL, 0, 1);
    check_distribution(&l, below_normal, 0, 1);
}

/* The two numbers of a pair share a radius: neither their product nor that of their squares may show it. */
static void the_two_numbers_of_a_pair_are_independent(void)
{
    fps_table_layout l = layout_of(FPS_INITIAL_NORMAL, 0, 1);
    const uint32_t n_rows = 20000, n = n_rows * l.dim / 2;
    double *values = sample(&l, n_rows), products = 0, squares = 0;
    for (uint32_t i = 0; i < n; i++) {
        double x = values[2 * i], y = values[2 * i + 1];
        products += x * y;
        squares += (x * x - 1) * (y * y - 1);
    }
    CHECK(fabs(products / n) < 4 / sqrt(n));
    CHECK(fabs(squares / n) < 4 * 2 / sqrt(n));
    free(values);
}

static void mean_and_deviation_scale_a_normal_number(void)
{
    fps_table_layout plain = layout_of(FPS_INITIAL_NORMAL, 0, 1), scaled = layout_of(FPS_INITIAL_NORMAL, 3, 0.25);
    double *values = sample(&plain, 100), *others = sample(&scaled, 100);
    for (uint32_t i = 0; i < 100 * plain.dim; i++) CHECK_FLOAT(others[i], 3 + 0.25 * values[i]);
    free(values);
    free(others);
}

/* The key whose row has this as its number `i`, which makes two elements: the generator goes backwards. */
static uint64_t key_whose_number_is(const fps_table_layout *l, uint32_t i, uint64_t number)
{
    uint64_t stream = key_of_hash(number) - (i + 1) * WEYL;
    return key_of_hash(stream) ^ fps_hash(l->seed ^ WEYL);
}

static uint64_t number_of(const fps_table_layout *l, uint64_t key, uint32_t i)
{
    return fps_hash(fps_hash(key ^ fps_hash(l->seed ^ WEYL)) + (i + 1) * WEYL);
}

/* The middle of one of 2^23 parts. */
static double unit_of(uint32_t bits) { return ((double)(bits >> 9) + 0.5) * 0x1p-23; }

static void an_uniform_pair_is_the_two_halves_of_a_number(void)
{
    fps_table_layout l = layout_of(FPS_INITIAL_UNIFORM, 0, 1);
    for (uint64_t key = 0; key < 2000; key++) {
        double *row = fill(&l, key);
        for (uint32_t i = 0; i < l.dim; i += 2) {
            CHECK_FLOAT(row[i], unit_of((uint32_t)number_of(&l, key, i / 2)));
            CHECK_FLOAT(row[i + 1], unit_of((uint32_t)(number_of(&l, key, i / 2) >> 32)));
        }
        free(row);
    }
}

/* Logarithm, cosine and sine are our own, so that all machines agree; the library's are a good judge. */
static void check_pair(const double *pair, uint64_t number)
{
    const uint32_t low = (uint32_t)number, high = (uint32_t)(number >> 32);
    double radius = sqrt(-2 * log(unit_of(low)));
    double angle = (unit_of(high << 2) - 0.5 + (double)(high >> 30)) * 1.57079632679489661923;
    CHECK(fabs(pair[0] - radius * cos(angle)) < 2e-6 * (1 + radius));
    CHECK(fabs(pair[1] - radius * sin(angle)) < 2e-6 * (1 + radius));
}

static void a_normal_pair_is_what_box_and_muller_say(void)
{
    fps_table_layout l = layout_of(FPS_INITIAL_NORMAL, 0, 1);
    for (uint64_t key = 0; key < 20000; key++) {
        double *row = fill(&l, key);
        for (uint32_t i = 0; i < l.dim; i += 2) check_pair(&row[i], number_of(&l, key, i / 2));
        free(row);
    }
}

static void the_extremes_of_the_generator_are_finite(void)
{
    static const uint32_t halves[] = {0, 0x1ff, 0x200, 0x3fffffff, 0x40000000, 0x7fffffff, 0x80000000, UINT32_MAX};
    fps_table_layout uniform = layout_of(FPS_INITIAL_UNIFORM, 0, 1), normal = layout_of(FPS_INITIAL_NORMAL, 0, 1);
    for (uint32_t k = 0; k < COUNT(halves) * COUNT(halves); k++) {
        const uint64_t number = (uint64_t)halves[k / COUNT(halves)] << 32 | halves[k % COUNT(halves)];
        for (uint32_t i = 0; i < uniform.dim / 2; i++) {
            const uint64_t key = key_whose_number_is(&uniform, i, number);
            CHECK_EQ(number_of(&uniform, key, i), number);
            double *row = fill(&uniform, key);
            CHECK(row[2 * i] > 0 && row[2 * i] < 1 && row[2 * i + 1] > 0 && row[2 * i + 1] < 1);
            free(row);
            row = fill(&normal, key);
            CHECK(fabs(row[2 * i]) < 6 && fabs(row[2 * i + 1]) < 6);
            check_pair(&row[2 * i], number);
            free(row);
        }
    }
}

/* Tables outlive programs, and machines differ: these numbers may not change. */
static void the_first_values_of_some_rows_are_known_to_the_bit(void)
{
    static const struct {
        uint32_t initial;
        uint64_t seed, key, bits[4];
    } cases[] = {
        {FPS_INITIAL_UNIFORM,
         0,
         0,
         {UINT64_C(0x3fba2c0500000000), UINT64_C(0x3fd5a2a6c0000000), UINT64_C(0x3fd1fbdc40000000),
          UINT64_C(0x3fd1396e40000000)}},
        {FPS_INITIAL_UNIFORM,
         42,
         UINT64_MAX,
         {UINT64_C(0x3f82054800000000), UINT64_C(0x3fc177b180000000), UINT64_C(0x3fe3e63a60000000),
          UINT64_C(0x3fb51cc300000000)}},
        {FPS_INITIAL_NORMAL,
         0,
         0,
         {UINT64_C(0x3fdf7231a0000000), UINT64_C(0x4000a07860000000), UINT64_C(0x3fef786fa0000000),
          UINT64_C(0x3ff40ef560000000)}},
        {FPS_INITIAL_NORMAL,
         0,
         1,
         {UINT64_C(0xbffe90ff80000000), UINT64_C(0x3ff6ef0540000000), UINT64_C(0x3fd0e68840000000),
          UINT64_C(0x3fdb29ce00000000)}},
        {FPS_INITIAL_NORMAL,
         42,
         UINT64_MAX,
         {UINT64_C(0x40088cc760000000), UINT64_C(0x3fcc5876c0000000), UINT64_C(0x3fee1596e0000000),
          UINT64_C(0xbfd078f0a0000000)}},
        {FPS_INITIAL_NORMAL,
         UINT64_MAX,
         1000000007,
         {UINT64_C(0xbfee7b69a0000000), UINT64_C(0x3fda316d40000000), UINT64_C(0xbfd143f860000000),
          UINT64_C(0xbfd457afa0000000)}},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        fps_table_layout l = layout_of(cases[i].initial, 0, 1);
        l.dim = 4;
        l.seed = cases[i].seed;
        double *row = fill(&l, cases[i].key);
        for (uint32_t k = 0; k < l.dim; k++) {
            uint64_t bits;
            memcpy(&bits, &row[k], sizeof bits);
            CHECK_EQ(bits, cases[i].bits[k]);
        }
        free(row);
    }
}

/* So does the shard and the bucket that a key lies in. */
static void the_hash_is_known_and_a_bijection(void)
{
    uint64_t state = 1;
    CHECK_EQ(fps_hash(0), 0);
    CHECK_EQ(fps_hash(WEYL), UINT64_C(0xe220a8397b1dcdaf)); /* SplitMix64's first number of seed 0 */
    CHECK_EQ(fps_hash(2 * WEYL), UINT64_C(0x6e789e6aa1b965f4));
    CHECK_EQ(fps_hash(3 * WEYL), UINT64_C(0x06c45d188009454f));
    for (uint32_t i = 0; i < 100000; i++) {
        uint64_t key = (uint64_t)random_below(&state, UINT32_MAX) << 32 | random_below(&state, UINT32_MAX);
        CHECK_EQ(key_of_hash(fps_hash(key)), key);
        CHECK_EQ(fps_hash(key_of_hash(key)), key);
    }
    CHECK_EQ(fps_hash_tag(UINT64_C(0x123456789abcdef0)), 0x12345678);
    CHECK_EQ(fps_hash_shard(UINT64_C(0x12345678ffffffff), 7), 6);
    CHECK_EQ(fps_hash_shard(UINT64_C(0xffffffff00000000), 7), 0);
    for (uint32_t n = 1; n < 100; n++) CHECK_EQ(fps_hash_shard(UINT64_C(0x80000000), n), n / 2);
}

int main(void)
{
    static const test tests[] = {
        TEST(a_row_is_a_function_of_seed_and_key_alone),
        TEST(a_shorter_row_is_the_beginning_of_a_longer_one),
        TEST(other_seeds_and_keys_give_other_rows),
        TEST(elements_of_a_row_differ),
        TEST(float32_is_the_rounded_float64),
        TEST(exactly_the_elements_of_the_row_are_written),
        TEST(a_constant_is_the_same_everywhere),
        TEST(an_uniform_number_is_in_its_range),
        TEST(uniform_numbers_are_uniform),
        TEST(normal_numbers_are_normal),
        TEST(the_two_numbers_of_a_pair_are_independent),
        TEST(mean_and_deviation_scale_a_normal_number),
        TEST(an_uniform_pair_is_the_two_halves_of_a_number),
        TEST(a_normal_pair_is_what_box_and_muller_say),
        TEST(the_extremes_of_the_generator_are_finite),
        TEST(the_first_values_of_some_rows_are_known_to_the_bit),
        TEST(all_processors_make_the_same_bits),
        TEST(the_hash_is_known_and_a_bijection),
    };
    return run_tests(tests, COUNT(tests));
}

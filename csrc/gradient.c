#include "gradient.h"

#include <math.h>

#include "half.h"

#define LANES 16u  /* partial sums: the compiler may not reorder additions by itself */
#define PART 1024u /* a multiple of LANES */

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
#define WIDE __attribute__((target_clones("avx2", "default")))
#else
#define WIDE
#endif

/* Adds to the partial sums, and returns the sum of what is left over, fewer than LANES. */
#define SUM(name, type, term)                                                                                          \
    WIDE static double name(const type *x, size_t n, double *restrict lane)                                            \
    {                                                                                                                  \
        double rest = 0;                                                                                               \
        size_t i = 0;                                                                                                  \
        for (; i + LANES <= n; i += LANES)                                                                             \
            for (size_t k = 0; k < LANES; k++) {                                                                       \
                const double v = (double)x[i + k];                                                                     \
                lane[k] += (term);                                                                                     \
            }                                                                                                          \
        for (; i < n; i++) {                                                                                           \
            const double v = (double)x[i];                                                                             \
            rest += (term);                                                                                            \
        }                                                                                                              \
        return rest;                                                                                                   \
    }

SUM(squares_of_floats, float, v *v)
SUM(squares_of_doubles, double, v *v)
SUM(zeros_of_floats, float, v * 0.0) /* 0 times a value that is not finite is NaN */
SUM(zeros_of_doubles, double, v * 0.0)

typedef double sum_of_floats(const float *, size_t, double *);
typedef double sum_of_doubles(const double *, size_t, double *);

/* Values of half precision are widened in parts, whose sums are those of the widened whole. */
static double sum(const void *values, size_t n, uint32_t type, sum_of_floats *floats, sum_of_doubles *doubles)
{
    double lane[LANES] = {0}, total = 0;
    float wide[PART];
    if (type == FPS_FLOAT32)
        total = floats(values, n, lane);
    else if (type == FPS_FLOAT64)
        total = doubles(values, n, lane);
    else
        for (size_t i = 0, part; i < n; i += part) {
            part = n - i < PART ? n - i : PART;
            fps_widen(wide, (const uint16_t *)values + i, part, type);
            total = floats(wide, part, lane); /* 0 for all parts but the last one */
        }
    for (size_t k = 0; k < LANES; k++) total += lane[k];
    return total;
}

double fps_sum_squares(const void *values, size_t n, uint32_t type)
{
    return sum(values, n, type, squares_of_floats, squares_of_doubles);
}

bool fps_all_finite(const void *values, size_t n, uint32_t type)
{
    return !isnan(sum(values, n, type, zeros_of_floats, zeros_of_doubles));
}

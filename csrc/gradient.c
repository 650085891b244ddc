#include "gradient.h"

#include <math.h>

#define LANES 16u /* partial sums: the compiler may not reorder additions by itself */

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
#define WIDE __attribute__((target_clones("avx2", "default")))
#else
#define WIDE
#endif

#define SUM(name, type, term)                                                                                          \
    WIDE static double name(const type *x, size_t n)                                                                   \
    {                                                                                                                  \
        double lane[LANES] = {0}, sum = 0;                                                                             \
        size_t i = 0;                                                                                                  \
        for (; i + LANES <= n; i += LANES)                                                                             \
            for (size_t k = 0; k < LANES; k++) {                                                                       \
                const double v = (double)x[i + k];                                                                     \
                lane[k] += (term);                                                                                     \
            }                                                                                                          \
        for (; i < n; i++) {                                                                                           \
            const double v = (double)x[i];                                                                             \
            sum += (term);                                                                                             \
        }                                                                                                              \
        for (size_t k = 0; k < LANES; k++) sum += lane[k];                                                             \
        return sum;                                                                                                    \
    }

SUM(squares_of_floats, float, v *v)
SUM(squares_of_doubles, double, v *v)
SUM(zeros_of_floats, float, v * 0.0) /* 0 times a value that is not finite is NaN */
SUM(zeros_of_doubles, double, v * 0.0)

double fps_sum_squares(const void *values, size_t n, uint32_t item_bytes)
{
    return item_bytes == sizeof(float) ? squares_of_floats(values, n) : squares_of_doubles(values, n);
}

bool fps_all_finite(const void *values, size_t n, uint32_t item_bytes)
{
    return !isnan(item_bytes == sizeof(float) ? zeros_of_floats(values, n) : zeros_of_doubles(values, n));
}

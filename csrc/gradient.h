/* Checks and norms of whole gradients, before a push. Each takes one pass and no memory. */
#ifndef FPS_GRADIENT_H
#define FPS_GRADIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The sum of the squares of n values of a type of half.h, in double. Infinite or NaN when an element is; for doubles
 * also when a square overflows. */
double fps_sum_squares(const void *values, size_t n, uint32_t type);

bool fps_all_finite(const void *values, size_t n, uint32_t type);

#endif

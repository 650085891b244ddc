/* bfloat16 and float16, from and to float32. On x86-64 with the widest instructions of the processor; the results are
 * the same on every one. */
#ifndef FPS_HALF_H
#define FPS_HALF_H

#include <stddef.h>
#include <stdint.h>

/* The type of the elements of a buffer. */
#define FPS_BFLOAT16 1u /* 8 bits of exponent, 7 of mantissa: the upper half of a float32 */
#define FPS_FLOAT16 2u  /* 5 and 10: IEEE 754 binary16 */
#define FPS_FLOAT32 4u
#define FPS_FLOAT64 8u

/* `type` is FPS_BFLOAT16 or FPS_FLOAT16. Exact; a NaN stays one. */
void fps_widen(float *restrict to, const uint16_t *restrict from, size_t n, uint32_t type);

/* To nearest, ties to even: what is too large becomes an infinity, what is too small a subnormal number or 0; a NaN
 * stays one, with its sign. */
void fps_narrow(uint16_t *restrict to, const float *restrict from, size_t n, uint32_t type);

/* To one of the two nearest numbers, at random: up with the probability of the fraction that is left, so that the mean
 * is the number itself; what is less than 2^-32 becomes 0 in float16. The same `seed` gives the same bits, on every
 * processor. What fps_narrow makes an infinity or a NaN becomes that. */
void fps_narrow_randomly(uint16_t *restrict to, const float *restrict from, size_t n, uint32_t type, uint32_t seed);

#endif

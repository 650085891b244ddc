#include "initial.h"

#include <string.h>

#include "hash.h"

#define CHUNK 16 /* elements at a time, so that the compiler vectorises what is done to them */
#define WEYL UINT64_C(0x9e3779b97f4a7c15)

/* SplitMix64: the numbers of a row are those of a stream that begins at its key's hash. */
static uint64_t number(uint64_t stream, uint64_t i) { return fps_hash(stream + (i + 1) * WEYL); }

static uint64_t stream_of(const fps_table_layout *l, uint64_t key) { return fps_hash(key ^ fps_hash(l->seed ^ WEYL)); }

/* In [0, 1), a multiple of 2^-53. */
static double unit(uint64_t bits) { return (double)(int64_t)(bits >> 11) * 0x1p-53; }

/* log(x) for x in (0, 1], to 2e-16: x = m 2^e with m in [sqrt(1/2), sqrt(2)); log(m) = 2 artanh(s), s = (m-1)/(m+1). */
static double logarithm(double x)
{
    int64_t bits;
    memcpy(&bits, &x, sizeof bits);
    const int64_t half = INT64_C(0x3fe6a09e667f3bcd); /* sqrt(1/2) */
    int64_t shifted = bits - half, e = shifted >> 52;
    bits -= (int64_t)((uint64_t)e << 52);
    double m;
    memcpy(&m, &bits, sizeof m);
    double s = (m - 1.0) / (m + 1.0), q = s * s, p = 2.0 / 19;
    p = p * q + 2.0 / 17;
    p = p * q + 2.0 / 15;
    p = p * q + 2.0 / 13;
    p = p * q + 2.0 / 11;
    p = p * q + 2.0 / 9;
    p = p * q + 2.0 / 7;
    p = p * q + 2.0 / 5;
    p = p * q + 2.0 / 3;
    return (double)e * 0.69314718055994530942 + (s * q * p + 2.0 * s);
}

/* The square root of x >= 0 by what every machine has and rounds alike. */
static double root(double x) { return __builtin_sqrt(x); }

/* cos and sin of t in [-pi/4, pi/4], by their series. */
static double cosine(double t)
{
    double q = t * t, p = 1.0 / 20922789888000;
    p = p * q - 1.0 / 87178291200;
    p = p * q + 1.0 / 479001600;
    p = p * q - 1.0 / 3628800;
    p = p * q + 1.0 / 40320;
    p = p * q - 1.0 / 720;
    p = p * q + 1.0 / 24;
    p = p * q - 0.5;
    return p * q + 1.0;
}

static double sine(double t)
{
    double q = t * t, p = -1.0 / 1307674368000;
    p = p * q + 1.0 / 6227020800;
    p = p * q - 1.0 / 39916800;
    p = p * q + 1.0 / 362880;
    p = p * q - 1.0 / 5040;
    p = p * q + 1.0 / 120;
    p = p * q - 1.0 / 6;
    return p * q * t + t;
}

/* The Box-Muller transform: two normal numbers of two uniform ones. The angle is a quarter turn, 0 to 3 times, and at
 * most an eighth either way. */
static void normal_pair(uint64_t a, uint64_t b, double *x, double *y)
{
    double radius = root(-2.0 * logarithm(1.0 - unit(a)));
    double t = (unit(b << 2) - 0.5) * 1.57079632679489661923;
    double c = cosine(t), s = sine(t);
    double turn_c = b >> 62 & 1 ? -s : c, turn_s = b >> 62 & 1 ? c : s, sign = b >> 63 ? -1.0 : 1.0;
    *x = radius * sign * turn_c;
    *y = radius * sign * turn_s;
}

/* Elements [at, at + CHUNK). */
static void chunk_of(const fps_table_layout *l, uint64_t stream, uint32_t at, double *chunk)
{
    if (l->initial == FPS_INITIAL_UNIFORM) {
        for (uint32_t i = 0; i < CHUNK; i++)
            chunk[i] = l->first + (l->second - l->first) * unit(number(stream, at + i));
        return;
    }
    for (uint32_t i = 0; i < CHUNK; i += 2)
        normal_pair(number(stream, at + i), number(stream, at + i + 1), &chunk[i], &chunk[i + 1]);
    for (uint32_t i = 0; i < CHUNK; i++) chunk[i] = l->first + l->second * chunk[i];
}

static void store(const fps_table_layout *l, void *values, uint32_t at, const double *chunk)
{
    uint32_t n = l->dim - at < CHUNK ? l->dim - at : CHUNK;
    if (l->item_bytes == sizeof *chunk) {
        memcpy((double *)values + at, chunk, n * sizeof *chunk);
        return;
    }
    float narrow[CHUNK];
    for (uint32_t i = 0; i < CHUNK; i++) narrow[i] = (float)chunk[i];
    memcpy((float *)values + at, narrow, n * sizeof *narrow);
}

void fps_initial_fill(const fps_table_layout *l, uint64_t key, void *values)
{
    double chunk[CHUNK];
    if (l->initial == FPS_INITIAL_CONSTANT) {
        for (uint32_t i = 0; i < CHUNK; i++) chunk[i] = l->first;
        for (uint32_t at = 0; at < l->dim; at += CHUNK) store(l, values, at, chunk);
        return;
    }
    const uint64_t stream = stream_of(l, key);
    for (uint32_t at = 0; at < l->dim; at += CHUNK) {
        chunk_of(l, stream, at, chunk);
        store(l, values, at, chunk);
    }
}

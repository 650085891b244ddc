#include "initial.h"

#include <stdbool.h>
#include <string.h>

#include "half.h"
#include "hash.h"

#define CHUNK 64 /* elements at a time */
#define WEYL UINT64_C(0x9e3779b97f4a7c15)
#define INLINE static inline __attribute__((always_inline))

/* SplitMix64: a row's numbers are a stream that starts at its key's hash; each number gives two elements. */
INLINE uint64_t number(uint64_t stream, uint64_t i) { return fps_hash(stream + (i + 1) * WEYL); }

INLINE uint64_t stream_of(const fps_table_layout *l, uint64_t key) { return fps_hash(key ^ fps_hash(l->seed ^ WEYL)); }

/* The following functions process a chunk step by step, in float, so that the compiler vectorises them: 64 normal
 * values take a fifth of the time of scalar code in double. The results are accurate to 1e-6. */

/* From the upper bits, the middles of 2^23 equal parts of (0, 1). */
INLINE void units(const uint32_t *bits, float *u, int n)
{
    for (int i = 0; i < n; i++) u[i] = ((float)(int32_t)(bits[i] >> 9) + 0.5f) * 0x1p-23f;
}

/* log(x) for x in (0, 1]: x = m 2^e with m in [sqrt(1/2), sqrt(2)); log(m) = 2 artanh(s), s = (m - 1) / (m + 1). */
INLINE void logarithms(const float *x, float *out)
{
    int32_t bits[CHUNK / 2], e[CHUNK / 2];
    float m[CHUNK / 2];
    memcpy(bits, x, sizeof bits);
    for (int i = 0; i < CHUNK / 2; i++) {
        e[i] = (bits[i] - 0x3f3504f3) >> 23; /* sqrt(1/2) */
        bits[i] -= e[i] * (1 << 23);
    }
    memcpy(m, bits, sizeof m);
    for (int i = 0; i < CHUNK / 2; i++) {
        const float s = (m[i] - 1.0f) / (m[i] + 1.0f), q = s * s;
        const float p = ((((2.0f / 9) * q + 2.0f / 7) * q + 2.0f / 5) * q + 2.0f / 3) * q;
        out[i] = (float)e[i] * 0.693147180559945f + (s * p + 2.0f * s);
    }
}

/* The Box-Muller transform: two normal values from each number. The lower half gives the radius, the upper one the
 * angle: up to an eighth of a turn either way by the series, plus up to three quarter turns. */
INLINE void normals(const uint64_t *numbers, float *chunk)
{
    uint32_t low[CHUNK / 2], high[CHUNK / 2], upper[CHUNK / 2];
    float u[CHUNK / 2], radius[CHUNK / 2], angle[CHUNK / 2];
    for (int i = 0; i < CHUNK / 2; i++) {
        low[i] = (uint32_t)numbers[i];
        upper[i] = (uint32_t)(numbers[i] >> 32);
        high[i] = upper[i] << 2;
    }
    units(low, u, CHUNK / 2);
    units(high, angle, CHUNK / 2);
    logarithms(u, radius);
    for (int i = 0; i < CHUNK / 2; i++) radius[i] = __builtin_sqrtf(-2.0f * radius[i]);
    for (int i = 0; i < CHUNK / 2; i++) {
        const float t = (angle[i] - 0.5f) * 1.57079632679489662f, q = t * t;
        const float cosine = (((q / 40320 - 1.0f / 720) * q + 1.0f / 24) * q - 0.5f) * q + 1.0f;
        const float sine = ((((q / 362880 - 1.0f / 5040) * q + 1.0f / 120) * q - 1.0f / 6) * q) * t + t;
        u[i] = radius[i] * cosine;
        angle[i] = radius[i] * sine;
    }
    /* The upper two bits of a number turn (x, y) into (-y, x), and into (-x, -y): on the bits of the floats, without
     * an unpredictable branch. */
    uint32_t x[CHUNK / 2], y[CHUNK / 2], turned[CHUNK];
    memcpy(x, u, sizeof x);
    memcpy(y, angle, sizeof y);
    for (int i = 0; i < CHUNK / 2; i++) {
        const uint32_t across = 0u - (upper[i] >> 30 & 1u), sign = upper[i] & 0x80000000u;
        turned[2 * i] = ((x[i] & ~across) | ((y[i] ^ 0x80000000u) & across)) ^ sign;
        turned[2 * i + 1] = ((y[i] & ~across) | (x[i] & across)) ^ sign;
    }
    memcpy(chunk, turned, sizeof turned);
}

/* Elements [at, at + CHUNK). */
INLINE void chunk_of(const fps_table_layout *l, uint64_t stream, uint32_t at, double *chunk)
{
    const uint32_t left = (l->dim - at + 1) / 2, wanted = left < CHUNK / 2 ? left : CHUNK / 2;
    uint64_t numbers[CHUNK / 2] = {0};
    uint32_t halves[CHUNK];
    float made[CHUNK];
    if (wanted == CHUNK / 2) { /* a constant count, to vectorise */
        for (uint32_t i = 0; i < CHUNK / 2; i++) numbers[i] = number(stream, at / 2 + i);
    } else {
        for (uint32_t i = 0; i < wanted; i++) numbers[i] = number(stream, at / 2 + i);
    }
    if (l->initial == FPS_INITIAL_NORMAL) {
        normals(numbers, made);
    } else {
        for (uint32_t i = 0; i < CHUNK / 2; i++) {
            halves[2 * i] = (uint32_t)numbers[i];
            halves[2 * i + 1] = (uint32_t)(numbers[i] >> 32);
        }
        units(halves, made, CHUNK);
    }
    const double first = l->first, by = l->initial == FPS_INITIAL_NORMAL ? l->second : l->second - l->first;
    for (uint32_t i = 0; i < CHUNK; i++) chunk[i] = first + by * (double)made[i];
}

/* `held`: as the row holds them. */
INLINE void store(const fps_table_layout *l, void *values, uint32_t at, const double *chunk, bool held)
{
    const uint32_t n = l->dim - at < CHUNK ? l->dim - at : CHUNK;
    if (l->item_bytes == sizeof *chunk) {
        double *to = (double *)values + at;
        if (n == CHUNK)
            memcpy(to, chunk, CHUNK * sizeof *to); /* a constant size avoids a string instruction */
        else
            memcpy(to, chunk, n * sizeof *to);
        return;
    }
    if (l->stored) {
        uint16_t half[CHUNK];
        float rounded[CHUNK];
        for (uint32_t i = 0; i < CHUNK; i++) rounded[i] = (float)chunk[i];
        fps_narrow(half, rounded, n, l->stored);
        if (held)
            memcpy((uint16_t *)values + at, half, n * sizeof *half);
        else
            fps_widen((float *)values + at, half, n, l->stored);
        return;
    }
    float *to = (float *)values + at;
    if (n == CHUNK) {
        for (uint32_t i = 0; i < CHUNK; i++) to[i] = (float)chunk[i];
    } else {
        for (uint32_t i = 0; i < n; i++) to[i] = (float)chunk[i];
    }
}

INLINE void fill(const fps_table_layout *l, uint64_t key, void *values, bool held)
{
    double chunk[CHUNK];
    if (l->initial == FPS_INITIAL_CONSTANT) {
        for (uint32_t i = 0; i < CHUNK; i++) chunk[i] = l->first;
        for (uint32_t at = 0; at < l->dim; at += CHUNK) store(l, values, at, chunk, held);
        return;
    }
    const uint64_t stream = stream_of(l, key);
    for (uint32_t at = 0; at < l->dim; at += CHUNK) {
        chunk_of(l, stream, at, chunk);
        store(l, values, at, chunk, held);
    }
}

void fps_initial_fill_anywhere(const fps_table_layout *l, uint64_t key, void *values) { fill(l, key, values, false); }

#if defined(__x86_64__) && defined(__GNUC__)
/* For processors that multiply eight 64-bit numbers at once: the same code takes a third of the time. */
__attribute__((target("avx512f,avx512dq,avx512vl"))) static void fill_wide(const fps_table_layout *l, uint64_t key,
                                                                           void *values, bool held)
{
    fill(l, key, values, held);
}

#endif

static void fill_here(const fps_table_layout *l, uint64_t key, void *values, bool held)
{
#if defined(__x86_64__) && defined(__GNUC__)
    if (__builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
        fill_wide(l, key, values, held);
        return;
    }
#endif
    fill(l, key, values, held);
}

void fps_initial_fill(const fps_table_layout *l, uint64_t key, void *values) { fill_here(l, key, values, false); }
void fps_initial_hold(const fps_table_layout *l, uint64_t key, void *held) { fill_here(l, key, held, true); }

#include "half.h"

#include <string.h>

static inline uint32_t bits_of(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline float float_of(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static inline float of_bfloat16(uint16_t h) { return float_of((uint32_t)h << 16); }

/* A carry out of the mantissa is the next exponent, and out of the largest one infinity. */
static inline uint16_t to_bfloat16(float x)
{
    const uint32_t u = bits_of(x), nan = (u >> 16 & 0x8000u) | 0x7fc0u;
    const uint32_t rounded = (u + 0x7fffu + (u >> 16 & 1u)) >> 16;
    return (uint16_t)((u & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}

static float of_float16(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = h >> 10 & 31u, mantissa = h & 0x3ffu;
    if (exponent == 31) return float_of(sign | 0x7f800000u | (mantissa ? 0x400000u | mantissa << 13 : 0));
    if (exponent == 0) return float_of(sign | bits_of((float)mantissa * 0x1p-24f));
    return float_of(sign | (exponent + 112u) << 23 | mantissa << 13);
}

static uint16_t to_float16(float x)
{
    const uint32_t sign = bits_of(x) >> 16 & 0x8000u, u = bits_of(x) & 0x7fffffffu;
    uint32_t h;
    if (u > 0x7f800000u) {
        h = 0x7e00u | (u >> 13 & 0x3ffu);
    } else if (u >= 0x477ff000u) { /* 65,520 lies between the largest number and the next one, which is infinity */
        h = 0x7c00u;
    } else if (u >= 0x38800000u) { /* 2^-14, the smallest normal number */
        h = (u - (112u << 23) + 0xfffu + (u >> 13 & 1u)) >> 13;
    } else if (u > 0x33000000u) { /* 2^-25, of which ties go to 0 */
        const uint32_t shift = 126u - (u >> 23), mantissa = (u & 0x7fffffu) | 0x800000u;
        const uint32_t rest = mantissa & ((1u << shift) - 1u), tie = 1u << (shift - 1u);
        h = mantissa >> shift;
        h += rest > tie || (rest == tie && (h & 1u));
    } else {
        h = 0;
    }
    return (uint16_t)(sign | h);
}

/* 32 random bits for element i. The mixer is `lowbias32` of https://github.com/skeeto/hash-prospector. */
static inline uint32_t noise(uint32_t seed, uint32_t i)
{
    uint32_t x = seed + i * 0x9e3779b9u;
    x = (x ^ x >> 16) * 0x21f0aaadu;
    x = (x ^ x >> 15) * 0xd35a2d97u;
    return x ^ x >> 15;
}

/* A random number of the bits that are cut off is added before. */
static inline uint16_t to_bfloat16_randomly(float x, uint32_t random)
{
    const uint32_t u = bits_of(x), h = (u + (random & 0xffffu)) >> 16;
    return (u & 0x7fffffffu) >= 0x7f7f0000u ? to_bfloat16(x) : (uint16_t)h; /* the largest number, infinity, NaN */
}

static uint16_t to_float16_randomly(float x, uint32_t random)
{
    const uint32_t sign = bits_of(x) >> 16 & 0x8000u, u = bits_of(x) & 0x7fffffffu;
    if (u >= 0x477fe000u) return to_float16(x); /* 65,504, the largest number */
    if (u >= 0x38800000u) return (uint16_t)(sign | (u - (112u << 23) + (random & 0x1fffu)) >> 13);
    const uint32_t shift = 126u - (u >> 23), mantissa = (u & 0x7fffffu) | 0x800000u;
    if (shift > 31) return (uint16_t)sign; /* less than 2^-8 of the smallest number */
    return (uint16_t)(sign | (mantissa + (random & ((1u << shift) - 1u))) >> shift);
}

static void narrow_float16_randomly(uint16_t *restrict to, const float *restrict from, size_t n, uint32_t seed)
{
    for (size_t i = 0; i < n; i++) to[i] = to_float16_randomly(from[i], noise(seed, (uint32_t)i));
}

static void widen_float16(float *restrict to, const uint16_t *restrict from, size_t n)
{
    for (size_t i = 0; i < n; i++) to[i] = of_float16(from[i]);
}

static void narrow_float16(uint16_t *restrict to, const float *restrict from, size_t n)
{
    for (size_t i = 0; i < n; i++) to[i] = to_float16(from[i]);
}

/* Loops that compilers vectorise, once for each set of instructions. */
#define BFLOAT16(features, suffix)                                                                                     \
    features static void widen_bfloat16##suffix(float *restrict to, const uint16_t *restrict from, size_t n)           \
    {                                                                                                                  \
        for (size_t i = 0; i < n; i++) to[i] = of_bfloat16(from[i]);                                                   \
    }                                                                                                                  \
    features static void narrow_bfloat16##suffix(uint16_t *restrict to, const float *restrict from, size_t n)          \
    {                                                                                                                  \
        for (size_t i = 0; i < n; i++) to[i] = to_bfloat16(from[i]);                                                   \
    }                                                                                                                  \
    features static void narrow_bfloat16_randomly##suffix(uint16_t *restrict to, const float *restrict from, size_t n, \
                                                          uint32_t seed)                                               \
    {                                                                                                                  \
        for (size_t i = 0; i < n; i++) to[i] = to_bfloat16_randomly(from[i], noise(seed, (uint32_t)i));                \
    }

BFLOAT16(, _plain)

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2,f16c")))
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,f16c")))

BFLOAT16(AVX2, _avx2)
BFLOAT16(AVX512, _avx512)

/* The instruction takes subnormal numbers for 0 and keeps the bits of a NaN: vectors with one of these take the loop.
 */
#define BFLOAT16_UNIT __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,f16c")))
#define UNUSUAL 0xa1 /* of _mm512_fpclass_ps_mask: quiet NaN, subnormal, signalling NaN */

BFLOAT16_UNIT static void narrow_bfloat16_unit(uint16_t *restrict to, const float *restrict from, size_t n)
{
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        const __m512 low = _mm512_loadu_ps(from + i), high = _mm512_loadu_ps(from + i + 16);
        if (_mm512_fpclass_ps_mask(low, UNUSUAL) | _mm512_fpclass_ps_mask(high, UNUSUAL))
            narrow_bfloat16_avx512(to + i, from + i, 32);
        else
            _mm512_storeu_si512(to + i, (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
    narrow_bfloat16_plain(to + i, from + i, n - i);
}

#define NEAREST (_MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)

AVX2 static void widen_float16_avx2(float *restrict to, const uint16_t *restrict from, size_t n)
{
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(from + i))));
    widen_float16(to + i, from + i, n - i);
}

AVX2 static void narrow_float16_avx2(uint16_t *restrict to, const float *restrict from, size_t n)
{
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i *)(void *)(to + i), _mm256_cvtps_ph(_mm256_loadu_ps(from + i), NEAREST));
    narrow_float16(to + i, from + i, n - i);
}

AVX512 static void widen_float16_avx512(float *restrict to, const uint16_t *restrict from, size_t n)
{
    size_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm512_storeu_ps(to + i, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(from + i))));
    widen_float16(to + i, from + i, n - i);
}

AVX512 static void narrow_float16_avx512(uint16_t *restrict to, const float *restrict from, size_t n)
{
    size_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm256_storeu_si256((__m256i *)(void *)(to + i), _mm512_cvtps_ph(_mm512_loadu_ps(from + i), NEAREST));
    narrow_float16(to + i, from + i, n - i);
}

/* The instructions that this processor has. Two threads that ask at first find the same. */
static int level(void)
{
    static int found; /* 0: not asked yet */
    int now = __atomic_load_n(&found, __ATOMIC_RELAXED);
    if (now == 0) {
        __builtin_cpu_init();
        now = 1;
        if (__builtin_cpu_supports("f16c") && __builtin_cpu_supports("avx2")) now = 2;
        if (now == 2 && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) now = 3;
        if (now == 3 && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bf16")) now = 4;
        __atomic_store_n(&found, now, __ATOMIC_RELAXED);
    }
    return now;
}

#define CHOOSE(name, arguments)                                                                                        \
    switch (level()) {                                                                                                 \
    case 4:                                                                                                            \
        name##_unit arguments;                                                                                         \
        break;                                                                                                         \
    case 3:                                                                                                            \
        name##_avx512 arguments;                                                                                       \
        break;                                                                                                         \
    case 2:                                                                                                            \
        name##_avx2 arguments;                                                                                         \
        break;                                                                                                         \
    default:                                                                                                           \
        name##_plain arguments;                                                                                        \
        break;                                                                                                         \
    }

#else
#define CHOOSE(name, arguments) name##_plain arguments
#endif

#define widen_float16_plain widen_float16
#define widen_float16_unit widen_float16_avx512
#define narrow_float16_unit narrow_float16_avx512
#define widen_bfloat16_unit widen_bfloat16_avx512
#define narrow_float16_plain narrow_float16
#define narrow_bfloat16_randomly_unit narrow_bfloat16_randomly_avx512

void fps_widen(float *restrict to, const uint16_t *restrict from, size_t n, uint32_t type)
{
    if (type == FPS_BFLOAT16)
        CHOOSE(widen_bfloat16, (to, from, n))
    else
        CHOOSE(widen_float16, (to, from, n))
}

void fps_narrow(uint16_t *restrict to, const float *restrict from, size_t n, uint32_t type)
{
    if (type == FPS_BFLOAT16)
        CHOOSE(narrow_bfloat16, (to, from, n))
    else
        CHOOSE(narrow_float16, (to, from, n))
}

void fps_narrow_randomly(uint16_t *restrict to, const float *restrict from, size_t n, uint32_t type, uint32_t seed)
{
    if (type == FPS_BFLOAT16)
        CHOOSE(narrow_bfloat16_randomly, (to, from, n, seed))
    else
        narrow_float16_randomly(to, from, n, seed);
}

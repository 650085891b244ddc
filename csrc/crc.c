#include "crc.h"

#include <string.h>

/* What four bits add to the remainder. */
static const uint32_t of_nibble[16] = {
    0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
    0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
};

uint32_t fps_crc32c_by_table(uint32_t before, const void *bytes, size_t n)
{
    const uint8_t *at = bytes;
    uint32_t rest = ~before;
    for (size_t i = 0; i < n; i++) {
        rest ^= at[i];
        rest = rest >> 4 ^ of_nibble[rest & 15];
        rest = rest >> 4 ^ of_nibble[rest & 15];
    }
    return ~rest;
}

#if defined(__x86_64__)
#include <nmmintrin.h>

__attribute__((target("sse4.2"))) static uint32_t by_instruction(uint32_t before, const uint8_t *at, size_t n)
{
    uint64_t rest = (uint32_t)~before;
    for (uint64_t word; n >= 8; n -= 8, at += 8) {
        memcpy(&word, at, sizeof word);
        rest = _mm_crc32_u64(rest, word);
    }
    for (; n > 0; n--, at++) rest = _mm_crc32_u8((uint32_t)rest, *at);
    return ~(uint32_t)rest;
}

uint32_t fps_crc32c(uint32_t before, const void *bytes, size_t n)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("sse4.2") ? by_instruction(before, bytes, n) : fps_crc32c_by_table(before, bytes, n);
}

#else

uint32_t fps_crc32c(uint32_t before, const void *bytes, size_t n) { return fps_crc32c_by_table(before, bytes, n); }

#endif

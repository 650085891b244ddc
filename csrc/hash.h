/* The hash of a key. It determines the shard of a row in every process on every node, so it must never change. */
#ifndef FPS_HASH_H
#define FPS_HASH_H

#include <stdint.h>

/* Stafford's thirteenth mixer, the last step of SplitMix64 (Steele, Lea, Flood 2014). A bijection. */
static inline uint64_t fps_hash(uint64_t key)
{
    key = (key ^ key >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    key = (key ^ key >> 27) * UINT64_C(0x94d049bb133111eb);
    return key ^ key >> 31;
}

/* The hash of bytes: the 64-bit number that is used as their key. */
static inline uint64_t fps_hash_bytes(const unsigned char *bytes, uint64_t n)
{
    uint64_t hash = fps_hash(n + UINT64_C(0x9e3779b97f4a7c15));
    for (uint64_t i = 0; i < n; i += 8) {
        uint64_t word = 0;
        for (uint64_t k = 0; k < 8 && i + k < n; k++) word |= (uint64_t)bytes[i + k] << 8 * k;
        hash = fps_hash(hash ^ word);
    }
    return hash;
}

/* The halves have separate uses: the lower one selects the shard, the upper one the place in that shard's index. */
static inline uint32_t fps_hash_shard(uint64_t hash, uint32_t n_shards)
{
    return (uint32_t)((hash & UINT32_MAX) * n_shards >> 32);
}

static inline uint32_t fps_hash_tag(uint64_t hash) { return (uint32_t)(hash >> 32); }

#endif

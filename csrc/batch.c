#include "batch.h"

#include <stdlib.h>
#include <string.h>

#include "hash.h"

fps_status fps_batch_reserve(fps_batch *batch, uint32_t n, uint32_t sum_bytes)
{
    if (n <= batch->room && sum_bytes <= batch->sum_bytes) return FPS_OK;
    uint32_t room = batch->room > n ? batch->room : n, bits = 4;
    while ((UINT64_C(1) << bits) < UINT64_C(2) * room) bits++;
    const size_t entries = (size_t)1 << bits, places = room, sum = (sum_bytes + 63u) / 64 * 64;
    uint8_t *memory =
        malloc(places * (2 * sizeof(uint64_t) + 5 * sizeof(uint32_t)) + entries * sizeof(uint32_t) + sum + 64);
    if (!memory) return FPS_NO_MEMORY;
    free(batch->memory);
    *batch = (fps_batch){.room = room, .sum_bytes = (uint32_t)sum, .memory = memory};
    batch->sum = memory + (64 - (uintptr_t)memory % 64) % 64;
    batch->keys = (uint64_t *)(void *)(batch->sum + sum);
    batch->hashes = batch->keys + places;
    batch->rows = (uint32_t *)(void *)(batch->hashes + places);
    batch->first = batch->rows + places;
    batch->last = batch->first + places;
    batch->next = batch->last + places;
    batch->missing = batch->next + places;
    batch->hashed = batch->missing + places;
    return FPS_OK;
}

void fps_batch_free(fps_batch *batch)
{
    free(batch->memory);
    *batch = (fps_batch){0};
}

void fps_batch_unique(fps_batch *batch, const uint64_t *keys, uint32_t n)
{
    uint32_t bits = 4;
    while ((UINT64_C(1) << bits) < UINT64_C(2) * n) bits++;
    const uint32_t mask = (uint32_t)((UINT64_C(1) << bits) - 1);
    memset(batch->hashed, 0, ((size_t)mask + 1) * sizeof *batch->hashed);
    batch->n_unique = 0;
    for (uint32_t i = 0; i < n; i++) {
        const uint64_t hash = fps_hash(keys[i]);
        uint32_t entry = (uint32_t)hash & mask, u;
        batch->next[i] = FPS_BATCH_END;
        while ((u = batch->hashed[entry]) != 0 && batch->keys[u - 1] != keys[i]) entry = (entry + 1) & mask;
        if (u != 0) {
            batch->next[batch->last[u - 1]] = i;
            batch->last[u - 1] = i;
            continue;
        }
        u = batch->n_unique++;
        batch->hashed[entry] = u + 1;
        batch->keys[u] = keys[i];
        batch->hashes[u] = hash;
        batch->first[u] = batch->last[u] = i;
    }
}

void fps_batch_split(const uint64_t *keys, uint32_t n, uint32_t n_shards, uint64_t *out, uint32_t *places,
                     uint32_t *starts)
{
    memset(starts, 0, (n_shards + 1) * sizeof *starts);
    for (uint32_t i = 0; i < n; i++) starts[fps_hash_shard(fps_hash(keys[i]), n_shards) + 1]++;
    for (uint32_t s = 0; s < n_shards; s++) starts[s + 1] += starts[s];
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t to = starts[fps_hash_shard(fps_hash(keys[i]), n_shards)]++;
        out[to] = keys[i];
        places[to] = i;
    }
    memmove(starts + 1, starts, n_shards * sizeof *starts);
    starts[0] = 0;
}

/* The keys of an operation: split by shard, and without duplicates. Private memory, kept between operations. */
#ifndef FPS_BATCH_H
#define FPS_BATCH_H

#include <stdint.h>

#include "status.h"

/* Scratch for n keys. `next` links the places (indices) of equal keys, from `first` to `last`, in order. */
typedef struct fps_batch {
    uint32_t room;
    uint32_t n_unique;
    uint64_t *keys; /* distinct ones, in the order of their first places */
    uint64_t *hashes;
    uint32_t *rows;
    uint32_t *first;
    uint32_t *last;
    uint32_t *next;    /* by place; FPS_BATCH_END after the last */
    uint32_t *missing; /* places of missing rows, and other scratch per place */
    uint32_t *hashed;  /* by hash: 1 + index of a distinct key, 0: none */
    uint8_t *sum;      /* of the gradients of a row */
    uint32_t sum_bytes;
    void *memory;
} fps_batch;

#define FPS_BATCH_END UINT32_MAX

/* Room for n keys and a row's gradients. FPS_NO_MEMORY with the batch as it was. */
fps_status fps_batch_reserve(fps_batch *batch, uint32_t n, uint32_t sum_bytes);
void fps_batch_free(fps_batch *batch);

/* Finds the distinct keys and the places of each. `keys` may be batch->keys. */
void fps_batch_unique(fps_batch *batch, const uint64_t *keys, uint32_t n);

/* Splits keys by shard: those of shard s, and their places in `keys`, are at [starts[s], starts[s + 1]) of `out` and
 * `places`, in order. `starts` has n_shards + 1 elements. */
void fps_batch_split(const uint64_t *keys, uint32_t n, uint32_t n_shards, uint64_t *out, uint32_t *places,
                     uint32_t *starts);

#endif

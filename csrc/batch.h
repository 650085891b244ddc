/* The keys of an operation: spread over shards, and each of them once. Private memory, kept between operations. */
#ifndef FPS_BATCH_H
#define FPS_BATCH_H

#include <stdint.h>

#include "status.h"

/* Scratch for n keys. `next` links the places of one key, from `first` to `last`, in their order. */
typedef struct fps_batch {
    uint32_t room;
    uint32_t n_unique;
    uint64_t *keys; /* each once, in the order of their first places */
    uint64_t *hashes;
    uint32_t *rows;
    uint32_t *first;
    uint32_t *last;
    uint32_t *next;    /* by place; FPS_BATCH_END behind the last */
    uint32_t *missing; /* places, or what else an operation wants to remember of them */
    uint32_t *hashed;  /* by hash: 1 + one of the distinct keys, 0: none */
    uint8_t *sum;      /* of the gradients of a row */
    uint32_t sum_bytes;
    void *memory;
} fps_batch;

#define FPS_BATCH_END UINT32_MAX

/* Room for n keys and a row's gradients. FPS_NO_MEMORY with the batch as it was. */
fps_status fps_batch_reserve(fps_batch *batch, uint32_t n, uint32_t sum_bytes);
void fps_batch_free(fps_batch *batch);

/* Finds out which keys come more than once. `keys` may be batch->keys. */
void fps_batch_unique(fps_batch *batch, const uint64_t *keys, uint32_t n);

/* Spreads keys over shards: those of shard s, and their places in `keys`, lie from starts[s] to starts[s + 1] of `out`
 * and `places`, in their order. `starts` has n_shards + 1 elements. */
void fps_batch_split(const uint64_t *keys, uint32_t n, uint32_t n_shards, uint64_t *out, uint32_t *places,
                     uint32_t *starts);

#endif

/* The index of a table maps keys to rows. Open addressing over buckets of one cache line each.
 *
 * A slot is one word: the upper half of the key's hash (its tag) and 1 + its row. The tag determines the bucket, so a
 * new index is built from the old one in memory order, without reading the rows. Keys are in the rows: a search that
 * finds a row by its tag compares the key there, in a cache line that it reads anyway; in a table of 10 million rows
 * one row in 400 shares its tag with another.
 *
 * Searches take no lock. Changes are made with the table's lock held. */
#ifndef FPS_INDEX_H
#define FPS_INDEX_H

#include <stdbool.h>
#include <stdint.h>

#include "arena.h"
#include "sync.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define FPS_BUCKET_SLOTS 8u
#define FPS_SLOT(tag, row) ((uint64_t)(tag) << 32 | ((row) + UINT32_C(1)))
#define FPS_SLOT_TAG(slot) ((uint32_t)((slot) >> 32))
#define FPS_SLOT_ROW(slot) ((uint32_t)(slot) - 1u) /* of a slot with a row */
#define FPS_SLOT_EMPTY UINT64_C(0)                 /* a search ends at a bucket that has one */
#define FPS_SLOT_TOMBSTONE ((uint64_t)UINT32_MAX)  /* had a row; a search continues after it */
#define FPS_NO_ROW UINT32_MAX

typedef struct fps_index {
    const fps_word *slots;
    uint32_t n_buckets;
} fps_index;

/* A search for a tag: the matches in its current bucket. */
typedef struct fps_search {
    uint32_t tag;
    uint32_t bucket;
    uint32_t matches; /* bit i: slot i has the tag */
    bool last;        /* the bucket has an empty slot */
} fps_search;

/* The current index. Its size in shared memory is not trusted. */
static inline fps_index fps_index_of(const fps_table *t, uint64_t word)
{
    uint32_t n = FPS_INDEX_BUCKETS(word);
    return (fps_index){
        .slots = (const fps_word *)(const void *)t->index[FPS_INDEX_GENERATION(word) & 1],
        .n_buckets = n < t->layout.max_buckets ? n : (uint32_t)t->layout.max_buckets,
    };
}

static inline uint32_t fps_index_bucket(const fps_index *index, uint32_t tag)
{
    return (uint32_t)((uint64_t)tag * index->n_buckets >> 32);
}

static inline void fps_index_prefetch(const fps_index *index, uint32_t tag)
{
    __builtin_prefetch((const void *)(index->slots + (size_t)fps_index_bucket(index, tag) * FPS_BUCKET_SLOTS));
}

/* Bits of the slots that have `tag`, and of those that are empty. Each slot is read atomically; the user of a match
 * reads it again. */
#ifdef __SSE2__
/* Loads of 16 bytes are two slots: the processor reads each aligned word atomically. */
__attribute__((no_sanitize("thread"))) static inline void fps_index_match(const fps_word *bucket, uint32_t tag,
                                                                          uint32_t *matches, uint32_t *empty)
{
    const __m128i wanted = _mm_set1_epi32((int)tag), zero = _mm_setzero_si128();
    const __m128 *v = (const __m128 *)(const void *)bucket;
    __m128 a = v[0], b = v[1], c = v[2], d = v[3];
    __m128i tags_low = _mm_castps_si128(_mm_shuffle_ps(a, b, _MM_SHUFFLE(3, 1, 3, 1)));
    __m128i tags_high = _mm_castps_si128(_mm_shuffle_ps(c, d, _MM_SHUFFLE(3, 1, 3, 1)));
    __m128i rows_low = _mm_castps_si128(_mm_shuffle_ps(a, b, _MM_SHUFFLE(2, 0, 2, 0)));
    __m128i rows_high = _mm_castps_si128(_mm_shuffle_ps(c, d, _MM_SHUFFLE(2, 0, 2, 0)));
    __m128i same = _mm_packs_epi32(_mm_cmpeq_epi32(tags_low, wanted), _mm_cmpeq_epi32(tags_high, wanted));
    __m128i none = _mm_packs_epi32(_mm_cmpeq_epi32(rows_low, zero), _mm_cmpeq_epi32(rows_high, zero));
    uint32_t bits = (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(same, none));
    *empty = bits >> 8 & 255u;
    *matches = bits & 255u & ~*empty;
}
#else
static inline void fps_index_match(const fps_word *bucket, uint32_t tag, uint32_t *matches, uint32_t *empty)
{
    *matches = *empty = 0;
    for (uint32_t i = 0; i < FPS_BUCKET_SLOTS; i++) {
        uint64_t slot = fps_load_relaxed(&bucket[i]);
        *empty |= (uint32_t)((uint32_t)slot == 0) << i;
        *matches |= (uint32_t)((uint32_t)slot != 0 && FPS_SLOT_TAG(slot) == tag) << i;
    }
}
#endif

/* The first row with the tag, or FPS_NO_ROW; then the next. */
uint32_t fps_index_first(const fps_index *index, uint32_t tag, fps_search *search);
uint32_t fps_index_next(const fps_index *index, fps_search *search);

/* For the following functions the caller holds the table's lock. */

bool fps_index_has_room(const fps_table *t, uint64_t more);

/* Reserves room for `more` rows; builds a new index if necessary. FPS_NO_MEMORY with nothing changed. */
fps_status fps_index_reserve(const fps_arena *arena, const fps_table *t, uint64_t more);

/* Adds a row whose key is not in the index; room was reserved. */
void fps_index_insert(const fps_table *t, uint32_t tag, uint32_t row);

/* Removes the row, which the index has. */
void fps_index_remove(const fps_table *t, uint32_t tag, uint32_t row);

#endif

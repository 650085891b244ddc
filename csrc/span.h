/* Runs of elements in a shard and in the caller's buffers, and copies from and to these. */
#ifndef FPS_SPAN_H
#define FPS_SPAN_H

#include <stdbool.h>
#include <stdint.h>

#include "copy.h"

/* A run of elements of one dtype: its position in the shard, and in one of the caller's buffers. */
typedef struct fps_span {
    uint64_t position; /* bytes from the start of params, a multiple of item_bytes; sorted, without overlap */
    uint64_t bytes;
    uint64_t buffer_offset; /* bytes from the start of the buffer, where its elements have item_bytes */
    uint32_t buffer;
    uint32_t rule;
    uint32_t item_bytes; /* 4 or 8; 1 for what is carried */
    uint32_t leaf;       /* the number of the array of which these are elements */
} fps_span;

/* The byte in the caller's buffer of the element at `position` of params. */
static inline uint64_t fps_span_offset(const fps_span *span, uint64_t position)
{
    return span->buffer_offset + (position - span->position);
}

/* `bytes` of the span's elements from `position` of params on, as the caller's buffer has them. Those of half precision
 * (`halves`: per buffer its type) are widened into `wide`, which has room for that many bytes. */
const void *fps_span_widened(const fps_span *span, const void *const *buffers, const uint8_t *halves, uint64_t position,
                             uint64_t bytes, float *wide);

/* The same; `halves` may be NULL. */
static inline const void *fps_span_read(const fps_span *span, const void *const *buffers, const uint8_t *halves,
                                        uint64_t position, uint64_t bytes, float *wide)
{
    if (halves) return fps_span_widened(span, buffers, halves, position, bytes, wide);
    return (const uint8_t *)buffers[span->buffer] + fps_span_offset(span, position);
}

/* Copies `bytes` of values into the caller's buffer, to the span's elements from `position` on; `streaming` bypasses
 * the caches. Rounds them where the buffer is of half precision. */
void fps_span_narrowed(const fps_span *span, void *const *buffers, const uint8_t *halves, uint64_t position,
                       uint64_t bytes, const void *values, bool streaming);

/* The same; `halves` may be NULL. */
static inline void fps_span_write(const fps_span *span, void *const *buffers, const uint8_t *halves, uint64_t position,
                                  uint64_t bytes, const void *values, bool streaming)
{
    uint8_t *to = (uint8_t *)buffers[span->buffer] + fps_span_offset(span, position);
    if (halves)
        fps_span_narrowed(span, buffers, halves, position, bytes, values, streaming);
    else if (streaming)
        fps_copy_stream(to, values, bytes);
    else
        fps_copy(to, values, bytes);
}

#endif

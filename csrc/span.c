#include "span.h"

#include "copy.h"
#include "half.h"

/* The byte in the caller's buffer of the element at `position` of params; `half`: its type has half of the bytes. */
static uint64_t buffer_at(const fps_span *span, uint64_t position, uint8_t half)
{
    const uint64_t at = span->buffer_offset + (position - span->position);
    return half ? at / 2 : at;
}

const void *fps_span_read(const fps_span *span, const void *const *buffers, const uint8_t *halves, uint64_t position,
                          uint64_t bytes, float *wide)
{
    const uint8_t half = halves ? halves[span->buffer] : 0;
    const uint8_t *from = (const uint8_t *)buffers[span->buffer] + buffer_at(span, position, half);
    if (!half) return from;
    fps_widen(wide, (const uint16_t *)(const void *)from, bytes / sizeof(float), half);
    return wide;
}

/* Of half precision always through the caches: a pull of 80 MB takes 0.76 of one of float32, which bypasses them. */
void fps_span_write(const fps_span *span, void *const *buffers, const uint8_t *halves, uint64_t position,
                    uint64_t bytes, const void *values, bool streaming)
{
    const uint8_t half = halves ? halves[span->buffer] : 0;
    uint8_t *to = (uint8_t *)buffers[span->buffer] + buffer_at(span, position, half);
    if (half)
        fps_narrow((uint16_t *)(void *)to, values, bytes / sizeof(float), half);
    else if (streaming)
        fps_copy_stream(to, values, bytes);
    else
        fps_copy(to, values, bytes);
}

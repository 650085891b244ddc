#include "span.h"

#include "half.h"

const void *fps_span_widened(const fps_span *span, const void *const *buffers, const uint8_t *halves, uint64_t position,
                             uint64_t bytes, float *wide)
{
    const uint8_t half = halves[span->buffer];
    const uint8_t *buffer = buffers[span->buffer];
    const uint64_t at = fps_span_offset(span, position);
    if (!half) return buffer + at;
    fps_widen(wide, (const uint16_t *)(const void *)(buffer + at / 2), bytes / sizeof(float), half);
    return wide;
}

/* Of half precision always through the caches: a pull of 80 MB takes 0.76 of one of float32, which bypasses them. */
void fps_span_narrowed(const fps_span *span, void *const *buffers, const uint8_t *halves, uint64_t position,
                       uint64_t bytes, const void *values, bool streaming)
{
    const uint8_t half = halves[span->buffer];
    const uint64_t at = fps_span_offset(span, position);
    uint8_t *buffer = buffers[span->buffer];
    if (half)
        fps_narrow((uint16_t *)(void *)(buffer + at / 2), values, bytes / sizeof(float), half);
    else
        fps_span_write(span, buffers, NULL, position, bytes, values, streaming);
}

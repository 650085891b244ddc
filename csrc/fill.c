#include "fill.h"

#include <string.h>

#include "copy.h"

void fps_fill(const fps_arena *arena, const fps_span *spans, uint32_t n_spans, const void *const *values)
{
    for (uint32_t i = 0; i < n_spans; i++) {
        const fps_span *s = &spans[i];
        fps_copy(arena->params + s->position, (const uint8_t *)values[s->buffer] + s->buffer_offset, s->bytes);
    }
}

void fps_fill_stream(const fps_arena *arena, const fps_span *span, uint32_t stream, double value)
{
    uint8_t *to = fps_arena_stream(arena, stream) + span->position;
    const float narrow = (float)value;
    for (uint64_t i = 0; i < span->bytes; i += span->item_bytes) {
        if (span->item_bytes == sizeof value)
            memcpy(to + i, &value, sizeof value);
        else
            memcpy(to + i, &narrow, sizeof narrow);
    }
}

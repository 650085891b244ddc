#include "fill.h"

#include <string.h>

#include "copy.h"

static void fill_steps(const fps_call *call, fps_part *part)
{
    const fps_arena *arena = part->session->arena;
    if (arena->layout.n_versions > 1) {
        fps_store_relaxed(&arena->header->updates[0], fps_call_most_steps(part, part->n_spans));
        part->wholes = 0; /* each version has the counts themselves */
    } else {
        fps_call_begin_steps(call, part);
    }
    for (uint32_t i = 0; i < part->n_spans; i++)
        fps_store_relaxed(&fps_arena_counts(arena, 0)[part->spans[i].leaf], part->steps[i] - part->wholes);
}

void fps_fill(const fps_call *call)
{
    for (uint32_t p = 0; p < call->n_parts; p++) {
        fps_part *part = &call->parts[p];
        if (part->steps) fill_steps(call, part);
        for (uint32_t i = 0; i < part->n_spans; i++) {
            const fps_span *s = &part->spans[i];
            for (uint32_t k = 0; k < call->n_streams; k++) {
                const uint32_t stream = fps_call_stream(call, k, s);
                if (stream == FPS_NO_STREAM) continue;
                const uint8_t *values = call->grads[k * call->n_buffers + s->buffer];
                fps_copy(fps_arena_stream(part->session->arena, stream) + s->position, values + s->buffer_offset,
                         s->bytes);
            }
        }
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

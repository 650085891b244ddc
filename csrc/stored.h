/* Values of a row as callers have them, and as the row holds them: in half precision, if the table says so. */
#ifndef FPS_STORED_H
#define FPS_STORED_H

#include <stdint.h>
#include <string.h>

#include "half.h"
#include "plan.h"

static inline void fps_stored_get(const fps_table *t, uint32_t stream, uint8_t *to, const uint8_t *held)
{
    if (stream == 0 && t->layout.stored)
        fps_widen((float *)(void *)to, (const uint16_t *)(const void *)held, t->layout.dim, t->layout.stored);
    else
        memcpy(to, held, t->bytes[stream]);
}

/* Where to read what a row holds, if it is then to become a stream of its values at `to`, by fps_stored_landed. */
static inline uint8_t *fps_stored_landing(const fps_table *t, uint32_t stream, uint8_t *to)
{
    return to + (t->bytes[stream] - t->held[stream]);
}

/* In pieces, each of which is read before the place that it had is written. */
static inline void fps_stored_landed(const fps_table *t, uint32_t stream, uint8_t *to)
{
    enum { PIECE = 64 };
    uint16_t piece[PIECE];
    const uint8_t *from = fps_stored_landing(t, stream, to);
    if (from == to) return;
    for (uint32_t i = 0; i < t->layout.dim; i += PIECE) {
        const uint32_t n = t->layout.dim - i < PIECE ? t->layout.dim - i : PIECE;
        memcpy(piece, from + i * sizeof *piece, n * sizeof *piece);
        fps_widen((float *)(void *)to + i, piece, n, t->layout.stored);
    }
}

/* To nearest. */
static inline void fps_stored_put(const fps_table *t, uint32_t stream, uint8_t *held, const uint8_t *from)
{
    if (stream == 0 && t->layout.stored)
        fps_narrow((uint16_t *)(void *)held, (const float *)(const void *)from, t->layout.dim, t->layout.stored);
    else
        memcpy(held, from, t->bytes[stream]);
}

#endif

/* What an operation does with a piece of a shard, whose stripe is locked: it reads it, runs the rule's kernel on it or
 * sets it, block by block. */
#ifndef FPS_PIECE_H
#define FPS_PIECE_H

#include <stdbool.h>
#include <stdint.h>

#include "call.h"

/* Constant while one part is run. */
typedef struct fps_walk fps_walk;

/* Executes the operation on the elements of a span in [from, to) of params. */
typedef void (*fps_piece)(const fps_walk *w, const fps_span *span, uint64_t from, uint64_t to);

struct fps_walk {
    const fps_call *call;
    fps_part *part;
    const fps_arena *arena;
    fps_seat *seat;
    uint64_t end; /* of params, or of the last span that a partial operation has */
    const fps_span *spans;
    uint32_t n_spans;
    uint32_t span;  /* the first span that ends after the position */
    bool streaming; /* writes to outs bypass the caches */
    bool varies;    /* it pushes, and arrays are at different steps */
    uint64_t block_bytes;
    fps_piece run_piece;
};

fps_piece fps_piece_of(fps_kind kind);

/* Where arrays are at different steps: counts a partial push of an array with its first byte, and computes its
 * uniforms. They stay for all of the span: others that follow this push may have counted theirs when it goes on. */
void fps_walk_begin_span(const fps_walk *w, const fps_span *span, uint64_t from);

static inline fps_walk fps_walk_of(const fps_call *call, fps_part *part, bool streaming)
{
    const fps_arena *arena = part->session->arena;
    fps_walk w = {
        .call = call,
        .part = part,
        .arena = arena,
        .seat = part->session->seat,
        .end = arena->layout.params_bytes,
        .streaming = streaming,
        .block_bytes = arena->layout.block_bytes,
        .run_piece = fps_piece_of(call->kind),
    };
    if (fps_kind_reads(call->kind) && w.block_bytes > FPS_BLOCK_BYTES) w.block_bytes = FPS_BLOCK_BYTES;
    w.spans = fps_call_spans(call, part, &w.n_spans);
    return w;
}

/* Executes the operation on the elements in [from, to) of params; ranges come in their order. */
static inline void fps_walk_range(fps_walk *w, uint64_t from, uint64_t to)
{
    for (; w->span < w->n_spans; w->span++) {
        const fps_span *span = &w->spans[w->span];
        uint64_t span_end = span->position + span->bytes;
        if (span->position >= to) return;
        uint64_t lo = span->position > from ? span->position : from, hi = span_end < to ? span_end : to;
        if (lo < hi && w->varies) fps_walk_begin_span(w, span, lo);
        if (lo < hi) w->run_piece(w, span, lo, hi);
        if (span_end > to) return; /* the rest belongs to the next stripe */
    }
}

#endif

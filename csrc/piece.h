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

fps_walk fps_walk_of(const fps_call *call, fps_part *part, bool streaming);

/* Executes the operation on the elements in [from, to) of params; ranges come in their order. */
void fps_walk_range(fps_walk *w, uint64_t from, uint64_t to);

#endif

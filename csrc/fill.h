/* The values with which a shard begins: in an arena that no other process has opened yet. */
#ifndef FPS_FILL_H
#define FPS_FILL_H

#include <stdint.h>

#include "arena.h"
#include "call.h"
#include "span.h"

/* A call of kind FPS_SET on all arrays of all parts, without locks or records. */
void fps_fill(const fps_call *call);

/* Sets a stream of one span to one value. */
void fps_fill_stream(const fps_arena *arena, const fps_span *span, uint32_t stream, double value);

#endif

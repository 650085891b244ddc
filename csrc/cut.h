/* A consistent cut: the state of several shards at one moment, at which every push has entered all of its shards or
 * none.
 *
 * A push enters a shard under the lock of its first stripe. One of several shards marks its seat in the first that it
 * enters, until it has entered the last. Whoever holds the first stripes of all shards and finds no mark has a cut; it
 * then walks all shards at once, and pushes follow it. While it finds marks, or does not get all of the locks, it asks
 * pushes that have not begun to wait, for a while that ends by itself: nobody depends on who asked. */
#ifndef FPS_CUT_H
#define FPS_CUT_H

#include <stdbool.h>
#include <stdint.h>

#include "call.h"
#include "piece.h"
#include "status.h"

/* Under the lock of the first stripe of a part: notes that an operation of several shards, which writes, enters it.
 * False: it shall wait, since a cut is being made and it has entered no shard. */
bool fps_cut_admits(fps_call *call, const fps_part *part);

/* Gives the lock back, and takes it again when the push is admitted. */
fps_status fps_cut_wait(fps_call *call, const fps_part *part, const fps_wait *wait);

/* The push has ended, on all of its shards or with an error on some. */
static inline void fps_cut_leave(const fps_call *call)
{
    if (call->entry) fps_store32_relaxed(&call->entry->elsewhere, 0); /* locks of first stripes order it */
}

/* A pull, or FPS_GET, of all arrays of all parts at one moment. If it does not return FPS_OK, `*at` is the part that
 * stopped, and the contents of `outs` are undefined; run again, it begins anew. */
fps_status fps_cut_read(fps_call *call, bool streaming, uint32_t *at);

#endif

/* Operations on the parameters of shards: pull, push, push_pull. Any process that has mapped the arena executes them.
 *
 * An operation walks the stripes of a shard hand over hand: it takes the next stripe's lock before it releases this
 * one's. So no operation overtakes another, each sees and leaves a whole number of pushes, and several operations
 * follow each other through one shard.
 *
 * A push works block by block. The kernel reads parameters and gradient and writes the new values to the session's redo
 * block, which stays in the first-level cache; the steps of redo.h copy them into place. So no block is ever half
 * updated, and the byte where a push stopped is known. */
#ifndef FPS_DENSE_H
#define FPS_DENSE_H

#include <stdint.h>

#include "arena.h"
#include "call.h"
#include "lock.h"
#include "status.h"

/* Runs the parts that are not done. If it does not return FPS_OK, `*at` is the part that stopped; parts before and
 * after it may be done, and the contents of `outs` are undefined. */
fps_status fps_dense_run(fps_call *call, uint32_t *at);

/* Changes hyper-parameters of a rule atomically, for every push that enters from now on. Those whose bit in `which` is
 * 0 are kept. */
fps_status fps_dense_configure(const fps_arena *arena, uint32_t rule, uint32_t which, const double *values,
                               const fps_wait *wait);
static inline void fps_dense_hyper(const fps_arena *arena, uint32_t rule, double *values)
{
    fps_hyper_read(&arena->header->hyper[rule], values);
}

#endif

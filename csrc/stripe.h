/* Stripes: the locks of a shard, in the order in which every operation walks them, and their repair after a death. */
#ifndef FPS_STRIPE_H
#define FPS_STRIPE_H

#include <stdint.h>

#include "arena.h"
#include "lock.h"
#include "status.h"

/* Takes the lock of a stripe. If its holder died, first finishes the block that the holder had committed. */
fps_status fps_stripe_enter(const fps_arena *arena, uint32_t stripe, const fps_wait *wait);
void fps_stripe_leave(const fps_arena *arena, uint32_t stripe);

#endif

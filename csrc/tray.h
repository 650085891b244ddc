/* Trays: a worker's gradients of a round, until the round is applied. A tray belongs to a rank; its record says which
 * worker of that rank filled it, for which round, and with how many gradients. */
#ifndef FPS_TRAY_H
#define FPS_TRAY_H

#include <stdint.h>

#include "arena.h"
#include "call.h"
#include "clock.h"
#include "status.h"

/* A gradient to be put into a tray. */
typedef struct fps_deposit {
    uint32_t rank;
    uint32_t number;     /* gradients of this worker for this round, this one included; number 1 replaces all before */
    uint64_t generation; /* of the rank */
    uint64_t attempt; /* grows with every deposit of a generation: one that arrives twice, or late, changes nothing */
    uint64_t round;
} fps_deposit;

/* Puts the part's gradient into the worker's tray, scaled and clipped, or adds it to the contents. FPS_EXPELLED when
 * the tray is not, or no longer, the worker's; FPS_MIXED when its contents have not been read yet. */
fps_status fps_tray_deposit(const fps_call *call, const fps_deposit *deposit, const fps_part *part);

/* A block of the gradients that count, reduced in the order of ranks: in `sum`, or in a tray if there is only one.
 * `weights`: of the decision's ranks, how many gradients the tray has there. They are not all 0. */
const void *fps_trays_reduce(const fps_arena *arena, const fps_decision *decision, const uint32_t *weights,
                             uint64_t from, uint64_t bytes, uint32_t item_bytes, void *sum);

#endif

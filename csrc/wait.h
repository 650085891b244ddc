/* Waiting for what somebody else has: one object for all who do, and one table (wait.c) of how each goes about it.
 *
 *      fps_waiting w = fps_waiting_for(FPS_WAIT_SEAT, wait, header);
 *      while (!it_is_ours()) {
 *          fps_status status = fps_waiting_step(&w);
 *          if (status != FPS_OK) return status;
 *      }
 *
 * A step takes a moment, at first a short one, and longer ones when nothing comes of those. The clock is read for the
 * first time in a step, so who finds at once what it wants has waited for nothing. */
#ifndef FPS_WAIT_H
#define FPS_WAIT_H

#include <stdbool.h>
#include <stdint.h>

#include "layout.h"
#include "status.h"

#define FPS_NO_WAIT 0
#define FPS_NEVER INT64_MAX

/* For what. */
typedef enum fps_manner {
    FPS_WAIT_SHORT = 0, /* a lock: its holder may be about to leave, or may need this core */
    FPS_WAIT_BEHIND,    /* a lock whose holder walks the stripes in front of us, on another core */
    FPS_WAIT_AWAY,      /* a lock of what fits a cache and is best left to one core for a while */
    FPS_WAIT_ROW,       /* a row of a table that somebody writes */
    FPS_WAIT_TURN,      /* another one's turn to apply a round, or what comes of it */
    FPS_WAIT_VERSION,   /* a version that nobody holds */
    FPS_WAIT_SEAT,      /* a seat of the dead that somebody else is at */
    FPS_WAIT_CLOCK      /* other workers' clocks */
} fps_manner;

/* How long to wait, who may call it off, and what waiting cost. */
typedef struct fps_wait {
    int64_t deadline_ns;             /* CLOCK_MONOTONIC; FPS_NO_WAIT: do not wait; FPS_NEVER: no deadline */
    int (*interrupted)(void *state); /* asked every 50 ms of sleep; nonzero ends the wait; may be NULL */
    void *state;
    fps_meters *meters;       /* where waits are counted; may be NULL */
    const fps_header *header; /* of the arena that a lock is in: asked as often whether it still is; may be NULL */
    fps_manner manner;        /* in which locks are waited for */
} fps_wait;

/* One wait that is under way. */
typedef struct fps_waiting {
    const fps_wait *wait;
    const fps_header *header; /* of the arena that it is about; may be NULL */
    fps_manner manner;
    uint32_t looks, naps; /* so far */
    bool spins;           /* the next look comes in a moment */
    bool slept;           /* neither spinning nor a few naps ended it */
    int64_t started_ns, asked_ns;
    int64_t until_ns; /* the caller sleeps where it is woken, until then at the longest; 0: it looks again at once */
} fps_waiting;

static inline fps_waiting fps_waiting_for(fps_manner manner, const fps_wait *wait, const fps_header *header)
{
    return (fps_waiting){.wait = wait, .header = header, .manner = manner};
}

/* After a look that found nothing. FPS_OK: look again, after a sleep where `until_ns` says so. FPS_BUSY for who does
 * not wait; FPS_TIMEOUT, FPS_INTERRUPTED, or the state of an arena that was closed or whose owner has died. */
fps_status fps_waiting_step(fps_waiting *w);

/* The clock was read, and spinning did not help. */
static inline bool fps_waiting_has_spun(const fps_waiting *w) { return w->started_ns != 0 && !w->spins; }

/* Counts a wait that ended as `status` in its meters, if it took a step. */
void fps_waiting_count(const fps_waiting *w, fps_status status);

int64_t fps_now_ns(void);

#endif

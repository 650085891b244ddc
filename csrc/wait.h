/* Waiting for something that another thread holds: one object for all kinds of waits, and one table (wait.c) of how.
 *
 *      fps_waiting w = fps_waiting_for(FPS_WAIT_SEAT, wait, header);
 *      while (!it_is_ours()) {
 *          fps_status status = fps_waiting_step(&w);
 *          if (status != FPS_OK) return status;
 *      }
 *
 * A step takes a moment, which grows with further steps. The clock is first read in a step, so success at the first
 * look costs nothing. */
#ifndef FPS_WAIT_H
#define FPS_WAIT_H

#include <stdbool.h>
#include <stdint.h>

#include "layout.h"
#include "status.h"

#define FPS_NO_WAIT 0
#define FPS_NEVER INT64_MAX

/* What is waited for. */
typedef enum fps_manner {
    FPS_WAIT_SHORT = 0, /* a lock: its holder may be about to leave, or may need this core */
    FPS_WAIT_BEHIND,    /* a lock whose holder walks the stripes ahead of the caller, on another core */
    FPS_WAIT_AWAY,      /* a lock of data that fits a cache and is best left to one core for a while */
    FPS_WAIT_CUT,       /* pushes that have entered some of their shards, or those who wait for these */
    FPS_WAIT_ROW,       /* a row of a table that is being written */
    FPS_WAIT_TURN,      /* another session's turn to apply a round, or its result */
    FPS_WAIT_VERSION,   /* a version that is not pinned */
    FPS_WAIT_SEAT,      /* a dead owner's seat that another process takes or repairs */
    FPS_WAIT_CLOCK      /* other workers' clocks */
} fps_manner;

/* How long to wait, what may interrupt it, and where its cost is counted. */
typedef struct fps_wait {
    int64_t deadline_ns;             /* CLOCK_MONOTONIC; FPS_NO_WAIT: do not wait; FPS_NEVER: no deadline */
    int (*interrupted)(void *state); /* asked between naps and sleeps, see wait.c; nonzero ends the wait; may be NULL */
    void *state;
    fps_meters *meters;       /* where waits are counted; may be NULL */
    const fps_header *header; /* of the arena of a lock, whose state is checked as often; may be NULL */
    fps_manner manner;        /* how to wait for locks */
} fps_wait;

/* One wait that is under way. */
typedef struct fps_waiting {
    const fps_wait *wait;
    const fps_header *header; /* of its arena; may be NULL */
    fps_manner manner;
    uint32_t looks, naps; /* so far */
    bool spins;           /* spinning: the next look is soon */
    bool slept;           /* it took longer than spinning and a few naps */
    int64_t started_ns, asked_ns;
    int64_t until_ns; /* the caller sleeps until woken, at most until then; 0: it looks again at once */
} fps_waiting;

static inline fps_waiting fps_waiting_for(fps_manner manner, const fps_wait *wait, const fps_header *header)
{
    return (fps_waiting){.wait = wait, .header = header, .manner = manner};
}

/* Called after a look without success. FPS_OK: look again, after a sleep if `until_ns` says so. FPS_BUSY if the caller
 * does not wait; FPS_TIMEOUT, FPS_INTERRUPTED, or the state of an arena that was closed or whose owner has died. */
fps_status fps_waiting_step(fps_waiting *w);

/* Whether the spinning phase has ended without success. */
static inline bool fps_waiting_has_spun(const fps_waiting *w) { return w->started_ns != 0 && !w->spins; }

/* Counts a wait that ended with `status` in its meters, if it took a step. */
void fps_waiting_count(const fps_waiting *w, fps_status status);

int64_t fps_now_ns(void);

#endif

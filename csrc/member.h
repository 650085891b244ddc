/* A worker that takes part in clocks and rounds: joining, waiting, ending steps, and putting out who died.
 *
 * Called by worker processes on the board's node, and by the coordinator's process for workers elsewhere. A worker on
 * this node lives while it holds its life lock; one elsewhere until its lease ends. Nobody watches: whoever waits looks
 * after those it waits for. */
#ifndef FPS_MEMBER_H
#define FPS_MEMBER_H

#include "arena.h"
#include "clock.h"
#include "lock.h"
#include "status.h"

#define FPS_ANY_RANK UINT32_MAX

typedef struct fps_worker {
    const fps_arena *arena; /* of shard 0 */
    fps_roster roster;
    uint32_t rank;
    uint64_t generation; /* of the rank: another one means that somebody else has it */
    int64_t lease_ns;    /* how long it lives without a word; 0: it is in this process */
    uint32_t process;    /* fps_life_generation of the process that joined: a fork is another one */
} fps_worker;

/* Takes `rank`, or the first free one. FPS_FULL: no rank is free; FPS_BUSY: this one is not. */
fps_status fps_worker_join(const fps_arena *arena, uint32_t rank, int64_t lease_ns, const fps_wait *wait,
                           fps_worker *out);
/* Speaks for a worker elsewhere in the place of a process that has died: its rank, of this generation, lives until its
 * lease ends. */
void fps_worker_adopt(const fps_arena *arena, uint32_t rank, uint64_t generation, int64_t lease_ns, fps_worker *out);
void fps_worker_leave(fps_worker *worker);

/* The answers below are FPS_EXPELLED when the others went on without this worker: it died in their eyes. Returning
 * gives it a clock where they are now. */
fps_status fps_worker_return(fps_worker *worker, const fps_wait *wait);

/* Waits until a worker of its clock may begin. `*clock` is its clock, `*progress` what the others have reached. */
fps_status fps_worker_begin(fps_worker *worker, const fps_wait *wait, uint64_t *clock, uint64_t *progress);

/* Ends the step that began at this clock: ending it twice is ending it once. */
fps_status fps_worker_end_step(fps_worker *worker, uint64_t clock, const fps_wait *wait);
fps_status fps_worker_give(fps_worker *worker, uint64_t round, uint32_t weight, const fps_wait *wait, bool *counted);

/* BSP: it has read what `round` rounds have made, perhaps later ones than its clock says. */
fps_status fps_worker_catch_up(fps_worker *worker, uint64_t round, const fps_wait *wait);

/* Prolongs a lease. No word of a straggler: it may come from another thread than the one that others wait for. */
fps_status fps_worker_renew(fps_worker *worker, const fps_wait *wait);

/* The first worker that others wait for; n_members when there is none: for messages. */
uint32_t fps_board_blocker(const fps_roster *r);

fps_roster fps_board_roster(const fps_arena *arena);

#endif

/* Workers that take part in clocks and rounds: joining, waiting, ending steps, and expelling workers that died.
 *
 * Called by worker processes on the board's node, and by the coordinator's process for workers on other nodes. A worker
 * on this node lives while it holds its life lock; one elsewhere until its lease ends. There is no watchdog: a waiting
 * worker checks those that it waits for. */
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
    uint64_t generation; /* of the rank; if it differs, another worker has the rank */
    int64_t lease_ns;    /* how long it lives without renewal; 0: it is in this process */
    uint32_t process;    /* fps_life_generation of the process that joined: differs after a fork */
    bool has_left;       /* by another thread, perhaps, that finds this worker waiting: the rest stays as it is */
} fps_worker;

/* Takes `rank`, or the first free one. FPS_FULL: no rank is free; FPS_BUSY: `rank` is not. */
fps_status fps_worker_join(const fps_arena *arena, uint32_t rank, int64_t lease_ns, const fps_wait *wait,
                           fps_worker *out);
/* Represents a worker on another node in place of a process that has died: its rank, with this generation, lives until
 * its lease ends. */
void fps_worker_adopt(const fps_arena *arena, uint32_t rank, uint64_t generation, int64_t lease_ns, fps_worker *out);
/* Idempotent. Functions that another thread is in return FPS_EXPELLED. */
void fps_worker_leave(fps_worker *worker);

/* The functions below return FPS_EXPELLED once the worker was expelled, or has left. fps_worker_return rejoins, at the
 * clock of the others; from then on `generation` is the worker's. FPS_BUSY: another worker has its rank. */
fps_status fps_worker_return(const fps_worker *worker, const fps_wait *wait, uint64_t *generation);

/* Waits until the worker may begin. `*clock` is its clock, `*progress` that of the board. */
fps_status fps_worker_begin(const fps_worker *worker, const fps_wait *wait, uint64_t *clock, uint64_t *progress);

/* Ends the step that began at this clock. Idempotent. */
fps_status fps_worker_end_step(const fps_worker *worker, uint64_t clock, const fps_wait *wait);
fps_status fps_worker_give(const fps_worker *worker, uint64_t round, uint32_t weight, const fps_wait *wait,
                           bool *counted);

/* BSP: it has read the parameters after `round` rounds, which may be more than its clock. */
fps_status fps_worker_catch_up(const fps_worker *worker, uint64_t round, const fps_wait *wait);

/* Renews the lease. It is no sign of life for the straggler timeout, since it may come from another thread. */
fps_status fps_worker_renew(const fps_worker *worker, const fps_wait *wait);

/* The first worker that others wait for; n_members if none: for messages. */
uint32_t fps_board_blocker(const fps_roster *r);

fps_roster fps_board_roster(const fps_arena *arena);

#endif

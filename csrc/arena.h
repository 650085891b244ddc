/* An arena: the shared memory of one shard. Created by its owner, opened by peers on the same node, unmapped by each.
 */
#ifndef FPS_ARENA_H
#define FPS_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "layout.h"
#include "lock.h"
#include "plan.h"
#include "status.h"

/* A process's view of an arena. `layout` is a private copy: nothing is read from shared memory as an offset later. */
typedef struct fps_arena {
    fps_layout layout;
    uint8_t *base;
    int fd;
    bool owner; /* this process, or one that it was forked from, created it */
    fps_header *header;
    fps_seat *seats;
    fps_stripe *stripes;
    fps_board *board;
    fps_member *members;
    fps_tray *trays;
    uint8_t *redo;
    uint8_t *params;
    uint8_t *slots;
    fps_table *tables;
} fps_arena;

/* A process's view of a session, which it has opened. */
typedef struct fps_session {
    const fps_arena *arena;
    fps_seat *seat;
    uint32_t index; /* of the seat */
    uint64_t seq;   /* the last sequence number that this session gave to a push: numbers of a seat only grow */
} fps_session;

/* Stream 0 is params, stream k slot k - 1. */
static inline uint8_t *fps_arena_stream(const fps_arena *arena, uint32_t stream)
{
    return stream == 0 ? arena->params : arena->slots + (stream - 1) * arena->layout.slot_stride;
}

static inline uint8_t *fps_arena_version(const fps_arena *arena, uint32_t version, uint32_t stream)
{
    return fps_arena_stream(arena, stream) + version * arena->layout.version_stride;
}

static inline uint8_t *fps_arena_tray(const fps_arena *arena, uint32_t rank)
{
    return arena->base + arena->layout.trays_offset + rank * arena->layout.tray_stride;
}

/* Where a session puts a stream's results. */
static inline uint8_t *fps_arena_redo(const fps_arena *arena, uint32_t seat, uint32_t stream)
{
    return arena->redo + (uint64_t)seat * arena->layout.redo_bytes +
           (uint64_t)stream * (arena->layout.block_bytes + FPS_STREAM_APART);
}

/* A row of a table, and the words of its head. */
static inline uint8_t *fps_row_at(const fps_table *t, uint32_t row)
{
    return t->rows + (uint64_t)row * t->layout.row_bytes;
}

static inline fps_word *fps_row_key(uint8_t *row) { return (fps_word *)(void *)row; }
static inline fps_word *fps_row_word(uint8_t *row) { return (fps_word *)(void *)row + 1; }
static inline fps_word32 *fps_row_seen(uint8_t *row) { return (fps_word32 *)(void *)((fps_word *)(void *)row + 2); }
static inline fps_word32 *fps_row_count(uint8_t *row) { return fps_row_seen(row) + 1; }

/* Allocates, pre-faults, seals, initialises and locks the owner's life lock. Nothing is left behind on an error. */
fps_status fps_arena_create(const fps_arena_spec *spec, fps_arena *out);

/* Maps the arena behind `fd`, which it takes over on success only. */
fps_status fps_arena_open(int fd, const uint8_t arena_id[16], fps_arena *out);

/* Tells everybody that nobody should go on, and gives the memory back, all but the locks and records. For the owner,
 * and when its life is over for anybody: FPS_NOT_ABANDONED while it lives, elsewhere. Twice is as good as once, and
 * several at once as good as one. An operation that is under way reads zeros, or writes a part of the memory anew, and
 * answers FPS_CLOSED. */
fps_status fps_arena_retire(const fps_arena *arena);

/* Unmaps in this process, after every session of it was closed; an owner retires first. Twice is as good as once, but
 * one after the other. */
void fps_arena_close(fps_arena *arena);

/* Gives memory to a version or a tray that has none yet. Twice is as good as once. */
fps_status fps_arena_back_version(const fps_arena *arena, uint32_t version);
fps_status fps_arena_back_tray(const fps_arena *arena, uint32_t rank);

/* Gives memory to [from, from + bytes) of a table, of which the first `backed` have some; answers in `backed` how many
 * have now. `from` is a multiple of 2 MiB. Huge pages where the kernel has them: it gives shared memory none by itself
 * unless it is told to, but does so when it is asked for each one. */
fps_status fps_arena_extend(const fps_arena *arena, uint8_t *from, uint64_t bytes, uint64_t *backed);

/* Takes the memory of a multiple of 2 MiB back: it reads as zeros. */
void fps_arena_release(const fps_arena *arena, uint8_t *from, uint64_t bytes);

/* FPS_OK, FPS_CLOSED or FPS_OWNER_DIED, for the price of two loads from one cache line. */
fps_status fps_arena_state(const fps_arena *arena);

/* fps_lock_acquire of a lock in the arena: the wait ends, with that state, when the arena is closed or its owner dies.
 */
fps_status fps_arena_lock(const fps_arena *arena, pthread_mutex_t *lock, const fps_wait *wait, bool *abandoned);

#endif

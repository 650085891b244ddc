/* An arena: the shared memory of one shard. Created by its owner, opened by peers on the same node. */
#ifndef FPS_ARENA_H
#define FPS_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "layout.h"
#include "lock.h"
#include "plan.h"
#include "status.h"

/* A process's view of an arena. `layout` is a private copy: offsets are never read from shared memory again. */
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
    uint64_t seq;   /* sequence number of this session's last push; the numbers of a seat only grow */
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

/* Of each array, in a version. */
static inline fps_word *fps_arena_counts(const fps_arena *arena, uint32_t version)
{
    return (fps_word *)(void *)(arena->base + arena->layout.counts_offset + version * arena->layout.version_stride);
}

static inline uint8_t *fps_arena_tray(const fps_arena *arena, uint32_t rank)
{
    return arena->base + arena->layout.trays_offset + rank * arena->layout.tray_stride;
}

/* Of each array, how many gradients are in a tray. */
static inline fps_word32 *fps_arena_given(const fps_arena *arena, uint32_t rank)
{
    return (fps_word32 *)(void *)(fps_arena_tray(arena, rank) + fps_line_up(arena->layout.params_bytes));
}

/* The redo block of a session for a stream. */
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

/* The word of a row after a write or its creation. */
static inline uint64_t fps_row_next(const fps_table *t, uint64_t word)
{
    const uint64_t epoch = atomic_load_explicit(&t->control->epoch, memory_order_seq_cst); /* SYNC row-epoch */
    return FPS_ROW_WORD(epoch, (word & ~UINT64_C(0xfff)) + FPS_ROW_ONCE);
}

/* Allocates, pre-faults, seals, initialises and locks the owner's life lock. Nothing is left behind on an error. */
fps_status fps_arena_create(const fps_arena_spec *spec, fps_arena *out);

/* Maps the arena behind `fd`, which it takes over on success only. */
fps_status fps_arena_open(int fd, const uint8_t arena_id[16], fps_arena *out);

/* Marks the arena as closed and frees its memory, except locks and records. The owner may call it at any time, others
 * once the owner has died: FPS_NOT_ABANDONED while it lives. Idempotent, also concurrently. Operations under way read
 * zeros, or fault pages in again, and return FPS_CLOSED. */
fps_status fps_arena_retire(const fps_arena *arena);

/* Unmaps the arena in this process, after all its sessions here were closed; the owner retires it first. Idempotent,
 * but not to be called concurrently. */
void fps_arena_close(fps_arena *arena);

/* Allocates the memory of a version or a tray. Idempotent. */
fps_status fps_arena_back_version(const fps_arena *arena, uint32_t version);
fps_status fps_arena_back_tray(const fps_arena *arena, uint32_t rank);

/* Allocates [from, from + bytes) of a table, of which the first `backed` bytes are allocated already, and updates
 * `backed`. `from` is a multiple of 2 MiB. Uses huge pages if the kernel has them: by default it gives shared memory
 * none by itself, but does so on request for each one. */
fps_status fps_arena_extend(const fps_arena *arena, uint8_t *from, uint64_t bytes, uint64_t *backed);

/* Frees a multiple of 2 MiB, which then reads as zeros. */
void fps_arena_release(const fps_arena *arena, uint8_t *from, uint64_t bytes);

/* FPS_OK, FPS_CLOSED or FPS_OWNER_DIED. Cost: two loads from one cache line. */
fps_status fps_arena_state(const fps_arena *arena);

/* fps_lock_acquire for a lock in the arena: the wait also ends, with that state, when the arena is closed or its owner
 * dies. */
fps_status fps_arena_lock(const fps_arena *arena, pthread_mutex_t *lock, const fps_wait *wait, bool *abandoned);

#endif

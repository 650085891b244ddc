/* An arena: the shared memory of one shard. Created by its owner, opened by peers on the same node, unmapped by each.
 */
#ifndef FPS_ARENA_H
#define FPS_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "layout.h"
#include "lock.h"
#include "status.h"

/* What to create. */
typedef struct fps_arena_spec {
    uint8_t arena_id[16];
    uint32_t shard_index;
    uint32_t shard_count;
    uint32_t n_sessions;
    uint32_t n_slots;
    uint32_t isolation;
    uint32_t n_members;
    fps_policy policy;
    uint64_t params_bytes;
    uint64_t stripe_bytes; /* 0: chosen from params_bytes; else a power of two, at least one block */
    uint32_t n_tables;
    const fps_table_layout *tables; /* what a table is, up to `max_rows`; where it lies follows from that */
} fps_arena_spec;

/* A process's view of a table. */
typedef struct fps_table {
    fps_table_layout layout;
    fps_control *control;
    uint8_t *index[2];
    uint8_t *rows;
    uint32_t number;
    uint32_t head_bytes;
    uint32_t at[1 + FPS_MAX_SLOTS];    /* where in a row a stream begins */
    uint32_t bytes[1 + FPS_MAX_SLOTS]; /* of a stream in a row */
} fps_table;

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
    fps_row *rows;
    uint8_t *redo;
    uint8_t *params;
    uint8_t *slots;
    fps_table *tables;
} fps_arena;

/* Stream 0 is params, stream k slot k - 1. */
static inline uint8_t *fps_arena_stream(const fps_arena *arena, uint32_t stream)
{
    return stream == 0 ? arena->params : arena->slots + (stream - 1) * arena->layout.slot_stride;
}

static inline uint8_t *fps_arena_version(const fps_arena *arena, uint32_t version, uint32_t stream)
{
    return fps_arena_stream(arena, stream) + version * arena->layout.version_stride;
}

static inline uint8_t *fps_arena_row(const fps_arena *arena, uint32_t rank)
{
    return arena->base + arena->layout.rows_offset + rank * arena->layout.row_stride;
}

/* Where a session puts a stream's results. */
static inline uint8_t *fps_arena_redo(const fps_arena *arena, uint32_t seat, uint32_t stream)
{
    return arena->redo + (uint64_t)seat * arena->layout.redo_bytes +
           (uint64_t)stream * (arena->layout.block_bytes + FPS_STREAM_APART);
}

/* The beginning of an arena, as far as it says what it is. */
#define FPS_HEAD_BYTES (FPS_HEADER_BYTES + FPS_MAX_TABLES * sizeof(fps_table_layout))

/* Pure: the places of everything in an arena for `spec`, and of its tables. */
fps_status fps_arena_plan(const fps_arena_spec *spec, fps_layout *out, fps_table_layout *tables);

/* Pure: where in a row its streams lie, and how long it is. */
void fps_table_plan_row(fps_table *t);

/* Pure: checks the first `available` bytes of an arena against the size that fstat gave. `tables` has room for
 * FPS_MAX_TABLES. */
fps_status fps_layout_parse(const void *bytes, size_t available, uint64_t file_bytes, fps_layout *out,
                            fps_table_layout *tables);

/* Pure: how much memory the arena for `spec` takes with as many workers as its quorum; 0 when it cannot be. */
uint64_t fps_arena_bytes(const fps_arena_spec *spec);

/* Pure: the bytes of a row in such a table, of which its values and slots are all but 16 to 31. */
uint64_t fps_table_row_bytes(const fps_table_layout *table);

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

/* Gives memory to a version or a row that has none yet. Twice is as good as once. */
fps_status fps_arena_back_version(const fps_arena *arena, uint32_t version);
fps_status fps_arena_back_row(const fps_arena *arena, uint32_t rank);

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

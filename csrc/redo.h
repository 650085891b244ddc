/* The redo record of a session: what its redo block holds, whether that is complete, and how far its push has come.
 *
 * Every change takes the same steps, for a piece of the parameters as for a row of a table. The new values are computed
 * in the session's redo block; one store to `redo` says that they are complete and where they belong; they are copied
 * into place; one store to `position` says that this step of the push is done. A process that dies before the first
 * store has changed nothing. If it dies after that, the next process that holds the lock of the place finishes the
 * copy. A repair is idempotent, since a repairer may die, too.
 *
 * A repairer uses the record only if it names the place whose lock the repairer holds, and the redo block only until it
 * has marked that place as repaired: after that the seat may have a new owner. */
#ifndef FPS_REDO_H
#define FPS_REDO_H

#include <stdint.h>
#include <string.h>

#include "arena.h"
#include "copy.h"
#include "sync.h"

/* `redo`: one word, which changes atomically. 0: nothing. For a piece: its position in params (bytes, as all here a
 * multiple of 4), its streams (stream 0 is params, stream k slot k - 1), and its bytes. For a row: its table, its
 * number, and the lowest bits of `position` when it was locked, which tell a repairer whether the row has been counted
 * there. */
#define FPS_REDO_NOTHING UINT64_C(0)
#define FPS_REDO_COMPLETE (UINT64_C(1) << 63)
#define FPS_REDO_IS_ROW (UINT64_C(1) << 62)

#define FPS_REDO_PIECE(position, streams, bytes)                                                                       \
    ((uint64_t)(position) / 4 << 18 | (uint64_t)(streams) << 13 | (uint64_t)(bytes) / 4)
#define FPS_REDO_POSITION(record) (((record) >> 18 & ((UINT64_C(1) << 44) - 1)) * 4)
#define FPS_REDO_STREAMS(record) ((uint32_t)((record) >> 13) & 31u)
#define FPS_REDO_BYTES(record) (((record) & ((UINT64_C(1) << 13) - 1)) * 4)
#define FPS_STREAMS_UP_TO(last) (last)      /* params and the slots up to stream `last` */
#define FPS_STREAM_ALONE(one) (16u + (one)) /* only this stream */

#define FPS_REDO_ROW(table, row, position)                                                                             \
    (FPS_REDO_IS_ROW | (uint64_t)(table) << 56 | FPS_REDO_STEP(position) << 31 | (uint64_t)(row))
#define FPS_REDO_STEP(position) ((uint64_t)(position) & ((UINT64_C(1) << 25) - 1))
#define FPS_REDO_ROW_TABLE(record) ((uint32_t)((record) >> 56) & 63u)
#define FPS_REDO_ROW_STEP(record) FPS_REDO_STEP((record) >> 31)
#define FPS_REDO_ROW_NUMBER(record) ((uint32_t)(record) & 0x7fffffffu)

static_assert(FPS_BLOCK_MAX_BYTES / 4 < (1u << 13) && FPS_MAX_SLOTS < 16u, "a block and its streams fit the record");
static_assert(FPS_MAX_TABLES <= 64u && FPS_MAX_ROWS <= (UINT64_C(1) << 31), "a row of a table fits the record");

/* A push begins, or resumes, at this byte of params or with this one of its rows. */
static inline void fps_redo_begin(fps_seat *seat, uint64_t position)
{
    fps_store_relaxed(&seat->redo, FPS_REDO_NOTHING);
    atomic_signal_fence(memory_order_seq_cst); /* no piece of the previous push appears unfinished */
    fps_store_relaxed(&seat->position, position);
}

/* Names the row that the session locks next: visible to whoever finds the session's mark on the row. */
static inline void fps_redo_name_row(fps_seat *seat, const fps_table *t, uint32_t row)
{
    fps_store_relaxed(&seat->redo, FPS_REDO_ROW(t->number, row, fps_load_relaxed(&seat->position)));
}

static inline void fps_redo_commit(fps_seat *seat, uint64_t record)
{
    fps_store_release(&seat->redo, record | FPS_REDO_COMPLETE); /* SYNC redo-complete */
    atomic_signal_fence(memory_order_seq_cst);                  /* the copy never starts before the word is stored */
}

static inline void fps_redo_done(fps_seat *seat, uint64_t position)
{
    atomic_signal_fence(memory_order_seq_cst);
    fps_store_release(&seat->position, position); /* SYNC redo-done */
}

static inline void fps_redo_copy_piece(const fps_arena *arena, uint32_t seat, uint64_t position, uint32_t streams,
                                       uint64_t bytes)
{
    const uint32_t last = streams & 15u, first = streams == last ? 0 : last;
    for (uint32_t k = first; k <= last; k++)
        fps_copy(fps_arena_stream(arena, k) + position, fps_arena_redo(arena, seat, k), bytes);
}

static inline void fps_redo_copy_row(const fps_arena *arena, uint32_t seat, const fps_table *t, uint32_t row)
{
    memcpy(fps_row_at(t, row) + t->head_bytes, fps_arena_redo(arena, seat, 0), t->layout.row_bytes - t->head_bytes);
}

/* Copies the redo block into the shard. */
static inline void fps_redo_write_piece(const fps_session *session, uint64_t position, uint32_t streams, uint64_t bytes)
{
    fps_redo_commit(session->seat, FPS_REDO_PIECE(position, streams, bytes));
    fps_redo_copy_piece(session->arena, session->index, position, streams, bytes);
    fps_redo_done(session->seat, position + bytes);
}

/* Copies the redo block, which holds all values after the row's head, into a row that this session has locked. Then
 * `done` rows of the push are done. */
static inline void fps_redo_write_row(const fps_session *session, const fps_table *t, uint32_t row, uint64_t done)
{
    fps_redo_commit(session->seat, fps_load_relaxed(&session->seat->redo));
    fps_redo_copy_row(session->arena, session->index, t, row);
    fps_redo_done(session->seat, done);
}

/* Finishes the copy of a piece that the dead owner of the seat had completed, if it is in [from, to) of params, whose
 * lock the caller holds. */
void fps_redo_finish_piece(const fps_arena *arena, uint32_t seat, uint64_t from, uint64_t to);

/* The same for a row that the dead owner had locked, which no other process repairs. */
void fps_redo_finish_row(const fps_arena *arena, uint32_t seat, const fps_table *t, uint32_t row);

/* The row that the record of the seat names, and its table; NULL if it names none. */
const fps_table *fps_redo_named_row(const fps_arena *arena, uint32_t seat, uint32_t *row);

#endif

/* Rows of a table: their lock, what a reader relies on, and their repair after a death.
 *
 * The row is the unit of everything: it is read and written whole. Its word holds the lock (who writes) and the
 * sequence lock (how often it was written). A writer goes by way of its session's redo block (redo.h) and holds one row
 * at a time. So a process that dies has changed nothing, or all that it wanted to: whoever meets its lock on a row
 * finishes the copy. */
#ifndef FPS_ROW_H
#define FPS_ROW_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "arena.h"
#include "copy.h"
#include "lock.h"
#include "redo.h"
#include "sync.h"

typedef enum fps_read { FPS_READ_DONE = 0, FPS_READ_GONE, FPS_READ_BUSY } fps_read;

/* The time as rows of the table know it: from 1 on. */
static inline uint32_t fps_row_now(const fps_table *t)
{
    const int64_t age_ns = fps_now_ns() - (int64_t)fps_load_relaxed(&t->control->created_ns);
    return (uint32_t)(age_ns / FPS_TICK_NS) + 1;
}

/* A row of a tracked table was asked for. */
static inline void fps_row_track(uint8_t *row, uint32_t now, uint32_t times)
{
    fps_store32_relaxed(fps_row_seen(row), now);
    atomic_fetch_add_explicit(fps_row_count(row), times, memory_order_relaxed);
}

/* Takes the lock of the row if it is `key`'s: FPS_OK with its word in `*word`; FPS_ALREADY when the row is not, or no
 * longer, that of the key; FPS_BUSY when somebody writes it. */
static inline fps_status fps_row_try(const fps_session *session, const fps_table *t, uint32_t row, uint64_t key,
                                     uint64_t *word)
{
    uint8_t *at = fps_row_at(t, row);
    uint64_t found = fps_load_relaxed(fps_row_word(at));
    if (FPS_ROW_WRITER(found) != 0) return FPS_BUSY;
    if ((found & FPS_ROW_FREE) != 0) return FPS_ALREADY;
    fps_redo_name_row(session->seat, t, row); /* the exchange below shows it first */
    if (!atomic_compare_exchange_strong_explicit(fps_row_word(at), &found, found | (session->index + 1),
                                                 memory_order_acq_rel, memory_order_relaxed)) /* SYNC row-handover */
        return FPS_BUSY;
    atomic_thread_fence(memory_order_release); /* SYNC row-sequence: the writer is seen before the first byte changes */
    *word = found;
    if (fps_load_relaxed(fps_row_key(at)) == key) return FPS_OK;
    fps_store_release(fps_row_word(at), found); /* nothing was changed */
    return FPS_ALREADY;
}

/* Lets go of it. With `word` as it was the row counts as unchanged. */
static inline void fps_row_leave(const fps_table *t, uint32_t row, uint64_t word)
{
    fps_store_release(fps_row_word(fps_row_at(t, row)), word); /* SYNC row-handover, row-sequence */
}

/* ThreadSanitizer watches the library's memcpy, whoever calls it. */
#ifdef __SANITIZE_THREAD__
__attribute__((no_sanitize("thread"))) static inline void fps_row_copy(uint8_t *to, const volatile uint8_t *from,
                                                                       uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) to[i] = from[i];
}
#else
#define fps_row_copy memcpy
#endif

/* One row, or a part of it, as it was between two writes, if it is `key`'s. The copy races with writers on purpose and
 * is thrown away when it did: formally a data race, so ThreadSanitizer is told to look away. */
__attribute__((no_sanitize("thread"))) static inline fps_read
fps_row_read(const fps_table *t, uint32_t row, uint64_t key, uint8_t *to, uint32_t from, uint32_t bytes, bool past)
{
    uint8_t *at = fps_row_at(t, row);
    const uint64_t before = fps_load_acquire(fps_row_word(at)); /* SYNC row-sequence */
    if (FPS_ROW_WRITER(before) != 0) return FPS_READ_BUSY;
    if ((before & FPS_ROW_FREE) != 0 || fps_load_relaxed(fps_row_key(at)) != key) return FPS_READ_GONE;
    if (past)
        fps_copy_short(to, at + from, bytes);
    else
        fps_row_copy(to, at + from, bytes);
    atomic_thread_fence(memory_order_acquire); /* SYNC row-sequence: every byte read before the word again */
    return fps_load_relaxed(fps_row_word(at)) == before ? FPS_READ_DONE : FPS_READ_BUSY;
}

/* The table in which the session of a seat holds a row now; NULL: it holds none. */
const fps_table *fps_row_written(const fps_arena *arena, uint32_t seat);

/* A step of a wait (FPS_WAIT_ROW) for a row that is busy; repairs it when its writer died. */
fps_status fps_row_wait(const fps_arena *arena, const fps_table *t, uint32_t row, fps_waiting *w);

/* Reads it until that succeeds: FPS_ALREADY when the row is not the key's. */
fps_status fps_row_read_surely(const fps_arena *arena, const fps_table *t, uint32_t row, uint64_t key, uint8_t *to,
                               uint32_t from, uint32_t bytes, const fps_wait *wait);

/* Repairs the row that the dead owner of this seat was writing, if there is one. */
fps_status fps_row_repair(const fps_arena *arena, uint32_t seat, const fps_wait *wait);

#endif

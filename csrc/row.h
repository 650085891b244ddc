/* Rows of a table: their lock, reading them, and their repair after a death.
 *
 * Each row is read and written atomically. Its word holds the lock (its writer) and the sequence lock (the number of
 * writes). A writer uses its session's redo block (redo.h) and holds one row at a time. So a process that dies has
 * changed a row either not at all or completely: whoever finds its lock on a row finishes the copy. */
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

/* The time in ticks of the table, from 1 on. */
static inline uint32_t fps_row_now(const fps_table *t)
{
    const int64_t age_ns = fps_now_ns() - (int64_t)fps_load_relaxed(&t->control->created_ns);
    return (uint32_t)(age_ns / FPS_TICK_NS) + 1;
}

/* Records a use of a row of a tracked table. */
static inline void fps_row_track(uint8_t *row, uint32_t now, uint32_t times)
{
    fps_store32_relaxed(fps_row_seen(row), now);
    atomic_fetch_add_explicit(fps_row_count(row), times, memory_order_relaxed);
}

/* Takes the lock of the row if it is that of `key`: FPS_OK with its word in `*word`; FPS_ALREADY if it is not, or no
 * longer, that of the key; FPS_BUSY while it is being written. */
static inline fps_status fps_row_try(const fps_session *session, const fps_table *t, uint32_t row, uint64_t key,
                                     uint64_t *word)
{
    uint8_t *at = fps_row_at(t, row);
    uint64_t found = fps_load_relaxed(fps_row_word(at));
    if (FPS_ROW_WRITER(found) != 0) return FPS_BUSY;
    if ((found & FPS_ROW_FREE) != 0) return FPS_ALREADY;
    fps_redo_name_row(session->seat, t, row); /* visible before the exchange below */
    if (!atomic_compare_exchange_strong_explicit(fps_row_word(at), &found, found | (session->index + 1),
                                                 memory_order_seq_cst,
                                                 memory_order_relaxed)) /* SYNC row-handover, row-epoch */
        return FPS_BUSY;
    atomic_thread_fence(memory_order_release); /* SYNC row-sequence: the writer is seen before the first byte changes */
    *word = found;
    if (fps_load_relaxed(fps_row_key(at)) == key) return FPS_OK;
    fps_store_release(fps_row_word(at), found); /* unchanged */
    return FPS_ALREADY;
}

/* Releases the row: with the same `word` as before, or that of fps_row_next. */
static inline void fps_row_leave(const fps_table *t, uint32_t row, uint64_t word)
{
    fps_store_release(fps_row_word(fps_row_at(t, row)), word); /* SYNC row-handover, row-sequence */
}

/* ThreadSanitizer intercepts the library's memcpy, whoever calls it. */
#ifdef __SANITIZE_THREAD__
__attribute__((no_sanitize("thread"))) static inline void fps_row_copy(uint8_t *to, const volatile uint8_t *from,
                                                                       uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) to[i] = from[i];
}
#else
#define fps_row_copy memcpy
#endif

/* Reads a row, or a part of it, between two writes, if it is that of `key`. The copy races with writers on purpose and
 * is discarded if one was active: formally a data race, so ThreadSanitizer is disabled here. */
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

/* The table in which the session of a seat holds a row now; NULL if none. */
const fps_table *fps_row_written(const fps_arena *arena, uint32_t seat);

/* A step of a wait (FPS_WAIT_ROW) for a row that is busy; repairs it if its writer died. */
fps_status fps_row_wait(const fps_arena *arena, const fps_table *t, uint32_t row, fps_waiting *w);

/* Reads the row, repeatedly if necessary: FPS_ALREADY if it is not that of the key. */
fps_status fps_row_read_surely(const fps_arena *arena, const fps_table *t, uint32_t row, uint64_t key, uint8_t *to,
                               uint32_t from, uint32_t bytes, const fps_wait *wait);

/* Repairs the row that the dead owner of this seat was writing, if any. */
fps_status fps_row_repair(const fps_arena *arena, uint32_t seat, const fps_wait *wait);

#endif

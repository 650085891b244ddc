#include "stripe.h"

#include <stdbool.h>

#include "redo.h"

static void count_one_more(fps_word *count, const fps_word *begun)
{
    const uint64_t next = fps_load_relaxed(count) + 1;
    if (fps_load_relaxed(begun) == next) fps_store_relaxed(count, next);
}

/* Finishes the piece of this stripe that its dead writer had completed, and records that the push was interrupted. The
 * caller holds the stripe's lock. */
static void repair(const fps_arena *arena, uint32_t stripe)
{
    fps_stripe *s = &arena->stripes[stripe];
    fps_header *header = arena->header;
    uint32_t writer = fps_load32_relaxed(&s->writer);
    atomic_fetch_add_explicit(&header->recovered_locks, 1, memory_order_relaxed);

    if (writer != 0 && writer <= arena->layout.n_sessions) {
        fps_seat *seat = &arena->seats[writer - 1];
        uint64_t from = stripe * arena->layout.stripe_bytes, to = from + arena->layout.stripe_bytes;
        if (to > arena->layout.params_bytes) to = arena->layout.params_bytes;
        fps_redo_finish_piece(arena, writer - 1, from, to);
        uint64_t position = fps_load_acquire(&seat->position); /* SYNC redo-done */
        uint64_t begun = fps_load_relaxed(&seat->begun_seq);
        bool applied = fps_load_relaxed(&seat->applied_seq) == begun;
        bool complete = applied || position >= arena->layout.params_bytes;
        /* The push entered the shard but was not counted yet; no other push may get its number. */
        if (stripe == 0 && !applied) {
            count_one_more(&header->version, &seat->begun_version);
            count_one_more(&header->partials, &seat->begun_partials);
        }
        if (!complete && atomic_exchange_explicit(&seat->interrupted_seq, begun, memory_order_relaxed) != begun) {
            atomic_fetch_add_explicit(&header->interrupted_pushes, 1, memory_order_relaxed);
            fps_store_relaxed(&header->interrupted_pid, fps_load32_relaxed(&seat->pid));
            fps_store_relaxed(&header->interrupted_at, position);
        }
        fps_store32_release(&s->writer, 0); /* SYNC repaired */
    }
    uint64_t sequence = fps_load_relaxed(&s->sequence);
    if (sequence & 1) fps_store_release(&s->sequence, sequence + 1); /* SYNC seqlock */
}

fps_status fps_stripe_enter(const fps_arena *arena, uint32_t stripe, const fps_wait *wait)
{
    bool abandoned;
    fps_status status =
        fps_arena_lock(arena, &arena->stripes[stripe].lock, wait, &abandoned); /* SYNC stripe-handover */
    if (status == FPS_OK && abandoned) {
        repair(arena, stripe);
        fps_lock_repaired(&arena->stripes[stripe].lock);
    }
    return status;
}

void fps_stripe_leave(const fps_arena *arena, uint32_t stripe)
{
    fps_lock_release(&arena->stripes[stripe].lock); /* SYNC stripe-handover */
}

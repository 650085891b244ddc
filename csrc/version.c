#include "version.h"

#include "copy.h"
#include "lock.h"
#include "session.h"

uint64_t fps_version_pin(const fps_session *session)
{
    const fps_word *current = &session->arena->header->current;
    fps_word *pins = &session->seat->pins;
    for (;;) {
        uint64_t found = fps_load_acquire(current), before = fps_load_relaxed(pins); /* SYNC version */
        fps_store_relaxed(pins, before | UINT64_C(1) << fps_version_of(session->arena, found));
        atomic_thread_fence(memory_order_seq_cst); /* SYNC pin */
        uint64_t again = fps_load_acquire(current);
        if (fps_version_of(session->arena, again) == fps_version_of(session->arena, found)) return again;
        fps_store_relaxed(pins, before);
    }
}

void fps_version_pin_too(const fps_session *session, uint32_t version)
{
    fps_word *pins = &session->seat->pins;
    fps_store_relaxed(pins, fps_load_relaxed(pins) | UINT64_C(1) << version);
    atomic_thread_fence(memory_order_seq_cst); /* SYNC pin */
}

void fps_version_unpin(const fps_session *session, uint32_t version)
{
    fps_word *pins = &session->seat->pins;
    fps_store_release(pins, fps_load_relaxed(pins) & ~(UINT64_C(1) << version)); /* SYNC unpin */
}

static bool is_pinned(const fps_arena *arena, uint32_t version)
{
    for (uint32_t i = 0; i < arena->layout.n_sessions; i++) {
        uint64_t pins = fps_load_acquire(&arena->seats[i].pins); /* SYNC unpin */
        if (pins >> version & 1 && !fps_session_is_over(arena, i)) return true;
    }
    return false;
}

/* The first versions first: their memory is allocated. */
fps_status fps_version_claim(const fps_arena *arena, uint32_t *version)
{
    const fps_wait no_wait = {.deadline_ns = FPS_NO_WAIT};
    const fps_word *current = &arena->header->current;
    for (uint32_t v = 0; v < arena->layout.n_versions; v++) {
        pthread_mutex_t *lock = &arena->header->writing[v];
        bool abandoned;
        if (fps_version_of(arena, fps_load_relaxed(current)) == v) continue;
        if (fps_lock_acquire(lock, &no_wait, &abandoned) != FPS_OK) continue;
        if (abandoned) fps_lock_repaired(lock); /* what it wrote is overwritten, if it was not published */
        bool retired = fps_version_of(arena, fps_load_relaxed(current)) != v; /* and no other thread can publish it */
        atomic_thread_fence(memory_order_seq_cst);                            /* SYNC pin */
        fps_status status = retired && !is_pinned(arena, v) ? fps_arena_back_version(arena, v) : FPS_HELD;
        if (status == FPS_OK) {
            *version = v;
            return FPS_OK;
        }
        fps_lock_release(lock);
        if (status != FPS_HELD) return status;
    }
    return FPS_HELD;
}

bool fps_version_publish(const fps_arena *arena, uint64_t before, uint64_t round, uint32_t version)
{
    fps_header *header = arena->header;
    bool done = atomic_compare_exchange_strong_explicit(&header->current, &before, FPS_CURRENT(round, version),
                                                        memory_order_release, memory_order_relaxed); /* SYNC version */
    fps_lock_release(&header->writing[version]);
    return done;
}

void fps_version_copy(const fps_arena *arena, uint32_t from, uint32_t to)
{
    fps_word *updates = arena->header->updates;
    fps_store_relaxed(&updates[to], fps_load_relaxed(&updates[from]));
    for (uint32_t i = 0; i < arena->layout.n_leaves; i++)
        fps_store_relaxed(&fps_arena_counts(arena, to)[i], fps_load_relaxed(&fps_arena_counts(arena, from)[i]));
    for (uint32_t k = 0; k <= arena->layout.n_slots; k++)
        fps_copy(fps_arena_version(arena, to, k), fps_arena_version(arena, from, k), arena->layout.params_bytes);
}

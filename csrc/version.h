/* Versions of a shard's parameters and slots, where updates are applied out of place: one is current, readers pin the
 * one that they read, and the next one is written into memory that is not pinned. */
#ifndef FPS_VERSION_H
#define FPS_VERSION_H

#include <stdbool.h>
#include <stdint.h>

#include "arena.h"
#include "status.h"

/* The version that a word of `current` names. Shared memory is not trusted with an index. */
static inline uint32_t fps_version_of(const fps_arena *arena, uint64_t current)
{
    const uint32_t version = FPS_CURRENT_VERSION(current);
    return version < arena->layout.n_versions ? version : 0;
}

static inline bool fps_version_has_reached(const fps_arena *arena, uint64_t round)
{
    return FPS_CURRENT_ROUND(fps_load_acquire(&arena->header->current)) >= round; /* SYNC version */
}

/* Pins the current version of a shard, which does not change until it is unpinned, and returns `current`. Pins are not
 * counted, and an operation releases its session's pin: longer ones need a session of their own. */
uint64_t fps_version_pin(const fps_session *session);
/* Pins a version that another session has pinned and keeps pinned until this returns. */
void fps_version_pin_too(const fps_session *session, uint32_t version);
void fps_version_unpin(const fps_session *session, uint32_t version);

/* Locks a version that is neither current nor pinned, for this thread to write. FPS_HELD: there is none. */
fps_status fps_version_claim(const fps_arena *arena, uint32_t *version);

/* Copies all streams of a version into a claimed one. */
void fps_version_copy(const fps_arena *arena, uint32_t from, uint32_t to);

/* Makes a written version current; false if another one became current meanwhile. Either way the claim ends. */
bool fps_version_publish(const fps_arena *arena, uint64_t before, uint64_t round, uint32_t version);

#endif

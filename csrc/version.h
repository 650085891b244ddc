/* Versions of a shard's parameters and slots, where updates are applied out of place: one is current, readers pin the
 * one that they read, and whoever makes the next one writes it into memory that nobody reads. */
#ifndef FPS_VERSION_H
#define FPS_VERSION_H

#include <stdbool.h>
#include <stdint.h>

#include "arena.h"
#include "status.h"

static inline bool fps_version_has_reached(const fps_arena *arena, uint64_t round)
{
    return FPS_CURRENT_ROUND(fps_load_acquire(&arena->header->current)) >= round; /* SYNC version */
}

/* Keeps the current version of a shard as it is until it is let go, and answers `current`. Pins are not counted, and an
 * operation lets its session's pin go: for longer ones a session of their own. */
uint64_t fps_version_pin(const fps_session *session);
/* Keeps a version that another session keeps, and will keep until this has been said to it. */
void fps_version_pin_too(const fps_session *session, uint32_t version);
void fps_version_unpin(const fps_session *session, uint32_t version);

/* Makes a version that is not current, and that nobody reads, this thread's to write. FPS_HELD: there is none. */
fps_status fps_version_claim(const fps_arena *arena, uint32_t *version);

/* Copies all streams of a version into one that was claimed. */
void fps_version_copy(const fps_arena *arena, uint32_t from, uint32_t to);

/* Names the version that was written; false when something else became current meanwhile. Either way it is no longer
 * this thread's to write. */
bool fps_version_publish(const fps_arena *arena, uint64_t before, uint64_t round, uint32_t version);

#endif

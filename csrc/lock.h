/* Taking a robust lock, and waiting for it. */
#ifndef FPS_LOCK_H
#define FPS_LOCK_H

#include <pthread.h>
#include <stdbool.h>

#include "robust.h"
#include "status.h"
#include "wait.h"

/* Returns FPS_OK with the lock; FPS_BUSY, FPS_TIMEOUT, FPS_INTERRUPTED or the header's state without it. `*abandoned`:
 * the last holder died; the caller repairs what the lock protects and calls fps_lock_repaired before it unlocks. */
fps_status fps_lock_acquire(pthread_mutex_t *lock, const fps_wait *wait, bool *abandoned);
void fps_lock_repaired(pthread_mutex_t *lock);
void fps_lock_release(pthread_mutex_t *lock);

#endif

#include "hyper.h"

#include <string.h>

void fps_hyper_read(const fps_hyper *hyper, double *values)
{
    for (;;) {
        const uint64_t changes = fps_load_acquire(&hyper->changes); /* SYNC hyper */
        for (uint32_t i = 0; i < FPS_MAX_HYPER; i++) {
            const uint64_t bits = fps_load_relaxed(&hyper->sets[changes & 1][i]);
            memcpy(&values[i], &bits, sizeof bits);
        }
        atomic_thread_fence(memory_order_acquire);
        if (fps_load_relaxed(&hyper->changes) == changes) return; /* SYNC hyper */
    }
}

void fps_hyper_change(fps_hyper *hyper, uint32_t which, const double *values)
{
    const uint64_t changes = fps_load_relaxed(&hyper->changes);
    const fps_word *from = hyper->sets[changes & 1];
    fps_word *to = hyper->sets[(changes + 1) & 1];
    atomic_thread_fence(memory_order_release); /* SYNC hyper: a late reader of this set finds the count changed */
    for (uint32_t i = 0; i < FPS_MAX_HYPER; i++) {
        uint64_t bits = fps_load_relaxed(&from[i]);
        if (which >> i & 1) memcpy(&bits, &values[i], sizeof bits);
        fps_store_relaxed(&to[i], bits);
    }
    fps_store_release(&hyper->changes, changes + 1); /* SYNC hyper */
}

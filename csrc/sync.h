/* Atomic words with an explicit order, and the labels of the synchronisations between processes.
 *
 * Both ends of a synchronisation are marked as `SYNC label`:
 *   arena-ready       Whoever sees `ready == FPS_READY` sees the whole header and every initialised lock.
 *   stripe-handover   Whoever takes a stripe's lock sees all that was written to the stripe under it before.
 *                     (The robust mutex provides this one; the label marks where data relies on it.)
 *   seqlock           A reader that finds the same even number before and after its copy read one state.
 *   redo-complete     Whoever finds in `redo` that new values are complete finds all of them in the redo block.
 *   redo-done         Whoever finds `position` past a piece or a row finds all of that in its place.
 *   progress          Whoever sees that progress has reached n sees all that was pushed, and given, before it did.
 *   bell              A sleeper that was not counted when the bell rang sees the progress that it rang for.
 *   version           Whoever sees that `current` names a version sees all of it. It does not change any more.
 *   pin               A reader that finds its version still current after its pin is seen by whoever looks for a
 *                     version to write, which locks the version first, then reads `current` and the pins.
 *   unpin             Whoever finds no pin on a version writes it after the last read of it.
 *   row-handover      Whoever takes a row's lock sees all that was written to the row under it before.
 *   row-sequence      A reader that finds the same word, without a writer, before and after its copy read one state.
 *   row-epoch         A scan that has counted an epoch and does not see a writer's lock on a row was counted before
 *                     that writer reads the epoch, with which it marks the row. (Both stores come before both loads in
 *                     one order of all, so sequentially consistent.)
 *   row-created       Whoever finds a row through the index, or below `high`, sees it with its key and its initial
 *                     values, or a later state.
 *   index-swap        Whoever sees a new index sees all that is in it. Whoever did not find a key, and sees the same
 *                     index after its search as before it, searched a complete index.
 *   hyper             Whoever sees the same number of changes of a rule's hyper-parameters before and after its copy
 *                     read one consistent set.
 *   death             Whoever sees that a lock's holder died sees all that it did. (The other end is in the kernel.)
 *   repaired          Whoever finds a dead session's mark gone from a stripe or a row sees what was repaired there, and
 *                     writes its redo block and its record after the last read of them. What the dead owner itself did
 *                     is seen by whoever takes its life lock.
 *   seat-free         Whoever claims a seat that is FREE sees its last owner's final writes to it.
 */
#ifndef FPS_SYNC_H
#define FPS_SYNC_H

#include <stdatomic.h>
#include <stdint.h>

typedef _Atomic uint64_t fps_word;
typedef _Atomic uint32_t fps_word32;

static inline uint64_t fps_load_relaxed(const fps_word *w) { return atomic_load_explicit(w, memory_order_relaxed); }
static inline uint64_t fps_load_acquire(const fps_word *w) { return atomic_load_explicit(w, memory_order_acquire); }
static inline void fps_store_relaxed(fps_word *w, uint64_t v) { atomic_store_explicit(w, v, memory_order_relaxed); }
static inline void fps_store_release(fps_word *w, uint64_t v) { atomic_store_explicit(w, v, memory_order_release); }

static inline uint32_t fps_load32_relaxed(const fps_word32 *w) { return atomic_load_explicit(w, memory_order_relaxed); }
static inline uint32_t fps_load32_acquire(const fps_word32 *w) { return atomic_load_explicit(w, memory_order_acquire); }
static inline void fps_store32_relaxed(fps_word32 *w, uint32_t v) { atomic_store_explicit(w, v, memory_order_relaxed); }
static inline void fps_store32_release(fps_word32 *w, uint32_t v) { atomic_store_explicit(w, v, memory_order_release); }

/* A counter with one writer: it needs no locked instruction, only atomic stores. */
static inline void fps_count(fps_word *w, uint64_t by) { fps_store_relaxed(w, fps_load_relaxed(w) + by); }

/* One with several writers. */
static inline void fps_count_shared(fps_word *w, uint64_t by)
{
    atomic_fetch_add_explicit(w, by, memory_order_relaxed);
}

static inline void fps_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

#endif

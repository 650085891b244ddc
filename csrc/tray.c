#include "tray.h"

#include <math.h>
#include <stdbool.h>

#include "copy.h"
#include "version.h"

/* Trays and results of one dtype. */
#define ARITHMETIC(type)                                                                                               \
    static void add_##type(type *restrict to, const type *restrict from, uint64_t n)                                   \
    {                                                                                                                  \
        for (uint64_t i = 0; i < n; i++) to[i] += from[i];                                                             \
    }                                                                                                                  \
    static void divide_##type(type *restrict to, uint64_t n, type by)                                                  \
    {                                                                                                                  \
        for (uint64_t i = 0; i < n; i++) to[i] /= by;                                                                  \
    }                                                                                                                  \
    static type clipped_##type(type x, type scale, type limit)                                                         \
    {                                                                                                                  \
        x *= scale;                                                                                                    \
        return x < -limit ? -limit : x > limit ? limit : x; /* NaN stays NaN */                                        \
    }                                                                                                                  \
    static void clip_##type(type *restrict to, const type *restrict from, uint64_t n, type scale, type limit)          \
    {                                                                                                                  \
        for (uint64_t i = 0; i < n; i++) to[i] = clipped_##type(from[i], scale, limit);                                \
    }                                                                                                                  \
    static void add_clipped_##type(type *restrict to, const type *restrict from, uint64_t n, type scale, type limit)   \
    {                                                                                                                  \
        for (uint64_t i = 0; i < n; i++) to[i] += clipped_##type(from[i], scale, limit);                               \
    }

ARITHMETIC(float)
ARITHMETIC(double)

static void add(void *to, const void *from, uint64_t bytes, uint32_t item_bytes)
{
    if (item_bytes == sizeof(float))
        add_float(to, from, bytes / sizeof(float));
    else
        add_double(to, from, bytes / sizeof(double));
}

static void divide(void *to, uint64_t bytes, uint32_t item_bytes, uint32_t by)
{
    if (item_bytes == sizeof(float))
        divide_float(to, bytes / sizeof(float), (float)by);
    else
        divide_double(to, bytes / sizeof(double), by);
}

const void *fps_trays_reduce(const fps_arena *arena, const fps_decision *d, const uint32_t *weights, uint64_t from,
                             uint64_t bytes, uint32_t item_bytes, void *sum)
{
    const uint8_t *only = NULL;
    uint32_t trays = 0, total = 0;
    for (uint32_t i = 0; i < d->n_given; i++) {
        if (weights[i] == 0) continue;
        const uint8_t *tray = fps_arena_tray(arena, d->ranks[i]) + from;
        total += weights[i];
        if (trays++ == 0) {
            only = tray;
            continue;
        }
        if (trays == 2) fps_copy(sum, only, bytes);
        add(sum, tray, bytes, item_bytes);
    }
    bool mean = arena->layout.policy.reduce != FPS_REDUCE_SUM && total > 1;
    if (trays == 1 && !mean) return only;
    if (trays == 1) fps_copy(sum, only, bytes);
    if (mean) divide(sum, bytes, item_bytes, total);
    return sum;
}

static void put_piece(const fps_call *call, void *to, const void *from, uint64_t bytes, uint32_t item_bytes, bool first,
                      bool clips)
{
    const uint64_t n = bytes / item_bytes;
    if (!clips && first)
        fps_copy(to, from, bytes);
    else if (!clips)
        add(to, from, bytes, item_bytes);
    else if (item_bytes == sizeof(float))
        (first ? clip_float : add_clipped_float)(to, from, n, (float)call->scale, (float)call->limit);
    else
        (first ? clip_double : add_clipped_double)(to, from, n, call->scale, call->limit);
}

static void put(const fps_call *call, const fps_deposit *deposit, const fps_part *part, uint8_t *tray)
{
    bool params = part->session->arena->layout.policy.reduce == FPS_REDUCE_PARAMS;
    bool clips = !params && (call->scale < 1.0 || call->scale > 1.0 || !isfinite(call->scale) || isfinite(call->limit));
    const uint32_t n_leaves = part->session->arena->layout.n_leaves;
    fps_word32 *given = fps_arena_given(part->session->arena, deposit->rank);
    for (uint32_t i = 0; deposit->number == 1 && i < n_leaves; i++) fps_store32_relaxed(&given[i], 0);
    uint32_t n_spans;
    const fps_span *spans = fps_call_spans(call, part, &n_spans);
    for (uint32_t i = 0; i < n_spans; i++) {
        const fps_span *s = &spans[i];
        if (!call->rules[s->rule].kernel) continue;
        const bool half = call->half_grads && call->half_grads[s->buffer];
        const uint32_t before = n_leaves > 0 ? fps_load32_relaxed(&given[s->leaf]) : deposit->number - 1;
        for (uint64_t at = s->position, end = at + s->bytes, bytes; at < end; at += bytes) {
            float wide[FPS_BLOCK_MAX_BYTES / sizeof(float)];
            bytes = half && end - at > sizeof wide ? sizeof wide : end - at; /* others in one piece */
            const void *from = fps_span_read(s, call->grads, call->half_grads, at, bytes, wide);
            put_piece(call, tray + at, from, bytes, s->item_bytes, before == 0, clips);
        }
        if (n_leaves > 0) fps_store32_relaxed(&given[s->leaf], before + 1);
    }
}

/* With the tray's lock held. Deposits from other nodes may arrive twice, and late. */
static fps_status fill(const fps_call *call, const fps_deposit *d, const fps_part *part)
{
    const fps_arena *arena = part->session->arena;
    fps_tray *tray = &arena->trays[d->rank];
    uint64_t generation = fps_load_relaxed(&tray->generation);
    if (d->generation < generation) return FPS_EXPELLED;
    if (d->generation > generation) {
        fps_store_relaxed(&tray->number, 0);
        fps_store_relaxed(&tray->attempt, 0);
        fps_store_relaxed(&tray->generation, d->generation);
    }
    if (fps_load_relaxed(&tray->attempt) >= d->attempt) return FPS_OK;
    if (!fps_version_has_reached(arena, d->round)) return FPS_MIXED; /* the tray's contents have not been read yet */
    bool follows = fps_load_relaxed(&tray->round) == d->round && fps_load_relaxed(&tray->number) + 1 == d->number;
    if (d->number > 1 && !follows) return FPS_EXPELLED;
    fps_status status = fps_arena_back_tray(arena, d->rank);
    if (status != FPS_OK) return status;
    fps_store_relaxed(&tray->number, 0); /* an interrupted copy cannot be resumed */
    atomic_signal_fence(memory_order_seq_cst);
    put(call, d, part, fps_arena_tray(arena, d->rank));
    atomic_signal_fence(memory_order_seq_cst);
    fps_store_relaxed(&tray->round, d->round);
    fps_store_relaxed(&tray->number, d->number);
    fps_store_relaxed(&tray->attempt, d->attempt);
    return FPS_OK;
}

fps_status fps_tray_deposit(const fps_call *call, const fps_deposit *d, const fps_part *part)
{
    const fps_arena *arena = part->session->arena;
    pthread_mutex_t *lock = &arena->trays[d->rank].lock;
    bool abandoned;
    fps_status status = fps_arena_state(arena);
    if (status == FPS_OK) status = fps_arena_lock(arena, lock, &call->wait, &abandoned);
    if (status != FPS_OK) return status;
    if (abandoned) fps_lock_repaired(lock); /* `number` is 0 if it died during the copy */
    status = fps_arena_state(arena);        /* closed during the wait */
    if (status == FPS_OK) status = fill(call, d, part);
    fps_lock_release(lock);
    return status;
}

#include "piece.h"

#include "copy.h"
#include "redo.h"

#define WIDE (FPS_BLOCK_MAX_BYTES / sizeof(float)) /* elements of a block */
#define PUSH_PULL_BYTES (UINT64_C(16) << 10) /* with blocks of 4 KiB: 0.84 of push and pull; 8, 32 and 64 KiB 0.86 */

static void pull_piece(const fps_walk *w, const fps_span *span, uint64_t from, uint64_t to)
{
    fps_span_write(span, w->call->outs, w->call->half_outs, from, to - from, w->arena->params + from, w->streaming);
}

/* No push counts for the array while this walk is in it: those ahead have counted, and those behind count later. */
static void get_piece(const fps_walk *w, const fps_span *span, uint64_t from, uint64_t to)
{
    const fps_call *call = w->call;
    if (w->part->steps && from == span->position)
        w->part->steps[span - w->spans] =
            w->part->wholes + fps_load_relaxed(&fps_arena_counts(w->arena, 0)[span->leaf]);
    for (uint32_t k = 0; k < call->n_streams; k++) {
        const uint32_t stream = fps_call_stream(call, k, span);
        if (stream == FPS_NO_STREAM) continue;
        fps_span_write(span, call->outs + k * call->n_buffers, fps_call_half(call, k, call->half_outs), from, to - from,
                       fps_arena_stream(w->arena, stream) + from, w->streaming);
    }
}

/* By the redo steps, a block at a time. Values of half precision are widened into `grad` and `pulled`. */
static inline void push_blocks(const fps_walk *w, const fps_span *span, uint64_t from, uint64_t to, float *grad,
                               float *pulled)
{
    const fps_call *call = w->call;
    const fps_rule *rule = &call->rules[span->rule];
    if (!rule->kernel) return;
    const double *uniforms = fps_rule_uniforms(w->part->uniforms, span->rule);
    const int64_t ahead = (int64_t)(w->arena->layout.ahead_bytes / span->item_bytes);
    void *results[1 + FPS_MAX_SLOTS];
    const void *state[2 + FPS_MAX_SLOTS];
    for (uint32_t k = 0; k <= rule->n_slots; k++) results[k] = fps_arena_redo(w->arena, w->part->session->index, k);
    for (uint64_t bytes; from < to; from += bytes) {
        bytes = to - from < w->block_bytes ? to - from : w->block_bytes;
        for (uint32_t k = 0; k <= rule->n_slots; k++) state[k] = fps_arena_stream(w->arena, k) + from;
        if (call->pulled)
            state[1 + rule->n_slots] = fps_span_read(span, call->pulled, call->half_pulled, from, bytes, pulled);
        rule->kernel(state, fps_span_read(span, call->grads, call->half_grads, from, bytes, grad), results,
                     (int64_t)(bytes / span->item_bytes), ahead, uniforms);
        fps_redo_write_piece(w->part->session, from, FPS_STREAMS_UP_TO(rule->n_slots), bytes);
    }
}

__attribute__((noinline)) static void push_half_piece(const fps_walk *w, const fps_span *span, uint64_t from,
                                                      uint64_t to)
{
    float grad[WIDE], pulled[WIDE];
    push_blocks(w, span, from, to, grad, pulled);
}

static void push_piece(const fps_walk *w, const fps_span *span, uint64_t from, uint64_t to)
{
    if (w->call->half_grads || w->call->half_pulled)
        push_half_piece(w, span, from, to);
    else
        push_blocks(w, span, from, to, NULL, NULL);
}

/* By the same redo steps, one stream after the other. What is carried ends anywhere, and has room up to a whole word.
 */
static void set_piece(const fps_walk *w, const fps_span *span, uint64_t from, uint64_t to)
{
    const fps_call *call = w->call;
    float wide[WIDE];
    if (w->part->steps && from == span->position)
        fps_store_relaxed(&fps_arena_counts(w->arena, 0)[span->leaf],
                          w->part->steps[span - w->spans] - w->part->wholes);
    for (uint64_t bytes; from < to; from += bytes) {
        bytes = to - from < w->block_bytes ? to - from : w->block_bytes;
        for (uint32_t k = 0; k < call->n_streams; k++) {
            const uint32_t stream = fps_call_stream(call, k, span);
            if (stream == FPS_NO_STREAM) continue;
            const void *values = fps_span_read(span, call->grads + k * call->n_buffers,
                                               fps_call_half(call, k, call->half_grads), from, bytes, wide);
            fps_copy(fps_arena_redo(w->arena, w->part->session->index, stream), values, bytes);
            fps_redo_write_piece(w->part->session, from, FPS_STREAM_ALONE(stream), (bytes + 3) / 4 * 4);
        }
    }
}

/* The new parameters are read back while they are in the cache, many pages at a time. */
static void push_pull_piece(const fps_walk *w, const fps_span *span, uint64_t from, uint64_t to)
{
    for (uint64_t stop; from < to; from = stop) {
        stop = to - from < PUSH_PULL_BYTES ? to : from + PUSH_PULL_BYTES;
        push_piece(w, span, from, stop);
        pull_piece(w, span, from, stop);
    }
}

fps_piece fps_piece_of(fps_kind kind)
{
    return kind == FPS_PUSH        ? push_piece
           : kind == FPS_PUSH_PULL ? push_pull_piece
           : kind == FPS_SET       ? set_piece
           : kind == FPS_GET       ? get_piece
                                   : pull_piece;
}

void fps_walk_begin_span(const fps_walk *w, const fps_span *span, uint64_t from)
{
    const fps_rule *rule = &w->call->rules[span->rule];
    double *uniforms = fps_rule_uniforms(w->part->uniforms, span->rule);
    fps_word *count = &fps_arena_counts(w->arena, 0)[span->leaf];
    if (!rule->kernel || (from > span->position && fps_rule_has_step(uniforms))) return;
    uint64_t partials = w->call->partial && from == span->position
                            ? atomic_fetch_add_explicit(count, 1, memory_order_relaxed) + 1
                            : fps_load_relaxed(count);
    fps_rule_prepare_array(rule, w->part->wholes + partials, uniforms);
}

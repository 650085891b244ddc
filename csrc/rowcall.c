#include "rowcall.h"

#include <string.h>

#include "half.h"
#include "stored.h"

uint32_t fps_rowcall_room(const fps_sparse_call *call, const fps_table *t)
{
    uint32_t n = 0; /* of any push as for half precision: it may be resumed with such gradients */
    if (fps_kind_writes(call->kind) || call->half_outs != t->layout.stored) n = FPS_ROWCALL_WIDE + 1;
    if (t->layout.stored && fps_kind_writes(call->kind)) n = FPS_ROWCALL_RESULTS + 1;
    return n * t->bytes[0];
}

void fps_rowcall_deliver(const fps_sparse_call *call, const fps_sparse_part *part, const fps_table *t, uint32_t i,
                         const uint8_t *held)
{
    const uint64_t place = fps_rowcall_place(part, i), dim = t->layout.dim;
    const uint8_t *values = held;
    if (call->half_outs == t->layout.stored) {
        memcpy(call->outs + place * t->held[0], held, t->held[0]);
        return;
    }
    if (!call->half_outs) {
        fps_stored_get(t, 0, call->outs + place * t->bytes[0], held);
        return;
    }
    if (t->layout.stored) {
        uint8_t *wide = fps_rowcall_scratch(part, t, FPS_ROWCALL_WIDE);
        fps_stored_get(t, 0, wide, held);
        values = wide;
    }
    fps_narrow((uint16_t *)(void *)call->outs + place * dim, (const float *)(const void *)values, dim, call->half_outs);
}

/* The gradient at the place of key i; one of half precision is widened into `wide`. */
static const uint8_t *grad_of(const fps_sparse_call *call, const fps_sparse_part *part, const fps_table *t, uint32_t i,
                              uint8_t *wide)
{
    const uint64_t place = fps_rowcall_place(part, i), dim = t->layout.dim;
    if (!call->half_grads) return call->grads + place * t->bytes[0];
    fps_widen((float *)(void *)wide, (const uint16_t *)(const void *)call->grads + place * dim, dim, call->half_grads);
    return wide;
}

static void add_floats(float *restrict sum, const float *restrict more, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) sum[i] += more[i];
}

static void add_doubles(double *restrict sum, const double *restrict more, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) sum[i] += more[i];
}

static void add(const fps_table *t, uint8_t *sum, const uint8_t *more)
{
    if (t->layout.item_bytes == sizeof(float))
        add_floats((float *)(void *)sum, (const float *)(const void *)more, t->layout.dim);
    else
        add_doubles((double *)(void *)sum, (const double *)(const void *)more, t->layout.dim);
}

const uint8_t *fps_rowcall_sum(const fps_sparse_call *call, const fps_sparse_part *part, const fps_table *t, uint32_t u)
{
    fps_batch *batch = part->batch;
    uint8_t *sum = batch->sum, *wide = fps_rowcall_scratch(part, t, FPS_ROWCALL_WIDE);
    uint32_t i = batch->first[u];
    const uint8_t *grad = grad_of(call, part, t, i, sum);
    if (batch->next[i] == FPS_BATCH_END) return grad;
    if (grad != sum) memcpy(sum, grad, t->bytes[0]);
    while ((i = batch->next[i]) != FPS_BATCH_END) add(t, sum, grad_of(call, part, t, i, wide));
    return sum;
}

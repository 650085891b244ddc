#include "rowcall.h"

#include <string.h>

#include "half.h"

/* A push adds up two gradients that it has widened; a pull narrows a row that it has read. */
uint32_t fps_rowcall_room(const fps_sparse_call *call, const fps_table *t)
{
    if (fps_kind_writes(call->kind)) return call->half_grads ? 2 * t->bytes[0] : t->bytes[0];
    return call->half_outs ? t->bytes[0] : 0;
}

void fps_rowcall_deliver(const fps_sparse_call *call, const fps_sparse_part *part, const fps_table *t, uint32_t i,
                         const uint8_t *values)
{
    const uint64_t place = fps_rowcall_place(part, i), dim = t->layout.dim;
    if (call->half_outs)
        fps_narrow((uint16_t *)(void *)call->outs + place * dim, (const float *)(const void *)values, dim,
                   call->half_outs);
    else
        memcpy(call->outs + place * t->bytes[0], values, t->bytes[0]);
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
    uint8_t *sum = batch->sum, *wide = sum + t->bytes[0];
    uint32_t i = batch->first[u];
    const uint8_t *grad = grad_of(call, part, t, i, sum);
    if (batch->next[i] == FPS_BATCH_END) return grad;
    if (grad != sum) memcpy(sum, grad, t->bytes[0]);
    while ((i = batch->next[i]) != FPS_BATCH_END) add(t, sum, grad_of(call, part, t, i, wide));
    return sum;
}

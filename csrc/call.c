#include "call.h"

void fps_call_count(const fps_call *call, const fps_part *part)
{
    fps_meters *m = &part->session->seat->meters;
    const uint64_t bytes = fps_call_bytes(call, part);
    if (fps_kind_of_streams(call->kind)) return;
    if (call->kind == FPS_PULL) fps_count(&m->pulls, 1);
    if (call->kind == FPS_PUSH) fps_count(&m->pushes, 1);
    if (call->kind == FPS_PUSH_PULL) fps_count(&m->push_pulls, 1);
    if (fps_kind_writes(call->kind)) fps_count(&m->bytes_written, bytes);
    if (fps_kind_reads(call->kind)) fps_count(&m->bytes_read, bytes);
}

uint64_t fps_call_most_steps(const fps_part *part, uint32_t n_spans)
{
    uint64_t most = 0;
    for (uint32_t i = 0; i < n_spans; i++)
        if (part->steps[i] > most) most = part->steps[i];
    return most;
}

void fps_call_begin_steps(const fps_call *call, fps_part *part)
{
    fps_header *header = part->session->arena->header;
    uint64_t version = fps_load_relaxed(&header->version), partials = fps_load_relaxed(&header->partials);
    uint32_t n;
    fps_call_spans(call, part, &n);
    part->wholes = version - partials;
    if (call->partial) {
        if (partials == 0) version++, partials++;
    } else if (n > 0) {
        const uint64_t most = fps_call_most_steps(part, n);
        uint64_t least = most;
        for (uint32_t i = 0; i < n; i++)
            if (part->steps[i] < least) least = part->steps[i];
        if (version < most) version = most;
        partials = version - least;
        part->wholes = least;
    }
    fps_store_relaxed(&header->version, version);
    fps_store_relaxed(&header->partials, partials);
}

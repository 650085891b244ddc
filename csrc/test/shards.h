/* Several shards that operations visit, and one session in each. A shard is one array of floats. */
#ifndef FPS_SHARDS_H
#define FPS_SHARDS_H

#include <math.h>

#include "check.h"
#include "cut.h"

#define N_SHARDS 3u
#define MOST 5000u /* elements of the largest: five stripes */

static const uint64_t elements[N_SHARDS] = {20, 2500, MOST};

typedef struct shards {
    fps_arena arenas[N_SHARDS];
} shards;

/* What one thread calls with. It stays where it is: it points into itself. */
typedef struct caller {
    fps_session sessions[N_SHARDS];
    fps_span spans[N_SHARDS];
    fps_rule rule;
    float ones[MOST], read[N_SHARDS][MOST];
    const void *grads[N_SHARDS];
    void *outs[N_SHARDS];
    uint32_t streams[1];
    double uniforms[N_SHARDS][FPS_UNIFORMS];
    fps_part parts[N_SHARDS];
    fps_call call;
    uint32_t at;
} caller;

static inline void open_shards(shards *s, uint32_t n_sessions)
{
    for (uint32_t i = 0; i < N_SHARDS; i++) {
        fps_arena_spec spec = spec_of(elements[i] * sizeof(float), 4096, n_sessions);
        spec.shard_index = i;
        spec.shard_count = N_SHARDS;
        CHECK_EQ(fps_arena_create(&spec, &s->arenas[i]), FPS_OK);
    }
}

static inline void drop_shards(shards *s)
{
    for (uint32_t i = 0; i < N_SHARDS; i++) drop_arena(&s->arenas[i]);
}

static inline void open_caller(caller *c, const shards *s)
{
    *c = (caller){.rule = rule_of(add_f32, 0)};
    for (uint32_t i = 0; i < MOST; i++) c->ones[i] = 1;
    for (uint32_t i = 0; i < N_SHARDS; i++) {
        c->sessions[i] = open_session(&s->arenas[i]);
        c->spans[i] = (fps_span){.bytes = elements[i] * sizeof(float), .buffer = i, .item_bytes = 4};
        c->grads[i] = c->ones;
        c->outs[i] = c->read[i];
    }
}

static inline void close_caller(caller *c)
{
    for (uint32_t i = 0; i < N_SHARDS; i++) fps_session_close(&c->sessions[i]);
}

/* The next operation. `first`: the shard with which it begins. */
static inline void aim_at_shards(caller *c, fps_kind kind, uint32_t first, fps_wait wait)
{
    for (uint32_t i = 0; i < N_SHARDS; i++)
        c->parts[i] =
            (fps_part){.session = &c->sessions[i], .spans = &c->spans[i], .n_spans = 1, .uniforms = c->uniforms[i]};
    c->call = (fps_call){.kind = kind,
                         .grads = c->grads,
                         .outs = c->outs,
                         .rules = &c->rule,
                         .n_rules = 1,
                         .streams = c->streams,
                         .n_streams = 1,
                         .n_buffers = N_SHARDS,
                         .limit = (double)INFINITY,
                         .scale = 1,
                         .parts = c->parts,
                         .n_parts = N_SHARDS,
                         .first = first,
                         .together = kind == FPS_GET,
                         .wait = wait};
}

static inline fps_status run_caller(caller *c) { return fps_dense_run(&c->call, &c->at); }

static inline fps_status push_ones(caller *c, uint32_t first, int64_t ms)
{
    aim_at_shards(c, FPS_PUSH, first, wait_ms(ms));
    return run_caller(c);
}

/* The same of the shards behind the first one alone. */
static inline fps_status push_some_ones(caller *c, uint32_t first, int64_t ms)
{
    aim_at_shards(c, FPS_PUSH, first, wait_ms(ms));
    c->call.partial = true;
    for (uint32_t i = 1; i < N_SHARDS; i++) {
        c->parts[i].some = c->parts[i].spans;
        c->parts[i].n_some = 1;
    }
    return run_caller(c);
}

static inline fps_status read_cut(caller *c, int64_t ms)
{
    aim_at_shards(c, FPS_GET, 0, wait_ms(ms));
    return run_caller(c);
}

/* That every shard is after this number of pushes. */
static inline void check_cut(const caller *c, uint64_t pushes)
{
    for (uint32_t i = 0; i < N_SHARDS; i++) {
        CHECK_EQ(c->parts[i].version, pushes);
        check_all_equal(c->read[i], elements[i], (float)pushes);
    }
}

#endif

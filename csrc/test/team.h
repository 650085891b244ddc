/* Workers that run rounds over shards. A shard is one run of items of one type, and one gradient serves all shards. */
#ifndef FPS_TEAM_H
#define FPS_TEAM_H

#include <math.h>

#include "check.h"
#include "member.h"
#include "rounds.h"

#define MAX_SHARDS 2
#define MAX_MATES 4
#define LONG_MS 20000 /* for waits that do not end in vain: a survivor that waits for longer hangs */
#define SHORT_MS 30   /* for those that do */

static inline fps_arena make_shard(uint32_t index, uint64_t params_bytes, uint32_t n_slots, uint32_t n_members,
                                   fps_policy policy)
{
    fps_arena arena;
    fps_arena_spec spec = spec_of(params_bytes, 0, n_members + 4);
    spec.shard_index = index;
    spec.shard_count = MAX_SHARDS;
    spec.n_slots = n_slots;
    spec.n_members = n_members;
    spec.policy = policy;
    spec.policy.kind = FPS_BSP;
    CHECK_EQ(fps_arena_create(&spec, &arena), FPS_OK);
    return arena;
}

static inline uint64_t round_of(const fps_arena *arena)
{
    return FPS_CURRENT_ROUND(fps_load_acquire(&arena->header->current));
}

static inline uint32_t version_of(const fps_arena *arena)
{
    return FPS_CURRENT_VERSION(fps_load_acquire(&arena->header->current));
}

static inline uint64_t updates_of(const fps_arena *arena)
{
    return fps_load_relaxed(&arena->header->updates[version_of(arena)]);
}

/* What one worker calls with. It stays where it is: it points into itself. */
typedef struct hand {
    uint32_t n_shards;
    fps_session sessions[MAX_SHARDS];
    fps_span spans[MAX_SHARDS];
    fps_rule rule;
    const void *grads[MAX_SHARDS];
    void *outs[MAX_SHARDS];
    uint32_t streams[1];
    double uniforms[MAX_SHARDS][FPS_UNIFORMS];
    fps_part parts[MAX_SHARDS];
    fps_call call;
    uint32_t at;
} hand;

static inline fps_kernel adding_kernel(uint32_t n_slots, uint32_t item_bytes)
{
    CHECK(n_slots <= 2);
    if (item_bytes == 8) return n_slots == 0 ? add_f64 : n_slots == 1 ? add_1_f64 : add_2_f64;
    return n_slots == 0 ? add_f32 : n_slots == 1 ? add_1_f32 : add_2_f32;
}

static inline void open_hand(hand *h, const fps_arena *arenas, uint32_t n_shards, uint32_t item_bytes)
{
    uint32_t n_slots = arenas[0].layout.n_slots;
    *h = (hand){.n_shards = n_shards, .rule = rule_of(adding_kernel(n_slots, item_bytes), n_slots)};
    for (uint32_t i = 0; i < n_shards; i++) {
        h->sessions[i] = open_session(&arenas[i]);
        h->spans[i] = (fps_span){.bytes = arenas[i].layout.params_bytes, .buffer = i, .item_bytes = item_bytes};
    }
}

static inline void close_hand(hand *h)
{
    for (uint32_t i = 0; i < h->n_shards; i++) fps_session_close(&h->sessions[i]);
}

/* The next operation, on all shards. */
static inline void aim(hand *h, const void *grad, void *const *outs)
{
    for (uint32_t i = 0; i < h->n_shards; i++) {
        h->grads[i] = grad;
        h->outs[i] = outs ? outs[i] : NULL;
        h->parts[i] =
            (fps_part){.session = &h->sessions[i], .spans = &h->spans[i], .n_spans = 1, .uniforms = h->uniforms[i]};
    }
    h->call = (fps_call){.kind = kind_of(grad != NULL, outs != NULL),
                         .grads = grad ? h->grads : NULL,
                         .outs = outs ? h->outs : NULL,
                         .rules = &h->rule,
                         .n_rules = 1,
                         .limit = (double)INFINITY,
                         .scale = 1,
                         .parts = h->parts,
                         .n_parts = h->n_shards,
                         .wait = wait_ms(LONG_MS)};
}

static inline void aim_at_stream(hand *h, uint32_t stream, const void *values, void *const *outs)
{
    aim(h, values, outs);
    h->streams[0] = stream;
    h->call.streams = h->streams;
    h->call.n_streams = 1;
    h->call.kind = values ? FPS_SET : FPS_GET;
}

static inline fps_status run_hand(hand *h, const fps_decision *decision, const fps_deposit *deposit)
{
    h->at = UINT32_MAX;
    return fps_rounds_run(&h->call, decision, deposit, &h->at);
}

static inline fps_status reach_round(hand *h, const fps_decision *decision)
{
    aim(h, NULL, NULL);
    return run_hand(h, decision, NULL);
}

/* The round that was read is the version of every part. */
static inline fps_status read_stream(hand *h, const fps_decision *decision, uint32_t stream, void *const *outs)
{
    aim_at_stream(h, stream, NULL, outs);
    return run_hand(h, decision, NULL);
}

static inline fps_status write_stream(hand *h, const fps_decision *decision, uint32_t stream, const void *values)
{
    aim_at_stream(h, stream, values, NULL);
    return run_hand(h, decision, NULL);
}

static inline fps_status lay_down(hand *h, const fps_decision *decision, fps_deposit deposit, const void *grad)
{
    aim(h, grad, NULL);
    return run_hand(h, decision, &deposit);
}

/* A worker that takes part. */
typedef struct mate {
    hand hand;
    fps_worker worker;
    uint64_t attempt;
} mate;

static inline void join_team(mate *m, const fps_arena *arenas, uint32_t n_shards, uint32_t rank, uint32_t item_bytes)
{
    fps_wait wait = wait_ms(LONG_MS);
    open_hand(&m->hand, arenas, n_shards, item_bytes);
    m->attempt = 0;
    CHECK_EQ(fps_worker_join(&arenas[0], rank, 0, &wait, &m->worker), FPS_OK);
}

static inline void leave_team(mate *m)
{
    fps_worker_leave(&m->worker);
    close_hand(&m->hand);
}

static inline fps_decision last_decision(const mate *m)
{
    fps_decision d;
    fps_clock_decision(&m->worker.roster, &d);
    return d;
}

/* The next of a worker's deposits for the round that is open behind this decision. */
static inline fps_deposit next_deposit(mate *m, const fps_decision *d, uint32_t number)
{
    return (fps_deposit){.rank = m->worker.rank,
                         .number = number,
                         .generation = m->worker.generation,
                         .attempt = ++m->attempt,
                         .round = d->round};
}

static inline fps_status begin_round(mate *m, int64_t ms)
{
    fps_wait wait = wait_ms(ms);
    uint64_t clock, progress;
    return fps_worker_begin(&m->worker, &wait, &clock, &progress);
}

static inline fps_status give_round(mate *m, uint32_t weight, bool *counted)
{
    fps_wait wait = wait_ms(LONG_MS);
    uint64_t round = fps_load_relaxed(&m->worker.roster.members[m->worker.rank].clock);
    return fps_worker_give(&m->worker, round, weight, &wait, counted);
}

#endif

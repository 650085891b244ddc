#include "rounds.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "copy.h"
#include "session.h"
#include "version.h"

/* Constant while a round is applied to one shard. */
typedef struct update {
    const fps_call *call;
    const fps_part *part;
    const fps_arena *arena;
    const fps_decision *decision;
    uint32_t from, to;                 /* versions */
    uint32_t weights[FPS_MAX_MEMBERS]; /* of the decision's ranks: the gradients of the current array in their trays */
    uint32_t total;
} update;

/* How many gradients of an array, or the whole of all, the round has. */
static void count_gradients(update *u, const fps_span *span)
{
    const fps_decision *d = u->decision;
    u->total = 0;
    for (uint32_t i = 0; i < d->n_given; i++) {
        uint32_t weight = d->weights[i], of_array = weight;
        if (u->arena->layout.n_leaves > 0)
            of_array = fps_load32_relaxed(&fps_arena_given(u->arena, d->ranks[i])[span->leaf]);
        u->weights[i] = weight < of_array ? weight : of_array;
        u->total += u->weights[i];
    }
}

static void copy_block(const update *u, uint32_t n_slots, uint64_t from, uint64_t bytes)
{
    for (uint32_t k = 0; k <= n_slots; k++)
        fps_copy(fps_arena_version(u->arena, u->to, k) + from, fps_arena_version(u->arena, u->from, k) + from, bytes);
}

static void apply_block(const update *u, const fps_span *span, uint64_t from, uint64_t bytes)
{
    const fps_rule *rule = &u->call->rules[span->rule];
    const void *state[1 + FPS_MAX_SLOTS];
    if (!rule->kernel || u->total == 0) {
        copy_block(u, rule->n_slots, from, bytes);
        return;
    }
    const void *reduced = fps_trays_reduce(u->arena, u->decision, u->weights, from, bytes, span->item_bytes,
                                           fps_arena_redo(u->arena, u->part->session->index, 0));
    void *results[1 + FPS_MAX_SLOTS];
    if (u->arena->layout.policy.reduce == FPS_REDUCE_PARAMS) {
        fps_copy(fps_arena_version(u->arena, u->to, 0) + from, reduced, bytes);
        return;
    }
    for (uint32_t k = 0; k <= rule->n_slots; k++) {
        state[k] = fps_arena_version(u->arena, u->from, k) + from;
        results[k] = fps_arena_version(u->arena, u->to, k) + from;
    }
    rule->kernel(state, reduced, results, (int64_t)(bytes / span->item_bytes),
                 (int64_t)(u->arena->layout.ahead_bytes / span->item_bytes),
                 fps_rule_uniforms(u->part->uniforms, span->rule));
}

/* Gradients were clipped when they were deposited. */
static void begin(const update *u)
{
    for (uint32_t i = 0; i < u->call->n_rules; i++) {
        double *uniforms = fps_rule_uniforms(u->part->uniforms, i);
        fps_rule_begin(uniforms, INFINITY, 1.0);
        fps_rule_keep_hyper(u->arena, &u->call->rules[i], uniforms);
    }
}

/* Counts the round for an array, and computes its uniforms. */
static void begin_span(update *u, const fps_span *span)
{
    const fps_word *updates = u->arena->header->updates;
    uint64_t step = fps_load_relaxed(&updates[u->from]) + 1;
    count_gradients(u, span);
    if (u->arena->layout.n_leaves > 0) {
        step = fps_load_relaxed(&fps_arena_counts(u->arena, u->from)[span->leaf]) + (u->total > 0);
        fps_store_relaxed(&fps_arena_counts(u->arena, u->to)[span->leaf], step);
    }
    if (u->total > 0)
        fps_rule_prepare_array(&u->call->rules[span->rule], step, fps_rule_uniforms(u->part->uniforms, span->rule));
}

/* Formally a data race if this process was stopped and overtaken: trays may be written again. What it reads then goes
 * into a version that is not published. */
static void write_update(update *u)
{
    const fps_layout *l = &u->arena->layout;
    fps_word *updates = u->arena->header->updates;
    fps_store_relaxed(&updates[u->to], fps_load_relaxed(&updates[u->from]) + 1);
    for (uint32_t i = 0; i < u->part->n_spans; i++) {
        const fps_span *span = &u->part->spans[i];
        uint64_t end = span->position + span->bytes;
        begin_span(u, span);
        for (uint64_t at = span->position, bytes; at < end; at += bytes) {
            bytes = end - at < l->block_bytes ? end - at : l->block_bytes;
            apply_block(u, span, at, bytes);
        }
    }
    if (l->policy.reduce != FPS_REDUCE_PARAMS) return;
    for (uint32_t k = 1; k <= l->n_slots; k++)
        fps_copy(fps_arena_version(u->arena, u->to, k), fps_arena_version(u->arena, u->from, k), l->params_bytes);
}

/* The turn of another session, as a waiter sees it. It is the same turn until a new version is published. */
typedef struct turn {
    uint32_t owner;
    uint64_t current;
    int64_t since_ns;
} turn;

static bool try_turn(const fps_arena *arena, uint32_t seat, turn *seen)
{
    fps_word32 *word = &arena->header->turn;
    uint32_t owner = fps_load32_relaxed(word); /* read before trying: a failed exchange takes the cache line away */
    if (owner == 0 &&
        atomic_compare_exchange_strong_explicit(word, &owner, seat, memory_order_acquire, memory_order_relaxed))
        return true;
    if (owner == 0) return false;
    uint64_t current = fps_load_relaxed(&arena->header->current);
    const int64_t now = fps_now_ns();
    if (owner != seen->owner || current != seen->current) *seen = (turn){owner, current, now};
    int64_t patience_ns = arena->layout.policy.straggler_ns;
    bool gone = owner > arena->layout.n_sessions || fps_session_is_over(arena, owner - 1);
    if (!gone && (patience_ns == 0 || now - seen->since_ns <= patience_ns)) return false;
    return atomic_compare_exchange_strong_explicit(word, &owner, seat, memory_order_acquire, memory_order_relaxed);
}

/* Returns FPS_OK with the turn, or without it if the round has been reached meanwhile. */
static fps_status take_turn(const fps_session *session, uint64_t round, const fps_wait *wait, bool *ours)
{
    const fps_arena *arena = session->arena;
    turn seen = {0};
    fps_waiting w = fps_waiting_for(FPS_WAIT_TURN, wait, arena->header);
    fps_status status = FPS_OK;
    while (status == FPS_OK) {
        *ours = try_turn(arena, session->index + 1, &seen);
        if (*ours || fps_version_has_reached(arena, round)) break;
        status = fps_waiting_step(&w);
    }
    fps_waiting_count(&w, status);
    return status;
}

static void end_turn(const fps_session *session)
{
    uint32_t seat = session->index + 1;
    atomic_compare_exchange_strong_explicit(&session->arena->header->turn, &seat, 0, memory_order_release,
                                            memory_order_relaxed);
}

/* One attempt at the next version: FPS_BUSY if another one became current first. */
static fps_status attempt_round(const fps_call *call, const fps_part *part, const fps_decision *decision)
{
    const fps_session *session = part->session;
    update u = {.call = call, .part = part, .arena = session->arena, .decision = decision};
    uint64_t current = fps_version_pin(session), round = FPS_CURRENT_ROUND(current);
    fps_status status = round + 1 < decision->round ? FPS_MIXED : FPS_OK;
    u.from = u.to = fps_version_of(u.arena, current);
    if (round + 1 == decision->round) {
        uint64_t gradients = 0;
        for (uint32_t i = 0; i < decision->n_given; i++) gradients += decision->weights[i];
        if (gradients == 0) { /* a round without gradients changes only the number */
            uint64_t next = FPS_CURRENT(decision->round, u.from);
            bool done = atomic_compare_exchange_strong_explicit(&u.arena->header->current, &current, next,
                                                                memory_order_release, memory_order_relaxed);
            status = done ? FPS_OK : FPS_BUSY; /* SYNC version */
        } else {
            status = fps_version_claim(u.arena, &u.to);
            if (status == FPS_OK) {
                begin(&u);
                write_update(&u);
                status = fps_version_publish(u.arena, current, decision->round, u.to) ? FPS_OK : FPS_BUSY;
            }
        }
    }
    fps_version_unpin(session, u.from);
    return status;
}

/* Sets stream `k` of the operation in a version that nobody reads yet. */
static void set_span(const fps_call *call, const fps_arena *arena, uint32_t version, const fps_span *s, uint32_t k)
{
    float wide[FPS_BLOCK_MAX_BYTES / sizeof(float)];
    const uint32_t stream = fps_call_stream(call, k, s);
    if (stream == FPS_NO_STREAM) return;
    uint8_t *to = fps_arena_version(arena, version, stream);
    for (uint64_t at = s->position, end = at + s->bytes, bytes; at < end; at += bytes) {
        bytes = end - at < sizeof wide ? end - at : sizeof wide;
        fps_copy(to + at,
                 fps_span_read(s, call->grads + k * call->n_buffers, fps_call_half(call, k, call->half_grads), at,
                               bytes, wide),
                 bytes);
    }
}

/* One attempt to make a version with some streams set to `grads`. */
static fps_status attempt_set(const fps_call *call, fps_part *part)
{
    const fps_session *session = part->session;
    const fps_arena *arena = session->arena;
    uint64_t current = fps_version_pin(session);
    uint32_t from = fps_version_of(arena, current), to;
    fps_status status = fps_version_claim(arena, &to);
    if (status == FPS_OK) {
        fps_version_copy(arena, from, to);
        uint32_t n_spans;
        const fps_span *spans = fps_call_spans(call, part, &n_spans);
        for (uint32_t i = 0; i < n_spans; i++) {
            if (part->steps) fps_store_relaxed(&fps_arena_counts(arena, to)[spans[i].leaf], part->steps[i]);
            for (uint32_t k = 0; k < call->n_streams; k++) set_span(call, arena, to, &spans[i], k);
        }
        if (part->steps && !call->partial)
            fps_store_relaxed(&arena->header->updates[to], fps_call_most_steps(part, n_spans));
        part->version = FPS_CURRENT_ROUND(current);
        status = fps_version_publish(arena, current, part->version, to) ? FPS_OK : FPS_BUSY;
    }
    fps_version_unpin(session, from);
    return status;
}

/* Repeats attempts until one succeeds. Waits for a version that is not pinned. Without a decision it sets streams. */
static fps_status change(fps_call *call, fps_part *part, const fps_decision *decision, const fps_wait *wait)
{
    const fps_session *session = part->session;
    const uint64_t round = decision ? decision->round : UINT64_MAX;
    for (fps_waiting waiting = fps_waiting_for(FPS_WAIT_VERSION, wait, session->arena->header);;) {
        bool ours;
        fps_status status = fps_arena_state(session->arena);
        if (status == FPS_OK) status = take_turn(session, round, wait, &ours);
        if (status != FPS_OK || !ours) return status;
        status = fps_arena_state(session->arena); /* closed during the wait: its memory was freed */
        if (status == FPS_OK) status = decision ? attempt_round(call, part, decision) : attempt_set(call, part);
        end_turn(session);
        if (wait->deadline_ns == FPS_NO_WAIT || (status != FPS_BUSY && status != FPS_HELD)) return status;
        if (status == FPS_BUSY) continue; /* overtaken by another session */
        status = fps_waiting_step(&waiting);
        if (status != FPS_OK) return status == FPS_TIMEOUT ? FPS_HELD : status;
    }
}

/* All shards. While another process works on one, this one works on others; then it waits, if it may. */
static fps_status reach(fps_call *call, const fps_decision *decision, uint32_t *at)
{
    fps_wait no_wait = call->wait;
    no_wait.deadline_ns = FPS_NO_WAIT;
    const uint32_t passes = call->wait.deadline_ns == FPS_NO_WAIT ? 1 : 2;
    fps_status left_out = FPS_OK;
    uint32_t left_at = 0;
    for (uint32_t pass = 0; pass < passes; pass++) {
        left_out = FPS_OK;
        for (uint32_t i = 0; i < call->n_parts; i++) {
            uint32_t n = (call->first + i) % call->n_parts;
            if (fps_version_has_reached(call->parts[n].session->arena, decision->round)) continue;
            *at = n;
            call->parts[n].waited_for = 0;
            fps_status status = change(call, &call->parts[n], decision, pass == 0 ? &no_wait : &call->wait);
            if (status != FPS_OK && (pass > 0 || (status != FPS_BUSY && status != FPS_HELD))) return status;
            if (status != FPS_OK) left_out = status, left_at = n;
        }
        if (left_out == FPS_OK) return FPS_OK;
    }
    *at = left_at;
    return left_out;
}

static fps_status deposit_all(fps_call *call, const fps_deposit *d, uint32_t *at)
{
    for (uint32_t i = 0; i < call->n_parts; i++) {
        uint32_t n = (call->first + i) % call->n_parts;
        fps_part *part = &call->parts[n];
        if (part->done) continue;
        *at = n;
        fps_status status = fps_tray_deposit(call, d, part);
        if (status != FPS_OK) return status;
        part->version = d->round + 1;
        part->done = true;
        fps_call_count(call, part);
    }
    return FPS_OK;
}

static void copy_span(const fps_call *call, const fps_arena *arena, uint32_t version, const fps_span *s, uint32_t k,
                      bool streaming)
{
    const uint32_t stream = call->kind == FPS_GET ? fps_call_stream(call, k, s) : 0;
    if (stream == FPS_NO_STREAM) return;
    const uint8_t *from = fps_arena_version(arena, version, stream) + s->position;
    fps_span_write(s, call->outs + k * call->n_buffers, fps_call_half(call, k, call->half_outs), s->position, s->bytes,
                   from, streaming);
}

static void copy_out(const fps_call *call, const fps_part *part, uint32_t version, bool streaming)
{
    uint32_t n_spans;
    const fps_span *spans = fps_call_spans(call, part, &n_spans);
    const fps_arena *arena = part->session->arena;
    const uint32_t n_streams = call->kind == FPS_GET ? call->n_streams : 1;
    for (uint32_t i = 0; i < n_spans; i++) {
        if (part->steps) part->steps[i] = fps_load_relaxed(&fps_arena_counts(arena, version)[spans[i].leaf]);
        for (uint32_t k = 0; k < n_streams; k++) copy_span(call, arena, version, &spans[i], k, streaming);
    }
}

/* Pins all shards before it reads the first. */
static fps_status pull_all(fps_call *call, uint32_t *at)
{
    uint64_t bytes = 0;
    fps_status status = FPS_OK;
    for (uint32_t i = 0; i < call->n_parts; i++) {
        fps_part *part = &call->parts[i];
        part->pinned = fps_version_pin(part->session);
        part->version = FPS_CURRENT_ROUND(part->pinned);
        bytes += fps_call_bytes(call, part);
        if (part->version != call->parts[0].version) status = FPS_MIXED;
    }
    bool streaming = bytes >= FPS_STREAM_BYTES;
    for (uint32_t i = 0; i < call->n_parts; i++) {
        fps_part *part = &call->parts[i];
        uint32_t version = fps_version_of(part->session->arena, part->pinned);
        if (status == FPS_OK) copy_out(call, part, version, streaming);
        fps_version_unpin(part->session, version);
        part->done = true;
        if (status == FPS_OK) fps_call_count(call, part);
    }
    if (streaming) fps_copy_drain();
    atomic_thread_fence(memory_order_acquire); /* everything was read before the state of the arenas is checked */
    for (uint32_t i = 0; status == FPS_OK && i < call->n_parts; i++) {
        status = fps_arena_state(call->parts[i].session->arena);
        *at = i;
    }
    return status;
}

/* A decision may come from another node, so it is checked. */
static bool names_only_members(const fps_call *call, const fps_decision *decision)
{
    if (decision->n_given > FPS_MAX_MEMBERS) return false;
    for (uint32_t i = 0; i < call->n_parts; i++)
        for (uint32_t k = 0; k < decision->n_given; k++)
            if (decision->ranks[k] >= call->parts[i].session->arena->layout.n_members) return false;
    return true;
}

fps_status fps_rounds_run(fps_call *call, const fps_decision *decision, const fps_deposit *deposit, uint32_t *at)
{
    call->wait.meters = &call->parts[0].session->seat->meters;
    *at = 0;
    if (decision && !names_only_members(call, decision)) return FPS_BAD_DECISION;
    if (deposit && deposit->rank >= call->parts[0].session->arena->layout.n_members) return FPS_BAD_DECISION;
    fps_status status = decision && decision->round > 0 ? reach(call, decision, at) : FPS_OK;
    if (status != FPS_OK) return status;
    if (deposit) return deposit_all(call, deposit, at);
    if (fps_kind_reads(call->kind)) return pull_all(call, at);
    for (uint32_t i = 0; call->kind == FPS_SET && status == FPS_OK && i < call->n_parts; i++) {
        *at = i;
        call->parts[i].waited_for = 0;
        if (!call->parts[i].done) status = change(call, &call->parts[i], NULL, &call->wait);
        call->parts[i].done = call->parts[i].applied = status == FPS_OK;
    }
    return status;
}

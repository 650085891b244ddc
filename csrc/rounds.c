#include "rounds.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "copy.h"
#include "life.h"
#include "stripe.h"

/* What stays the same while a round is applied to one shard. */
typedef struct update {
    const fps_call *call;
    const fps_part *part;
    const fps_arena *arena;
    const fps_decision *decision;
    uint32_t from, to; /* versions */
    uint32_t total;    /* gradients */
} update;

/* Rows and results of one dtype. */
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

uint64_t fps_rounds_pin(const fps_session *session)
{
    const fps_word *current = &session->arena->header->current;
    fps_word *pins = &session->seat->pins;
    for (;;) {
        uint64_t found = fps_load_acquire(current), before = fps_load_relaxed(pins); /* SYNC version */
        fps_store_relaxed(pins, before | UINT64_C(1) << FPS_CURRENT_VERSION(found));
        atomic_thread_fence(memory_order_seq_cst); /* SYNC pin */
        uint64_t again = fps_load_acquire(current);
        if (FPS_CURRENT_VERSION(again) == FPS_CURRENT_VERSION(found)) return again;
        fps_store_relaxed(pins, before);
    }
}

void fps_rounds_pin_too(const fps_session *session, uint32_t version)
{
    fps_word *pins = &session->seat->pins;
    fps_store_relaxed(pins, fps_load_relaxed(pins) | UINT64_C(1) << version);
    atomic_thread_fence(memory_order_seq_cst); /* SYNC pin */
}

void fps_rounds_unpin(const fps_session *session, uint32_t version)
{
    fps_word *pins = &session->seat->pins;
    fps_store_release(pins, fps_load_relaxed(pins) & ~(UINT64_C(1) << version)); /* SYNC unpin */
}

static bool is_dead(const fps_arena *arena, uint32_t seat)
{
    const fps_seat *s = &arena->seats[seat];
    return fps_load32_relaxed(&s->state) != FPS_SEAT_LIVE || fps_life_ended(&s->life);
}

static bool is_pinned(const fps_arena *arena, uint32_t version)
{
    for (uint32_t i = 0; i < arena->layout.n_sessions; i++) {
        uint64_t pins = fps_load_acquire(&arena->seats[i].pins); /* SYNC unpin */
        if (pins >> version & 1 && !is_dead(arena, i)) return true;
    }
    return false;
}

/* Makes a version this thread's to write. The older ones first: their memory is there. */
static fps_status claim(const fps_arena *arena, uint32_t *version)
{
    const fps_wait no_wait = {.deadline_ns = FPS_NO_WAIT};
    const fps_word *current = &arena->header->current;
    for (uint32_t v = 0; v < arena->layout.n_versions; v++) {
        pthread_mutex_t *lock = &arena->header->writing[v];
        bool abandoned;
        if (FPS_CURRENT_VERSION(fps_load_relaxed(current)) == v) continue;
        if (fps_lock_acquire(lock, &no_wait, &abandoned) != FPS_OK) continue;
        if (abandoned) fps_lock_repaired(lock);                             /* nobody has seen what is in it */
        bool retired = FPS_CURRENT_VERSION(fps_load_relaxed(current)) != v; /* and nobody else can name it again */
        atomic_thread_fence(memory_order_seq_cst);                          /* SYNC pin */
        fps_status status = retired && !is_pinned(arena, v) ? fps_arena_back_version(arena, v) : FPS_HELD;
        if (status == FPS_OK) {
            *version = v;
            return FPS_OK;
        }
        fps_lock_release(lock);
        if (status != FPS_HELD) return status;
    }
    return FPS_HELD;
}

/* Names the version that was written; false when something else became current meanwhile. Either way it is no longer
 * this thread's to write. */
static bool publish(const fps_arena *arena, uint64_t before, uint64_t round, uint32_t version)
{
    fps_header *header = arena->header;
    bool done = atomic_compare_exchange_strong_explicit(&header->current, &before, FPS_CURRENT(round, version),
                                                        memory_order_release, memory_order_relaxed); /* SYNC version */
    fps_lock_release(&header->writing[version]);
    return done;
}

/* A block of the gradients that count, added up in the order of ranks: in the session's redo block, or where it lies.
 */
static const void *reduce(const update *u, const fps_span *span, uint64_t from, uint64_t bytes)
{
    const fps_decision *d = u->decision;
    uint8_t *sum = fps_arena_redo(u->arena, u->part->session->index, 0);
    const uint8_t *only = NULL;
    uint32_t rows = 0;
    for (uint32_t i = 0; i < d->n_given; i++) {
        if (d->weights[i] == 0) continue;
        const uint8_t *row = fps_arena_row(u->arena, d->ranks[i]) + from;
        if (rows++ == 0) {
            only = row;
            continue;
        }
        if (rows == 2) fps_copy(sum, only, bytes);
        add(sum, row, bytes, span->item_bytes);
    }
    bool mean = u->arena->layout.policy.reduce != FPS_REDUCE_SUM && u->total > 1;
    if (rows == 1 && !mean) return only;
    if (rows == 1) fps_copy(sum, only, bytes);
    if (mean) divide(sum, bytes, span->item_bytes, u->total);
    return sum;
}

static void apply_block(const update *u, const fps_span *span, uint64_t from, uint64_t bytes)
{
    const fps_rule *rule = &u->call->rules[span->rule];
    const void *reduced = reduce(u, span, from, bytes), *state[1 + FPS_MAX_SLOTS];
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
                 u->part->uniforms + (size_t)span->rule * FPS_UNIFORMS);
}

/* Uniforms of one set of hyper-parameters: those of the moment, between two changes of them. False while they are being
 * changed: nobody waits with the turn. */
static bool prepare(const update *u)
{
    const fps_wait no_wait = {.deadline_ns = FPS_NO_WAIT};
    uint64_t step = fps_load_relaxed(&u->arena->header->updates[u->from]) + 1;
    if (fps_stripe_enter(u->arena, 0, &no_wait) != FPS_OK) return false; /* SYNC stripe-handover */
    for (uint32_t i = 0; i < u->call->n_rules; i++) {
        double *uniforms = u->part->uniforms + (size_t)i * FPS_UNIFORMS;
        fps_dense_prepare(u->arena, &u->call->rules[i], step, uniforms);
        uniforms[FPS_MAX_UNIFORMS] = INFINITY; /* what is clipped was clipped on its way into the row */
        uniforms[FPS_MAX_UNIFORMS + 1] = 1.0;
    }
    fps_stripe_leave(u->arena, 0);
    return true;
}

/* A formal data race where this process was passed while it was stopped: rows are being written again. What it reads
 * then goes into a version that is not published. */
static void write_update(const update *u)
{
    const fps_layout *l = &u->arena->layout;
    fps_word *updates = u->arena->header->updates;
    fps_store_relaxed(&updates[u->to], fps_load_relaxed(&updates[u->from]) + 1);
    for (uint32_t i = 0; i < u->part->n_spans; i++) {
        const fps_span *span = &u->part->spans[i];
        uint64_t end = span->position + span->bytes;
        for (uint64_t at = span->position, bytes; at < end; at += bytes) {
            bytes = end - at < l->block_bytes ? end - at : l->block_bytes;
            apply_block(u, span, at, bytes);
        }
    }
    if (l->policy.reduce != FPS_REDUCE_PARAMS) return;
    for (uint32_t k = 1; k <= l->n_slots; k++)
        fps_copy(fps_arena_version(u->arena, u->to, k), fps_arena_version(u->arena, u->from, k), l->params_bytes);
}

static void copy_version(const fps_arena *arena, uint32_t from, uint32_t to)
{
    fps_word *updates = arena->header->updates;
    fps_store_relaxed(&updates[to], fps_load_relaxed(&updates[from]));
    for (uint32_t k = 0; k <= arena->layout.n_slots; k++)
        fps_copy(fps_arena_version(arena, to, k), fps_arena_version(arena, from, k), arena->layout.params_bytes);
}

static bool has_reached(const fps_arena *arena, uint64_t round)
{
    return FPS_CURRENT_ROUND(fps_load_acquire(&arena->header->current)) >= round; /* SYNC version */
}

/* Another one's turn, as seen by somebody who waits for it. It is the same one for as long as nothing comes of it. */
typedef struct turn {
    uint32_t owner;
    uint64_t current;
    int64_t since_ns;
} turn;

static bool try_turn(const fps_arena *arena, uint32_t seat, turn *seen)
{
    fps_word32 *word = &arena->header->turn;
    uint32_t owner = fps_load32_relaxed(word); /* look before trying: a failed exchange takes the line away */
    if (owner == 0 &&
        atomic_compare_exchange_strong_explicit(word, &owner, seat, memory_order_acquire, memory_order_relaxed))
        return true;
    if (owner == 0) return false;
    uint64_t current = fps_load_relaxed(&arena->header->current);
    const int64_t now = fps_now_ns();
    if (owner != seen->owner || current != seen->current) *seen = (turn){owner, current, now};
    int64_t patience_ns = arena->layout.policy.straggler_ns;
    bool gone = owner > arena->layout.n_sessions || is_dead(arena, owner - 1);
    if (!gone && (patience_ns == 0 || now - seen->since_ns <= patience_ns)) return false;
    return atomic_compare_exchange_strong_explicit(word, &owner, seat, memory_order_acquire, memory_order_relaxed);
}

/* FPS_OK with the turn; or without it, when the round has been reached by then. */
static fps_status take_turn(const fps_session *session, uint64_t round, const fps_wait *wait, bool *ours)
{
    const fps_arena *arena = session->arena;
    turn seen = {0};
    fps_waiting w = fps_waiting_for(FPS_WAIT_TURN, wait, arena->header);
    fps_status status = FPS_OK;
    while (status == FPS_OK) {
        *ours = try_turn(arena, session->index + 1, &seen);
        if (*ours || has_reached(arena, round)) break;
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

/* One attempt at the next version: FPS_BUSY when somebody else's became current first, or while hyper-parameters are
 * being changed. */
static fps_status attempt_round(const fps_call *call, const fps_part *part, const fps_decision *decision,
                                bool *configuring)
{
    const fps_session *session = part->session;
    update u = {.call = call, .part = part, .arena = session->arena, .decision = decision};
    uint64_t current = fps_rounds_pin(session), round = FPS_CURRENT_ROUND(current);
    fps_status status = round + 1 < decision->round ? FPS_MIXED : FPS_OK;
    u.from = u.to = FPS_CURRENT_VERSION(current);
    if (round + 1 == decision->round) {
        for (uint32_t i = 0; i < decision->n_given; i++) u.total += decision->weights[i];
        if (u.total == 0) { /* a round without a gradient changes nothing but its number */
            uint64_t next = FPS_CURRENT(decision->round, u.from);
            bool done = atomic_compare_exchange_strong_explicit(&u.arena->header->current, &current, next,
                                                                memory_order_release, memory_order_relaxed);
            status = done ? FPS_OK : FPS_BUSY; /* SYNC version */
        } else {
            *configuring = !prepare(&u);
            status = *configuring ? FPS_BUSY : claim(u.arena, &u.to);
            if (status == FPS_OK) {
                write_update(&u);
                status = publish(u.arena, current, decision->round, u.to) ? FPS_OK : FPS_BUSY;
            }
        }
    }
    fps_rounds_unpin(session, u.from);
    return status;
}

/* One attempt at a version with some streams set to `grads`. */
static fps_status attempt_set(const fps_call *call, fps_part *part)
{
    const fps_session *session = part->session;
    const fps_arena *arena = session->arena;
    uint64_t current = fps_rounds_pin(session);
    uint32_t from = FPS_CURRENT_VERSION(current), to;
    fps_status status = claim(arena, &to);
    if (status == FPS_OK) {
        copy_version(arena, from, to);
        for (uint32_t i = 0; i < part->n_spans; i++) {
            const fps_span *s = &part->spans[i];
            uint32_t stream = call->streams[s->rule];
            if (stream == FPS_NO_STREAM) continue;
            fps_copy(fps_arena_version(arena, to, stream) + s->position,
                     (const uint8_t *)call->grads[s->buffer] + s->buffer_offset, s->bytes);
        }
        part->version = FPS_CURRENT_ROUND(current);
        status = publish(arena, current, part->version, to) ? FPS_OK : FPS_BUSY;
    }
    fps_rounds_unpin(session, from);
    return status;
}

/* Without a turn: signal handlers may run here, and others go on. */
static fps_status await_configuration(const fps_arena *arena, const fps_wait *wait)
{
    fps_status status = fps_stripe_enter(arena, 0, wait);
    if (status == FPS_OK) fps_stripe_leave(arena, 0);
    return status;
}

/* Until it is done, whatever others do. Waits for a version that nobody holds. Without a decision it sets streams. */
static fps_status change(fps_call *call, fps_part *part, const fps_decision *decision, const fps_wait *wait)
{
    const fps_session *session = part->session;
    const uint64_t round = decision ? decision->round : UINT64_MAX;
    for (fps_waiting waiting = fps_waiting_for(FPS_WAIT_VERSION, wait, session->arena->header);;) {
        bool ours, configuring = false;
        fps_status status = fps_arena_state(session->arena);
        if (status == FPS_OK) status = take_turn(session, round, wait, &ours);
        if (status != FPS_OK || !ours) return status;
        status = fps_arena_state(session->arena); /* closed while we waited: its memory was given back */
        if (status == FPS_OK)
            status = decision ? attempt_round(call, part, decision, &configuring) : attempt_set(call, part);
        end_turn(session);
        if (configuring && wait->deadline_ns != FPS_NO_WAIT) {
            status = await_configuration(session->arena, wait);
            if (status != FPS_OK) return status;
            continue;
        }
        if (wait->deadline_ns == FPS_NO_WAIT || (status != FPS_BUSY && status != FPS_HELD)) return status;
        if (status == FPS_BUSY) continue; /* somebody passed us */
        status = fps_waiting_step(&waiting);
        if (status != FPS_OK) return status == FPS_TIMEOUT ? FPS_HELD : status;
    }
}

/* All shards. While somebody else works on one, this process works on another; then it waits, if it may. */
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
            if (has_reached(call->parts[n].session->arena, decision->round)) continue;
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

static void put(const fps_call *call, const fps_deposit *deposit, const fps_part *part, uint8_t *row)
{
    bool params = part->session->arena->layout.policy.reduce == FPS_REDUCE_PARAMS;
    bool clips = !params && (call->scale < 1.0 || call->scale > 1.0 || !isfinite(call->scale) || isfinite(call->limit));
    for (uint32_t i = 0; i < part->n_spans; i++) {
        const fps_span *s = &part->spans[i];
        const void *from = (const uint8_t *)call->grads[s->buffer] + s->buffer_offset;
        void *to = row + s->position;
        uint64_t n = s->bytes / s->item_bytes;
        if (!clips && deposit->number == 1)
            fps_copy(to, from, s->bytes);
        else if (!clips)
            add(to, from, s->bytes, s->item_bytes);
        else if (s->item_bytes == sizeof(float))
            (deposit->number == 1 ? clip_float : add_clipped_float)(to, from, n, (float)call->scale,
                                                                    (float)call->limit);
        else
            (deposit->number == 1 ? clip_double : add_clipped_double)(to, from, n, call->scale, call->limit);
    }
}

/* Under the row's lock. Copies of one gradient may come twice, and late, from another node. */
static fps_status deposit_in(const fps_call *call, const fps_deposit *d, const fps_part *part)
{
    const fps_arena *arena = part->session->arena;
    fps_row *row = &arena->rows[d->rank];
    uint64_t generation = fps_load_relaxed(&row->generation);
    if (d->generation < generation) return FPS_PUT_OUT;
    if (d->generation > generation) {
        fps_store_relaxed(&row->number, 0);
        fps_store_relaxed(&row->attempt, 0);
        fps_store_relaxed(&row->generation, d->generation);
    }
    if (fps_load_relaxed(&row->attempt) >= d->attempt) return FPS_OK;
    if (!has_reached(arena, d->round)) return FPS_MIXED; /* what is in the row has not been read yet */
    bool follows = fps_load_relaxed(&row->round) == d->round && fps_load_relaxed(&row->number) + 1 == d->number;
    if (d->number > 1 && !follows) return FPS_PUT_OUT;
    fps_status status = fps_arena_back_row(arena, d->rank);
    if (status != FPS_OK) return status;
    fps_store_relaxed(&row->number, 0); /* in the middle of a copy there is nothing to go on from */
    atomic_signal_fence(memory_order_seq_cst);
    put(call, d, part, fps_arena_row(arena, d->rank));
    atomic_signal_fence(memory_order_seq_cst);
    fps_store_relaxed(&row->round, d->round);
    fps_store_relaxed(&row->number, d->number);
    fps_store_relaxed(&row->attempt, d->attempt);
    return FPS_OK;
}

static fps_status deposit_all(fps_call *call, const fps_deposit *d, uint32_t *at)
{
    for (uint32_t i = 0; i < call->n_parts; i++) {
        uint32_t n = (call->first + i) % call->n_parts;
        fps_part *part = &call->parts[n];
        const fps_arena *arena = part->session->arena;
        bool abandoned;
        if (part->done) continue;
        *at = n;
        pthread_mutex_t *lock = &arena->rows[d->rank].lock;
        fps_status status = fps_arena_state(arena);
        if (status == FPS_OK) status = fps_arena_lock(arena, lock, &call->wait, &abandoned);
        if (status != FPS_OK) return status;
        if (abandoned) fps_lock_repaired(lock); /* `number` is 0 where it died in its copy */
        status = fps_arena_state(arena);        /* closed while we waited */
        if (status == FPS_OK) status = deposit_in(call, d, part);
        fps_lock_release(lock);
        if (status != FPS_OK) return status;
        part->version = d->round + 1;
        part->done = true;
        fps_dense_count(call, part);
    }
    return FPS_OK;
}

static void copy_out(const fps_call *call, const fps_part *part, uint32_t version, bool streaming)
{
    for (uint32_t i = 0; i < part->n_spans; i++) {
        const fps_span *s = &part->spans[i];
        uint32_t stream = call->kind == FPS_GET ? call->streams[s->rule] : 0;
        if (stream == FPS_NO_STREAM) continue;
        const uint8_t *from = fps_arena_version(part->session->arena, version, stream) + s->position;
        (streaming ? fps_copy_stream : fps_copy)((uint8_t *)call->outs[s->buffer] + s->buffer_offset, from, s->bytes);
    }
}

/* All shards are pinned before the first is read. */
static fps_status pull_all(fps_call *call, uint32_t *at)
{
    uint64_t bytes = 0;
    fps_status status = FPS_OK;
    for (uint32_t i = 0; i < call->n_parts; i++) {
        fps_part *part = &call->parts[i];
        part->pinned = fps_rounds_pin(part->session);
        part->version = FPS_CURRENT_ROUND(part->pinned);
        bytes += part->session->arena->layout.params_bytes;
        if (part->version != call->parts[0].version) status = FPS_MIXED;
    }
    bool streaming = bytes >= FPS_STREAM_BYTES;
    for (uint32_t i = 0; i < call->n_parts; i++) {
        fps_part *part = &call->parts[i];
        uint32_t version = FPS_CURRENT_VERSION(part->pinned);
        if (status == FPS_OK) copy_out(call, part, version, streaming);
        fps_rounds_unpin(part->session, version);
        part->done = true;
        if (status == FPS_OK) fps_dense_count(call, part);
    }
    if (streaming) fps_copy_drain();
    atomic_thread_fence(memory_order_acquire); /* what was read was read before this look at the arenas' state */
    for (uint32_t i = 0; status == FPS_OK && i < call->n_parts; i++) {
        status = fps_arena_state(call->parts[i].session->arena);
        *at = i;
    }
    return status;
}

/* A decision may come from another node. */
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
        call->parts[i].done = status == FPS_OK;
    }
    return status;
}

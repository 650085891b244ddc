#include "dense.h"

#include <stdbool.h>
#include <string.h>

#include "copy.h"
#include "cut.h"
#include "piece.h"
#include "redo.h"
#include "stripe.h"

#define READ_TRIES 3

/* Computes the uniforms, if all arrays are at one step. A push that is resumed keeps its hyper-parameters, and numbers
 * the arrays that it comes to later as of its entry: two pushes may then give an array the same step. */
static void prepare(fps_walk *w, uint64_t version, uint64_t partials)
{
    fps_part *part = w->part;
    if (w->call->kind == FPS_SET) return;
    w->varies = part->varies = part->prepared ? part->varies : partials > 0;
    if (part->prepared) return;
    part->wholes = version - partials;
    for (uint32_t i = 0; i < w->call->n_rules; i++) {
        double *uniforms = fps_rule_uniforms(part->uniforms, i);
        fps_rule_begin(uniforms, w->call->limit, w->call->scale);
        if (part->varies)
            fps_rule_keep_hyper(w->arena, &w->call->rules[i], uniforms);
        else
            fps_rule_prepare(w->arena, &w->call->rules[i], version, uniforms);
    }
    part->prepared = true;
}

/* Records that a push begins or is resumed, and counts it where it enters the shard. */
static void begin_push(fps_walk *w, uint32_t stripe)
{
    fps_part *part = w->part;
    fps_word *version = &w->arena->header->version, *partials = &w->arena->header->partials;
    bool again = fps_load_relaxed(&w->seat->begun_seq) == part->seq, resumed = part->position > 0;
    uint64_t number = again     ? fps_load_relaxed(&w->seat->begun_version)
                      : resumed ? part->version /* after other operations of the session */
                                : fps_load_relaxed(version) + 1;
    uint64_t of_them = again ? fps_load_relaxed(&w->seat->begun_partials)
                             : fps_load_relaxed(partials) + (w->call->partial && !resumed);
    if (w->call->kind == FPS_SET)
        number = of_them = 0; /* a set is not counted as a push */
    else
        part->version = number;
    fps_redo_begin(w->seat, part->position);
    atomic_signal_fence(memory_order_seq_cst); /* the mark is never seen with the position of the previous push */
    fps_store32_relaxed(&w->arena->stripes[stripe].writer, w->part->session->index + 1);
    fps_store_relaxed(&w->seat->begun_version, number);
    fps_store_relaxed(&w->seat->begun_partials, of_them);
    atomic_signal_fence(memory_order_seq_cst); /* begun implies a mark: the repair counts what died uncounted */
    fps_store_relaxed(&w->seat->begun_seq, part->seq);
    atomic_signal_fence(memory_order_seq_cst);
    if (fps_load_relaxed(version) < number) fps_store_relaxed(version, number);
    if (fps_load_relaxed(partials) < of_them) fps_store_relaxed(partials, of_them);
    if (w->call->kind == FPS_SET && part->steps) fps_call_begin_steps(w->call, part);
    prepare(w, number, of_them);
}

static void move_writer(fps_walk *w, uint32_t from, uint32_t to)
{
    fps_store32_relaxed(&w->arena->stripes[to].writer, w->part->session->index + 1);
    atomic_signal_fence(memory_order_seq_cst); /* after a death at least one of the two marks is set */
    fps_store32_relaxed(&w->arena->stripes[from].writer, 0);
}

static void sequence_begin(fps_stripe *s)
{
    fps_store_relaxed(&s->sequence, fps_load_relaxed(&s->sequence) + 1);
    atomic_thread_fence(memory_order_release); /* SYNC seqlock: odd before the first byte changes */
}

static void sequence_end(fps_stripe *s)
{
    fps_store_release(&s->sequence, fps_load_relaxed(&s->sequence) + 1); /* SYNC seqlock */
}

/* From the locked `stripe` to the end of the shard. Returns with every lock released. On FPS_OK the part is done;
 * otherwise part->position says where a push stopped, and a pull starts over. */
static fps_status run_stripes(fps_walk *w, uint32_t stripe)
{
    const fps_arena *arena = w->arena;
    fps_part *part = w->part;
    bool pushes = fps_kind_writes(w->call->kind), readers_do_not_lock = arena->layout.n_stripes == 1;
    if (pushes && readers_do_not_lock) sequence_begin(&arena->stripes[0]);
    if (pushes) begin_push(w, stripe);
    if (!pushes || w->call->kind == FPS_SET) part->version = fps_load_relaxed(&arena->header->version);
    if (w->call->kind == FPS_GET) part->wholes = part->version - fps_load_relaxed(&arena->header->partials);
    for (;;) {
        uint64_t stop = (stripe + UINT64_C(1)) * arena->layout.stripe_bytes;
        if (stop > w->end) stop = w->end;
        fps_walk_range(w, part->position, stop);
        part->position = stop;
        if (stop == w->end) break;
        fps_wait behind = w->call->wait;
        behind.manner = FPS_WAIT_BEHIND;
        behind.interrupted = NULL; /* no signal handler runs under a lock, and no Ctrl-C leaves half a push */
        fps_status status = fps_stripe_enter(arena, stripe + 1, &behind);
        if (pushes) {
            fps_redo_done(w->seat, stop); /* also after a gap between spans */
            if (status == FPS_OK)
                move_writer(w, stripe, stripe + 1);
            else
                fps_store32_relaxed(&arena->stripes[stripe].writer, 0);
        }
        fps_stripe_leave(arena, stripe);
        if (status != FPS_OK) {
            part->waited_for = stripe + 1;
            if (!pushes) part->position = 0; /* a pull starts over: others may change what it has read */
            return status;
        }
        stripe++;
    }
    if (pushes) {
        if (readers_do_not_lock) sequence_end(&arena->stripes[0]);
        if (w->call->partial) fps_redo_done(w->seat, arena->layout.params_bytes);
        fps_store_relaxed(&w->seat->applied_seq, part->seq);
        atomic_signal_fence(memory_order_seq_cst);
        fps_store32_relaxed(&arena->stripes[stripe].writer, 0);
    }
    fps_stripe_leave(arena, stripe);
    return FPS_OK;
}

/* A pull of a shard of one stripe, while nobody writes. The copy races with writers on purpose and is discarded if one
 * was active: formally a data race, so ThreadSanitizer is disabled here. */
__attribute__((no_sanitize("thread"))) static bool read_optimistically(fps_walk *w)
{
    fps_stripe *s = &w->arena->stripes[0];
    for (int i = 0; i < READ_TRIES; i++) {
        uint64_t before = fps_load_acquire(&s->sequence); /* SYNC seqlock */
        if (!(before & 1)) {
            uint64_t version = fps_load_relaxed(&w->arena->header->version);
            w->span = 0;
            fps_walk_range(w, 0, w->end);
            atomic_thread_fence(memory_order_acquire); /* SYNC seqlock: every byte read before the number again */
            if (fps_load_relaxed(&s->sequence) == before) {
                w->part->version = version;
                w->part->position = w->end;
                return true;
            }
        }
        fps_count(&w->seat->meters.read_retries, 1);
    }
    w->span = 0;
    return false;
}

/* Hogwild: the redo block is scratch; there are no locks and no records. */
static void run_unlocked(fps_walk *w)
{
    fps_word *version = &w->arena->header->version, *partials = &w->arena->header->partials;
    const fps_kind kind = w->call->kind;
    if (kind == FPS_PUSH || kind == FPS_PUSH_PULL) {
        /* Before the version: no partial push with a later number is subtracted from this one's. */
        const uint64_t before = atomic_load_explicit(partials, memory_order_acquire) + w->call->partial;
        w->part->version = atomic_fetch_add_explicit(version, 1, memory_order_acq_rel) + 1;
        if (w->call->partial) atomic_fetch_add_explicit(partials, 1, memory_order_release);
        fps_store_relaxed(&w->seat->begun_seq, w->part->seq);
        prepare(w, w->part->version, before);
    } else {
        if (kind == FPS_SET) fps_store_relaxed(&w->seat->begun_seq, w->part->seq);
        if (kind == FPS_SET && w->part->steps) fps_call_begin_steps(w->call, w->part);
        w->part->version = fps_load_relaxed(version);
        w->part->wholes = w->part->version - fps_load_relaxed(partials);
    }
    fps_walk_range(w, 0, w->end);
    if (fps_kind_writes(kind)) fps_store_relaxed(&w->seat->applied_seq, w->part->seq);
    w->part->position = w->end;
}

/* Assigns the push its sequence number, or finds where an earlier attempt with the same number stopped. */
static fps_status number_push(fps_walk *w)
{
    fps_part *part = w->part;
    if (part->seq == 0) {
        part->seq = ++part->session->seq;
    } else if (part->position == 0) {
        if (fps_load_relaxed(&w->seat->applied_seq) >= part->seq) return FPS_ALREADY;
        if (fps_load_relaxed(&w->seat->begun_seq) == part->seq) {
            uint64_t position = fps_load_relaxed(&w->seat->position);
            part->position = position < w->end ? position : w->end;
        }
        if (part->seq > part->session->seq) part->session->seq = part->seq;
    }
    return FPS_OK;
}

static fps_status run_part(fps_call *call, fps_part *part, const fps_wait *entry, bool streaming, bool *resumed)
{
    const fps_arena *arena = part->session->arena;
    fps_walk w = fps_walk_of(call, part, streaming);
    const bool writes = fps_kind_writes(call->kind);
    fps_status status = fps_arena_state(arena);
    if (status != FPS_OK) return status;
    if (call->partial && w.n_spans == 0) { /* it has nothing of these arrays */
        part->version = fps_load_relaxed(&arena->header->version);
        part->done = true;
        part->applied = writes;
        return FPS_OK;
    }
    if (call->partial) w.end = w.spans[w.n_spans - 1].position + w.spans[w.n_spans - 1].bytes;
    if (writes) {
        status = number_push(&w);
        if (status != FPS_OK) return status;
    }
    if (arena->layout.isolation == FPS_ISOLATION_NONE) {
        run_unlocked(&w);
    } else if (writes || arena->layout.n_stripes > 1 || part->steps || !read_optimistically(&w)) {
        uint32_t stripe = (uint32_t)(part->position / arena->layout.stripe_bytes);
        if (stripe == arena->layout.n_stripes) stripe--; /* an attempt that died after its last block */
        fps_wait wait = *entry;
        wait.manner = arena->layout.n_stripes == 1 ? FPS_WAIT_AWAY : FPS_WAIT_SHORT;
        part->waited_for = stripe;
        status = fps_stripe_enter(arena, stripe, &wait);
        if (status == FPS_OK && writes && call->n_parts > 1 && part->position == 0 && !fps_cut_admits(call, part))
            status = fps_cut_wait(call, part, &wait);
        if (status != FPS_OK) return status;
        if (writes && fps_load_relaxed(&w.seat->begun_seq) == part->seq) {
            /* the repair may have finished a block of the attempt that died */
            uint64_t position = fps_load_acquire(&w.seat->position); /* SYNC redo-done */
            if (position > part->position) part->position = position;
        }
        *resumed = writes && part->position > 0;
        status = run_stripes(&w, stripe);
        if (status != FPS_OK) return status;
    }
    part->done = true;
    if (writes) part->applied = true;
    fps_call_count(call, part);
    return FPS_OK;
}

/* The pull of a push_pull whose push was resumed in the middle, or had been applied before. */
static fps_status pull_again(const fps_call *call, fps_part *part)
{
    fps_call pull = *call;
    bool resumed;
    pull.kind = FPS_PULL;
    part->done = false;
    part->position = 0;
    return run_part(&pull, part, &pull.wait, false, &resumed);
}

/* Waits only for the first unfinished part, and only when no other can proceed without waiting. */
fps_status fps_dense_run(fps_call *call, uint32_t *at)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < call->n_parts; i++)
        bytes +=
            call->partial ? fps_call_bytes(call, &call->parts[i]) : call->parts[i].session->arena->layout.params_bytes;
    bool streaming = fps_kind_reads(call->kind) && bytes >= FPS_STREAM_BYTES;
    fps_wait no_wait = call->wait;
    no_wait.deadline_ns = FPS_NO_WAIT;

    fps_status status = FPS_OK;
    if (call->together) {
        call->wait.meters = &call->parts[0].session->seat->meters;
        status = fps_cut_read(call, streaming, at);
        goto out;
    }
    for (uint32_t left = call->n_parts, wait_for_one = left == 1; left > 0;) {
        uint32_t before = left;
        left = 0;
        for (uint32_t i = 0; i < call->n_parts; i++) {
            uint32_t n = call->first + i;
            if (n >= call->n_parts) n -= call->n_parts;
            fps_part *part = &call->parts[n];
            if (part->done) continue;
            call->wait.meters = no_wait.meters = &part->session->seat->meters;
            bool resumed = false;
            status = part->applied ? FPS_ALREADY
                                   : run_part(call, part, wait_for_one ? &call->wait : &no_wait, streaming, &resumed);
            if (status == FPS_BUSY && call->wait.deadline_ns != FPS_NO_WAIT && !wait_for_one) {
                left++;
                status = FPS_OK;
                continue;
            }
            *at = n;
            if (status == FPS_ALREADY) part->applied = true;
            /* A retry is not applied again; one that was resumed in the middle has not pulled what is before that. */
            if (call->kind == FPS_PUSH_PULL && (status == FPS_ALREADY || (status == FPS_OK && resumed)))
                status = pull_again(call, part);
            if (status == FPS_ALREADY) {
                part->done = true;
                status = FPS_OK;
            }
            if (status != FPS_OK) goto out;
            wait_for_one = 0;
        }
        wait_for_one = left == before || left == 1;
    }
out:
    if (status != FPS_BUSY) fps_cut_leave(call);
    if (streaming) fps_copy_drain();
    atomic_thread_fence(memory_order_acquire); /* everything was read before the state of the arenas is checked */
    for (uint32_t i = 0; status == FPS_OK && i < call->n_parts; i++) {
        status = fps_arena_state(call->parts[i].session->arena); /* closed meanwhile: its memory was freed */
        *at = i;
    }
    return status;
}

fps_status fps_dense_configure(const fps_arena *arena, uint32_t rule, uint32_t which, const double *values,
                               const fps_wait *wait)
{
    fps_status status = fps_arena_state(arena);
    if (status == FPS_OK) status = fps_stripe_enter(arena, 0, wait); /* SYNC stripe-handover */
    if (status != FPS_OK) return status;
    status = fps_arena_state(arena); /* closed during the wait */
    if (status == FPS_OK) fps_hyper_change(&arena->header->hyper[rule], which, values);
    fps_stripe_leave(arena, 0);
    return status;
}

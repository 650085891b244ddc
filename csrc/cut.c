#include "cut.h"

#include "life.h"
#include "stripe.h"

#define US INT64_C(1000)
#define MS (1000 * US)
#define GATHER_NS (200 * US) /* the first time, for all first stripes: others wait for those that are held already; */
#define HOLD_NS (10 * MS)    /* the first time, for pushes that are under way; each twice as long each time, */
#define MOST_NS (1280 * MS)  /* up to this. Between two such times of closed shards, as long a rest */

/* Whether the push has still to enter the shard of a part. */
static bool is_outside(const fps_call *call, const fps_part *part)
{
    return !part->done && !part->applied && part->position == 0 && (!call->partial || part->n_some > 0);
}

bool fps_cut_admits(fps_call *call, const fps_part *part)
{
    if (call->entry) {
        if (--call->outside == 0) fps_cut_leave(call);
        return true;
    }
    uint32_t outside = 0;
    for (uint32_t i = 0; i < call->n_parts; i++)
        outside += &call->parts[i] != part && is_outside(call, &call->parts[i]);
    if (outside == 0) return true; /* it is whole as soon as it is in here */
    const int64_t until = (int64_t)fps_load_relaxed(&part->session->arena->header->closed_until_ns);
    if (until != 0 && fps_now_ns() < until) return false;
    call->entry = part->session->seat;
    call->outside = outside;
    fps_store32_relaxed(&call->entry->elsewhere, 1);
    return true;
}

fps_status fps_cut_wait(fps_call *call, const fps_part *part, const fps_wait *wait)
{
    const fps_arena *arena = part->session->arena;
    for (fps_waiting w = fps_waiting_for(FPS_WAIT_CUT, wait, arena->header);;) {
        fps_stripe_leave(arena, part->waited_for);
        fps_status status = fps_waiting_step(&w);
        if (status == FPS_OK) status = fps_stripe_enter(arena, part->waited_for, wait);
        if (status == FPS_OK && !fps_cut_admits(call, part)) continue;
        fps_waiting_count(&w, status);
        return status;
    }
}

static void leave_first(const fps_call *call, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) fps_stripe_leave(call->parts[i].session->arena, 0);
}

/* Takes the first stripes of all parts, in their order: FPS_BUSY if that is not done in this time. */
static fps_status enter_first(const fps_call *call, int64_t time_ns, uint32_t *at)
{
    fps_wait wait = call->wait;
    const int64_t soon = fps_now_ns() + time_ns;
    if (soon < wait.deadline_ns) wait.deadline_ns = soon;
    wait.interrupted = NULL; /* no signal handler runs under a lock */
    wait.manner = FPS_WAIT_SHORT;
    for (uint32_t i = 0; i < call->n_parts; i++) {
        const fps_arena *arena = call->parts[i].session->arena;
        fps_status status = fps_stripe_enter(arena, 0, &wait);
        if (status == FPS_OK) {
            status = fps_arena_state(arena);
            if (status != FPS_OK) fps_stripe_leave(arena, 0);
        }
        if (status == FPS_OK) continue;
        *at = i;
        leave_first(call, i);
        return status == FPS_TIMEOUT ? FPS_BUSY : status;
    }
    return FPS_OK;
}

/* The first part in whose shard a push has entered that has still to enter others; n_parts: none. */
static uint32_t first_split(const fps_call *call)
{
    for (uint32_t i = 0; i < call->n_parts; i++) {
        const fps_arena *arena = call->parts[i].session->arena;
        for (uint32_t k = 0; k < arena->layout.n_sessions; k++) {
            const fps_seat *seat = &arena->seats[k];
            if (fps_load32_relaxed(&seat->elsewhere) && !fps_life_ended(&seat->life)) return i;
        }
    }
    return call->n_parts;
}

/* Asks pushes to wait. */
static void close_until(const fps_call *call, uint64_t until_ns)
{
    for (uint32_t i = 0; i < call->n_parts; i++)
        fps_store_relaxed(&call->parts[i].session->arena->header->closed_until_ns, until_ns);
}

/* Unless somebody else has closed them meanwhile. */
static void open_again(const fps_call *call, uint64_t until_ns)
{
    for (uint32_t i = 0; i < call->n_parts; i++) {
        fps_word *closed = &call->parts[i].session->arena->header->closed_until_ns;
        uint64_t expected = until_ns;
        atomic_compare_exchange_strong_explicit(closed, &expected, 0, memory_order_relaxed, memory_order_relaxed);
    }
}

/* Returns at a cut, with all first stripes locked. */
static fps_status enter_at_a_cut(const fps_call *call, uint32_t *at)
{
    const fps_word *closed = &call->parts[0].session->arena->header->closed_until_ns;
    int64_t gather_ns = GATHER_NS, hold_ns = HOLD_NS;
    uint64_t closed_until = fps_load_relaxed(closed); /* perhaps by one that died */
    fps_waiting w = fps_waiting_for(FPS_WAIT_CUT, &call->wait, NULL);
    fps_status status;
    do {
        status = enter_first(call, gather_ns, at);
        if (status == FPS_OK) {
            *at = first_split(call);
            if (*at == call->n_parts) break;
            leave_first(call, call->n_parts);
        } else if (status != FPS_BUSY) {
            break;
        }
        const int64_t now = fps_now_ns();
        if (now >= (int64_t)fps_load_relaxed(closed) + hold_ns) { /* whoever closed them last */
            closed_until = (uint64_t)(now + hold_ns);
            close_until(call, closed_until);
            if (hold_ns < MOST_NS) hold_ns *= 2;
        }
        if (status == FPS_BUSY && gather_ns < HOLD_NS) gather_ns *= 2;
        w.header = call->parts[*at].session->arena->header;
        status = fps_waiting_step(&w);
    } while (status == FPS_OK);
    open_again(call, closed_until);
    fps_waiting_count(&w, status);
    return status;
}

/* One stripe of every part that is not done; then, hand over hand, all are in the next one. */
static fps_status read_stripes(fps_call *call, uint32_t stripe, bool streaming, uint32_t *left, uint32_t *at)
{
    fps_wait behind = call->wait;
    behind.manner = FPS_WAIT_BEHIND;
    behind.interrupted = NULL;
    fps_status status = FPS_OK;
    for (uint32_t i = 0; i < call->n_parts; i++) {
        fps_part *part = &call->parts[i];
        const fps_arena *arena = part->session->arena;
        if (part->done) continue;
        if (status == FPS_OK) {
            fps_walk w = fps_walk_of(call, part, streaming);
            w.span = part->span;
            uint64_t stop = (stripe + UINT64_C(1)) * arena->layout.stripe_bytes;
            if (stop > w.end) stop = w.end;
            fps_walk_range(&w, part->position, stop);
            part->span = w.span;
            part->position = stop;
            if (stop == w.end) {
                part->done = true;
                (*left)--;
            } else {
                part->waited_for = stripe + 1;
                *at = i;
                status = fps_stripe_enter(arena, stripe + 1, &behind);
            }
        }
        fps_stripe_leave(arena, stripe);
    }
    if (status == FPS_OK) return FPS_OK;
    for (uint32_t i = 0; i < *at; i++)
        if (!call->parts[i].done) fps_stripe_leave(call->parts[i].session->arena, stripe + 1);
    return status;
}

fps_status fps_cut_read(fps_call *call, bool streaming, uint32_t *at)
{
    for (uint32_t i = 0; i < call->n_parts; i++) {
        fps_part *part = &call->parts[i];
        part->waited_for = part->span = 0;
        part->position = 0;
        part->done = false;
    }
    fps_status status = enter_at_a_cut(call, at);
    if (status != FPS_OK) return status;
    for (uint32_t i = 0; i < call->n_parts; i++) {
        fps_part *part = &call->parts[i];
        const fps_header *header = part->session->arena->header;
        part->version = fps_load_relaxed(&header->version);
        part->wholes = part->version - fps_load_relaxed(&header->partials);
    }
    uint32_t left = call->n_parts;
    for (uint32_t stripe = 0; left > 0; stripe++) {
        status = read_stripes(call, stripe, streaming, &left, at);
        if (status != FPS_OK) return status;
    }
    for (uint32_t i = 0; i < call->n_parts; i++) fps_call_count(call, &call->parts[i]);
    return FPS_OK;
}

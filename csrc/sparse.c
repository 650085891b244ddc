#include "sparse.h"

#include <string.h>

#include "copy.h"
#include "hash.h"
#include "index.h"
#include "initial.h"
#include "redo.h"
#include "row.h"
#include "rowset.h"
#include "table.h"

/* Measured with 1 M and 10 M rows of 64 floats, where each row and each bucket also costs a page walk. Pulls prefetch
 * rows in blocks: prefetching one row per row read takes 1.5 times as long, blocks of 8 or 16 1.1 times. Pushes
 * prefetch one row per row written: blocks take 1.05 times as long. */
#define PULL_AHEAD 32u /* rows, or as many as fit into PULL_BYTES */
#define PULL_BYTES 16384u
#define PUSH_AHEAD 16u
#define PUSH_BYTES 6144u
#define PREFETCH_BYTES 1024u /* of a row; the processor prefetches the rest by itself */

typedef struct walk {
    const fps_sparse_call *call;
    fps_sparse_part *part;
    const fps_arena *arena;
    const fps_table *t;
    fps_seat *seat;
    fps_wait wait; /* once a push has begun no signal handler runs in it, and no Ctrl-C leaves half of it */
    bool past;     /* writes to outs bypass the caches */
    uint32_t now;  /* the tick of uses; 0: the table is not tracked */
} walk;

/* The first row with the tag, rarely that of another key. FPS_NO_ROW: this index does not have the key. */
static uint32_t first_row(const fps_table *t, const fps_index *index, uint32_t tag)
{
    const fps_word *slots = index->slots + (size_t)fps_index_bucket(index, tag) * FPS_BUCKET_SLOTS;
    uint32_t matches, empty, row = FPS_NO_ROW;
    fps_index_match(slots, tag, &matches, &empty);
    if (matches != 0) row = FPS_SLOT_ROW(fps_load_acquire(slots + __builtin_ctz(matches))); /* SYNC row-created */
    if (row < t->layout.max_rows || (matches == 0 && empty != 0)) return row;
    fps_search search; /* a tombstone, or a full bucket */
    row = fps_index_first(index, tag, &search);
    return row < t->layout.max_rows ? row : FPS_NO_ROW;
}

static void prefetch_row(const fps_table *t, uint32_t row, bool write)
{
    const uint64_t bytes = t->layout.row_bytes < PREFETCH_BYTES ? t->layout.row_bytes : PREFETCH_BYTES;
    const uint8_t *at = fps_row_at(t, row);
    for (uint64_t i = 0; i < bytes; i += 64) {
        if (write)
            __builtin_prefetch(at + i, 1);
        else
            __builtin_prefetch(at + i, 0);
    }
    __builtin_prefetch(at + bytes - 1);
}

/* How many rows to prefetch. */
static uint32_t ahead(const fps_table *t, uint32_t most, uint32_t bytes)
{
    const uint64_t rows = bytes / t->layout.row_bytes;
    return rows < 4 ? 4 : rows < most ? (uint32_t)rows : most;
}

static uint8_t *landing(const walk *w, uint32_t i) { return fps_rowcall_landing(w->call, w->part, w->t, i); }

static void landed(const walk *w, uint32_t i) { fps_rowcall_landed(w->call, w->part, w->t, i); }

/* Pull */

/* Reads a row whose first read failed; `*missing` if the key has no row. */
static fps_status pull_again(walk *w, uint32_t i, bool *missing)
{
    const uint64_t key = w->part->keys[i], hash = fps_hash(key);
    for (;;) {
        const uint32_t row = fps_rowset_search(w->t, key, hash);
        *missing = row == FPS_NO_ROW;
        if (*missing) return FPS_OK;
        fps_status status =
            fps_row_read_surely(w->arena, w->t, row, key, landing(w, i), w->t->at[0], w->t->bytes[0], &w->wait);
        if (status == FPS_OK) landed(w, i);
        if (status == FPS_OK && w->now) fps_row_track(fps_row_at(w->t, row), w->now, 1);
        if (status != FPS_ALREADY) return status;
    }
}

/* Reads the existing rows of n keys, those of `which` or all; the indices of the others go to `missing`, which may be
 * `which`. Three stages, a block apart: prefetch buckets; find rows and prefetch them; read. */
static fps_status pull_rows(walk *w, const uint32_t *which, uint32_t n, uint32_t *missing, uint32_t *n_missing)
{
    const fps_table *t = w->t;
    const uint64_t *keys = w->part->keys;
    const uint64_t word = fps_load_acquire(&t->control->index); /* SYNC index-swap */
    const fps_index index = fps_index_of(t, word);
    const uint32_t block = ahead(t, PULL_AHEAD, PULL_BYTES);
    uint32_t tags[2][PULL_AHEAD], rows[2][PULL_AHEAD];
    *n_missing = 0;
    for (uint64_t start = 0; start < n + 2 * (uint64_t)block; start += block) {
        for (uint64_t i = start; i < start + block && i < n && index.n_buckets > 0; i++) {
            const uint32_t tag = fps_hash_tag(fps_hash(keys[which ? which[i] : i]));
            tags[start / block & 1][i - start] = tag;
            fps_index_prefetch(&index, tag);
        }
        const uint64_t next = start - block, now = next - block;
        for (uint64_t i = next; start >= block && i < start && i < n; i++) {
            const uint32_t row = index.n_buckets ? first_row(t, &index, tags[next / block & 1][i - next]) : FPS_NO_ROW;
            rows[next / block & 1][i - next] = row;
            if (row != FPS_NO_ROW) prefetch_row(t, row, w->now != 0);
        }
        for (uint64_t i = now; start >= 2 * (uint64_t)block && i < next && i < n; i++) {
            const uint32_t k = which ? which[i] : (uint32_t)i, row = rows[now / block & 1][i - now];
            bool absent = row == FPS_NO_ROW;
            if (!absent &&
                fps_row_read(t, row, keys[k], landing(w, k), t->at[0], t->bytes[0], w->past) == FPS_READ_DONE) {
                landed(w, k);
                if (w->now) fps_row_track(fps_row_at(t, row), w->now, 1);
                continue;
            }
            fps_status status = absent ? FPS_OK : pull_again(w, k, &absent);
            if (status != FPS_OK) return status;
            if (absent) missing[(*n_missing)++] = k;
        }
    }
    /* SYNC index-swap: an index that is no longer current may lack rows. */
    atomic_thread_fence(memory_order_acquire);
    if (*n_missing == 0 || fps_load_relaxed(&t->control->index) == word) return FPS_OK;
    return pull_rows(w, missing, *n_missing, missing, n_missing);
}

/* Creates rows for the missing keys. */
static fps_status create_missing(walk *w, uint32_t n_missing)
{
    fps_batch *batch = w->part->batch;
    for (uint32_t i = 0; i < n_missing; i++) batch->keys[i] = w->part->keys[batch->missing[i]];
    fps_batch_unique(batch, batch->keys, n_missing);
    for (uint32_t u = 0; u < batch->n_unique; u++) batch->rows[u] = FPS_NO_ROW;
    return fps_table_create_rows(w->arena, w->t, batch->keys, batch->hashes, batch->n_unique, batch->rows, &w->wait);
}

/* The first values of a key that has no row. */
static void fill(const walk *w, uint32_t i)
{
    fps_initial_fill(&w->t->layout, w->part->keys[i], landing(w, i));
    landed(w, i);
}

static fps_status pull(walk *w)
{
    fps_sparse_part *part = w->part;
    fps_batch *batch = part->batch;
    fps_status status = fps_batch_reserve(batch, part->n, fps_rowcall_room(w->call, w->t));
    if (status != FPS_OK) return status;
    uint32_t n_missing = 0;
    part->version = fps_load_relaxed(&w->t->control->version);
    status = pull_rows(w, NULL, part->n, batch->missing, &n_missing);
    while (status == FPS_OK && n_missing > 0 && w->call->create) { /* again if others remove what was created here */
        status = create_missing(w, n_missing);
        if (status == FPS_OK) status = pull_rows(w, batch->missing, n_missing, batch->missing, &n_missing);
        if (status == FPS_OK && n_missing > 0 && fps_now_ns() >= w->wait.deadline_ns) status = FPS_TIMEOUT;
    }
    for (uint32_t i = 0; status == FPS_OK && i < n_missing; i++) fill(w, batch->missing[i]);
    return status;
}

/* Push */

/* Compares keys where tags may be ambiguous: rows of other keys become FPS_NO_ROW. Returns whether one is missing. */
static bool verify(walk *w)
{
    fps_batch *batch = w->part->batch;
    bool missing = false;
    for (uint32_t u = 0; u < batch->n_unique; u++) {
        if (batch->rows[u] != FPS_NO_ROW) batch->rows[u] = fps_rowset_search(w->t, batch->keys[u], batch->hashes[u]);
        missing |= batch->rows[u] == FPS_NO_ROW;
    }
    return missing;
}

/* Finds or creates the rows of all keys before the first one is changed. */
static fps_status find_rows(walk *w)
{
    const fps_table *t = w->t;
    fps_batch *batch = w->part->batch;
    const fps_index index = fps_index_of(t, fps_load_acquire(&t->control->index)); /* SYNC index-swap */
    const uint32_t n = batch->n_unique;
    bool missing = index.n_buckets == 0;
    for (uint32_t u = 0; u < n; u++) {
        if (u + PULL_AHEAD < n && index.n_buckets > 0)
            fps_index_prefetch(&index, fps_hash_tag(batch->hashes[u + PULL_AHEAD]));
        batch->rows[u] = first_row(t, &index, fps_hash_tag(batch->hashes[u]));
        missing |= batch->rows[u] == FPS_NO_ROW;
    }
    if (fps_load_relaxed(&t->control->live) + n > t->layout.max_rows) missing = verify(w);
    if (!missing) return FPS_OK;
    return fps_table_create_rows(w->arena, t, batch->keys, batch->hashes, n, batch->rows, &w->wait);
}

static void prepare(walk *w)
{
    const fps_sparse_call *call = w->call;
    double hyper[FPS_MAX_HYPER];
    if (call->kind == FPS_SET) return;
    fps_table_hyper(w->t, hyper);
    fps_rule_begin(w->part->uniforms, call->limit, call->scale);
    call->rule->prepare(hyper, (double)w->part->version, w->part->uniforms);
}

/* Creates rows for all keys, or for none; nothing is applied yet. */
static fps_status make_ready(walk *w)
{
    fps_sparse_part *part = w->part;
    fps_status status = fps_batch_reserve(part->batch, part->n, fps_rowcall_room(w->call, w->t));
    if (status != FPS_OK) return status;
    fps_batch_unique(part->batch, part->keys, part->n);
    status = find_rows(w);
    part->ready = status == FPS_OK;
    return status;
}

/* Begins a push, or resumes it in another session: then it was counted before, and keeps its uniforms. */
static void begin_push(walk *w)
{
    fps_sparse_part *part = w->part;
    fps_word *version = &w->t->control->version;
    part->seq = ++part->session->seq;
    if (!part->begun) {
        part->version = w->call->kind == FPS_SET ? fps_load_relaxed(version)
                                                 : atomic_fetch_add_explicit(version, 1, memory_order_relaxed) + 1;
        prepare(w);
    }
    fps_redo_begin(w->seat, part->position);
    atomic_signal_fence(memory_order_seq_cst);
    fps_store_relaxed(&w->seat->begun_seq, part->seq);
    part->begun = true;
    w->wait.interrupted = NULL;
}

/* Takes the lock of the current row of distinct key u. */
static fps_status take_row(walk *w, uint32_t u, uint64_t *word)
{
    fps_batch *batch = w->part->batch;
    const uint64_t key = batch->keys[u];
    for (fps_waiting waiting = fps_waiting_for(FPS_WAIT_ROW, &w->wait, w->arena->header);;) {
        fps_status status = FPS_OK;
        if (batch->rows[u] == FPS_NO_ROW) /* removed since it was found */
            status =
                fps_table_create_rows(w->arena, w->t, &batch->keys[u], &batch->hashes[u], 1, &batch->rows[u], &w->wait);
        if (status != FPS_OK) return status;
        status = fps_row_try(w->part->session, w->t, batch->rows[u], key, word);
        if (status == FPS_OK) return FPS_OK;
        if (status == FPS_ALREADY) {
            batch->rows[u] = fps_rowset_search(w->t, key, batch->hashes[u]);
            continue;
        }
        if (status == FPS_BUSY) status = fps_row_wait(w->arena, w->t, batch->rows[u], &waiting);
        if (status != FPS_OK) return status;
    }
}

static void apply_rule(walk *w, uint8_t *row, uint8_t *redo, const uint8_t *grad)
{
    const fps_table *t = w->t;
    const void *state[1 + FPS_MAX_SLOTS];
    void *results[1 + FPS_MAX_SLOTS];
    for (uint32_t k = 0; k <= t->layout.n_slots; k++) {
        state[k] = row + t->at[k];
        results[k] = redo + (t->at[k] - t->head_bytes);
    }
    w->call->rule->kernel(state, grad, results, (int64_t)t->layout.dim, 0, w->part->uniforms);
}

/* Of a repeated key, the last place counts. */
static void apply_set(walk *w, uint8_t *row, uint8_t *redo, uint32_t u)
{
    const fps_table *t = w->t;
    const uint64_t place = fps_rowcall_place(w->part, w->part->batch->last[u]);
    for (uint32_t k = 0; k <= t->layout.n_slots; k++) {
        const uint8_t *given = w->call->set[k];
        memcpy(redo + (t->at[k] - t->head_bytes), given ? given + place * t->bytes[k] : row + t->at[k], t->bytes[k]);
    }
}

static fps_status push_row(walk *w, uint32_t u)
{
    const fps_table *t = w->t;
    fps_batch *batch = w->part->batch;
    const bool sets = w->call->kind == FPS_SET, pulls = w->call->kind == FPS_PUSH_PULL;
    const uint8_t *grad = sets ? NULL : fps_rowcall_gradient(w->call, w->part, w->t, u);
    uint8_t *redo = fps_arena_redo(w->arena, w->part->session->index, 0);
    uint64_t word;
    fps_status status = take_row(w, u, &word);
    if (status != FPS_OK) return status;
    uint8_t *row = fps_row_at(t, batch->rows[u]);
    if (sets)
        apply_set(w, row, redo, u);
    else
        apply_rule(w, row, redo, grad);
    if (w->now) {
        uint32_t times = 0;
        for (uint32_t i = batch->first[u]; i != FPS_BATCH_END; i = batch->next[i]) times++;
        fps_row_track(row, w->now, times);
    }
    fps_redo_write_row(w->part->session, t, batch->rows[u], u + UINT64_C(1));
    fps_row_leave(t, batch->rows[u], fps_row_next(t, word));
    for (uint32_t i = batch->first[u]; pulls && i != FPS_BATCH_END; i = batch->next[i])
        fps_rowcall_deliver(w->call, w->part, t, i, redo);
    return FPS_OK;
}

static fps_status push(walk *w)
{
    fps_sparse_part *part = w->part;
    const fps_batch *batch = part->batch;
    const uint32_t rows_ahead = ahead(w->t, PUSH_AHEAD, PUSH_BYTES);
    fps_status status = FPS_OK;
    if (part->seq == 0) begin_push(w);
    for (uint32_t u = part->position, asked = u; status == FPS_OK && u < batch->n_unique; u++) {
        for (; asked < batch->n_unique && asked < u + rows_ahead; asked++)
            if (batch->rows[asked] != FPS_NO_ROW) prefetch_row(w->t, batch->rows[asked], true);
        status = push_row(w, u);
        if (status == FPS_OK) part->position = u + 1;
    }
    if (status == FPS_OK) fps_store_relaxed(&w->seat->applied_seq, part->seq);
    return status;
}

/* The pull of a push_pull that was resumed: `outs` lack the rows that an earlier attempt has changed. */
static fps_status pull_all(walk *w)
{
    for (uint32_t i = 0; i < w->part->n; i++) {
        bool absent;
        fps_status status = pull_again(w, i, &absent);
        if (status != FPS_OK) return status;
        if (absent) fill(w, i);
    }
    return FPS_OK;
}

static void count(const walk *w)
{
    fps_meters *m = &w->seat->meters;
    const uint64_t bytes = (uint64_t)w->part->n * w->t->bytes[0];
    const fps_kind kind = w->call->kind;
    if (kind == FPS_SET) return;
    fps_count(kind == FPS_PULL ? &m->pulls : kind == FPS_PUSH_PULL ? &m->push_pulls : &m->pushes, 1);
    if (fps_kind_writes(kind)) fps_count(&m->bytes_written, bytes);
    if (fps_kind_reads(kind)) fps_count(&m->bytes_read, bytes);
}

static fps_status walk_of(const fps_sparse_call *call, fps_sparse_part *part, bool past, walk *w)
{
    const fps_arena *arena = part->session->arena;
    *w = (walk){
        .call = call,
        .part = part,
        .arena = arena,
        .t = &arena->tables[call->table],
        .seat = part->session->seat,
        .wait = call->wait,
        .past = past,
    };
    if (part->begun) w->wait.interrupted = NULL;
    w->wait.meters = &w->seat->meters;
    if (w->t->layout.tracked && (call->create || call->kind == FPS_PUSH || call->kind == FPS_PUSH_PULL))
        w->now = fps_row_now(w->t);
    return fps_arena_state(arena);
}

static fps_status run_part(walk *w)
{
    const fps_sparse_call *call = w->call;
    fps_status status;
    if (fps_kind_writes(call->kind)) {
        const bool again = w->part->position > 0;
        status = w->part->applied ? FPS_OK : push(w);
        if (status == FPS_OK && !w->part->applied) count(w);
        if (status == FPS_OK) w->part->applied = true;
        if (status == FPS_OK && again && call->kind == FPS_PUSH_PULL) status = pull_all(w);
    } else {
        status = pull(w);
        if (status == FPS_OK) count(w);
    }
    w->part->done = status == FPS_OK;
    return status;
}

/* For a push, all rows exist on all shards before the first one is changed on any. */
fps_status fps_sparse_run(fps_sparse_call *call, uint32_t *at)
{
    const bool changes = fps_kind_writes(call->kind);
    fps_status status = FPS_OK;
    uint64_t bytes = 0;
    walk w;
    for (uint32_t i = 0; i < call->n_parts; i++)
        bytes += (uint64_t)call->parts[i].n * call->parts[i].session->arena->tables[call->table].bytes[0];
    const bool past = call->kind == FPS_PULL && bytes >= FPS_STREAM_BYTES;
    for (uint32_t i = 0; changes && i < call->n_parts && status == FPS_OK; i++) {
        *at = i;
        if (call->parts[i].done || call->parts[i].ready) continue;
        status = walk_of(call, &call->parts[i], past, &w);
        if (status == FPS_OK) status = make_ready(&w);
    }
    for (uint32_t i = 0; i < call->n_parts && status == FPS_OK; i++) {
        *at = i;
        if (call->parts[i].done) continue;
        status = walk_of(call, &call->parts[i], past, &w);
        if (status == FPS_OK) status = run_part(&w);
    }
    if (past) fps_copy_drain();
    atomic_thread_fence(memory_order_acquire); /* everything was read before the state of the arenas is checked */
    for (uint32_t i = 0; status == FPS_OK && i < call->n_parts; i++) {
        status = fps_arena_state(call->parts[i].session->arena); /* closed meanwhile: its memory was freed */
        *at = i;
    }
    return status;
}

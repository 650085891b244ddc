/* Tables of rows: arenas that have some, operations on one shard, keys whose tags are alike, and what holds of a table
 * that nobody works on. */
#ifndef FPS_TABLES_H
#define FPS_TABLES_H

#include "check.h"
#include "hash.h"
#include "index.h"
#include "row.h"
#include "rowset.h"
#include "scan.h"
#include "sparse.h"
#include "table.h"

/* What multiplies to 1 with an odd factor, modulo 2^64: each step doubles the bits that are right. */
static inline uint64_t inverse_of(uint64_t factor)
{
    uint64_t inverse = factor;
    for (int i = 0; i < 6; i++) inverse *= 2 - factor * inverse;
    return inverse;
}

/* The mixer backwards: any hash has a key. */
static inline uint64_t key_of_hash(uint64_t hash)
{
    hash = (hash ^ hash >> 31 ^ hash >> 62) * inverse_of(UINT64_C(0x94d049bb133111eb));
    hash = (hash ^ hash >> 27 ^ hash >> 54) * inverse_of(UINT64_C(0xbf58476d1ce4e5b9));
    return hash ^ hash >> 30 ^ hash >> 60;
}

/* The keys of one tag meet in the index; only a look at the rows tells them apart. */
static inline uint64_t key_of_tag(uint32_t tag, uint32_t i) { return key_of_hash((uint64_t)tag << 32 | i); }

/* Rows of float32 that begin with zeros. */
static inline fps_table_layout table_of(uint32_t dim, uint32_t n_slots, uint64_t max_rows)
{
    return (fps_table_layout){.dim = dim, .item_bytes = 4, .n_slots = n_slots, .seed = 7, .max_rows = max_rows};
}

static inline fps_arena_spec spec_of_tables(const fps_table_layout *tables, uint32_t n_tables, uint32_t n_sessions)
{
    fps_arena_spec spec = spec_of(0, 0, n_sessions);
    spec.tables = tables;
    spec.n_tables = n_tables;
    return spec;
}

static inline fps_arena make_tables(const fps_table_layout *tables, uint32_t n_tables, uint32_t n_sessions)
{
    fps_arena arena;
    fps_arena_spec spec = spec_of_tables(tables, n_tables, n_sessions);
    CHECK_EQ(fps_arena_create(&spec, &arena), FPS_OK);
    return arena;
}

static inline fps_arena make_table(fps_table_layout table, uint32_t n_sessions)
{
    return make_tables(&table, 1, n_sessions);
}

static inline uint64_t live_of(const fps_table *t) { return fps_load_relaxed(&t->control->live); }

static inline fps_kernel adding_kernel_of(const fps_table *t)
{
    uint32_t n_slots = t->layout.n_slots;
    CHECK(n_slots <= 2 && t->layout.row_slots == 0);
    if (t->layout.item_bytes == 8) return n_slots == 0 ? add_f64 : n_slots == 1 ? add_1_f64 : add_2_f64;
    return n_slots == 0 ? add_f32 : n_slots == 1 ? add_1_f32 : add_2_f32;
}

/* An operation on one shard of one table. It is filled in place, since it points into itself, and dropped in the end.
 */
typedef struct errand {
    fps_rule rule;
    fps_batch batch;
    fps_sparse_part part;
    fps_sparse_call call;
    uint32_t at;
} errand;

static inline void prepare_rows(errand *e, fps_session *session, uint32_t table, const uint64_t *keys, uint32_t n,
                                const void *grads, void *outs)
{
    const fps_table *t = &session->arena->tables[table];
    *e = (errand){.rule = {.prepare = prepare_nothing, .n_slots = t->layout.n_slots}};
    if (grads) e->rule.kernel = adding_kernel_of(t);
    e->part = (fps_sparse_part){.session = session, .keys = keys, .n = n, .batch = &e->batch};
    e->call = (fps_sparse_call){.kind = kind_of(grads != NULL, outs != NULL),
                                .table = table,
                                .grads = grads,
                                .outs = outs,
                                .rule = &e->rule,
                                .create = true,
                                .parts = &e->part,
                                .n_parts = 1,
                                .wait = {.deadline_ns = FPS_NEVER}};
}

static inline fps_status run_rows(errand *e)
{
    e->at = UINT32_MAX;
    return fps_sparse_run(&e->call, &e->at);
}

static inline void drop_errand(errand *e) { fps_batch_free(&e->batch); }

static inline fps_status push_rows(fps_session *session, uint32_t table, const uint64_t *keys, uint32_t n,
                                   const void *grads, void *outs)
{
    errand e;
    prepare_rows(&e, session, table, keys, n, grads, outs);
    fps_status status = run_rows(&e);
    drop_errand(&e);
    return status;
}

static inline fps_status pull_rows(fps_session *session, uint32_t table, const uint64_t *keys, uint32_t n, void *outs,
                                   bool create)
{
    errand e;
    prepare_rows(&e, session, table, keys, n, NULL, outs);
    e.call.create = create;
    fps_status status = run_rows(&e);
    drop_errand(&e);
    return status;
}

static inline fps_status set_rows(fps_session *session, uint32_t table, const uint64_t *keys, uint32_t n,
                                  const uint8_t *const *streams)
{
    errand e;
    prepare_rows(&e, session, table, keys, n, NULL, NULL);
    e.call.set = streams;
    e.call.kind = FPS_SET;
    fps_status status = run_rows(&e);
    drop_errand(&e);
    return status;
}

static inline fps_status remove_rows(const fps_session *session, uint32_t table, const uint64_t *keys, uint32_t n,
                                     uint8_t *const *values, uint8_t *removed)
{
    uint32_t done = 0;
    const fps_wait wait = {.deadline_ns = FPS_NEVER};
    return fps_table_remove(session, &session->arena->tables[table], keys, n, UINT32_MAX, values, removed, &done,
                            &wait);
}

/* All rows, so many at a time; answers how many there were. */
static inline uint32_t scan_rows(const fps_arena *arena, uint32_t table, uint32_t at_a_time, uint64_t *keys,
                                 uint8_t *const *streams)
{
    const fps_table *t = &arena->tables[table];
    const fps_wait wait = wait_ms(20000);
    uint64_t cursor = 0;
    uint32_t n = 0, more;
    do {
        uint8_t *behind[1 + FPS_MAX_SLOTS];
        for (uint32_t k = 0; k <= t->layout.n_slots; k++)
            behind[k] = streams[k] ? streams[k] + (uint64_t)n * t->bytes[k] : NULL;
        CHECK_EQ(fps_scan_rows(arena, t, &cursor, at_a_time, FPS_SCAN_ALL, keys + n, behind, NULL, NULL, &wait, &more),
                 FPS_OK);
        n += more;
    } while (more > 0);
    return n;
}

static inline uint32_t *known_rows(const fps_table *t)
{
    uint32_t *times = calloc(t->layout.max_rows, sizeof *times);
    CHECK(times != NULL);
    return times;
}

/* The index names each live row once, under the tag of its key, where a search finds it. */
static inline void check_index(const fps_table *t, uint32_t *times)
{
    const fps_control *c = t->control;
    const uint64_t word = fps_load_relaxed(&c->index), high = fps_load_relaxed(&c->high);
    const fps_index index = fps_index_of(t, word);
    uint64_t live = 0, tombstones = 0, empty = 0;
    CHECK_EQ(index.n_buckets, FPS_INDEX_BUCKETS(word));
    for (uint64_t i = 0; i < (uint64_t)index.n_buckets * FPS_BUCKET_SLOTS; i++) {
        const uint64_t slot = fps_load_relaxed(&index.slots[i]);
        tombstones += slot == FPS_SLOT_TOMBSTONE;
        empty += slot == FPS_SLOT_EMPTY;
        if (slot == FPS_SLOT_TOMBSTONE || slot == FPS_SLOT_EMPTY) continue;
        const uint32_t row = FPS_SLOT_ROW(slot);
        CHECK(row < high);
        uint8_t *at = fps_row_at(t, row);
        const uint64_t key = fps_load_relaxed(fps_row_key(at));
        CHECK_EQ(FPS_SLOT_TAG(slot), fps_hash_tag(fps_hash(key)));
        CHECK_EQ(fps_load_relaxed(fps_row_word(at)) & (FPS_ROW_FREE | 0xfff), 0);
        CHECK_EQ(fps_rowset_find(t, key, fps_hash(key)), row);
        CHECK_EQ(times[row]++, 0);
        live++;
    }
    CHECK_EQ(live, fps_load_relaxed(&c->live));
    CHECK_EQ(live, fps_load_relaxed(&c->rows_created) - fps_load_relaxed(&c->rows_removed));
    CHECK_EQ(tombstones, fps_load_relaxed(&c->tombstones));
    CHECK(index.n_buckets == 0 || empty > 0);
    CHECK(fps_load_relaxed(&c->index_backed[FPS_INDEX_GENERATION(word) & 1]) >=
          (uint64_t)index.n_buckets * FPS_BUCKET_BYTES);
}

/* Every other row that was ever used is dead, and waits for a key, once. */
static inline void check_free_rows(const fps_table *t, uint32_t *times)
{
    const fps_control *c = t->control;
    const uint64_t high = fps_load_relaxed(&c->high);
    uint64_t free_rows = 0;
    for (uint64_t next = fps_load_relaxed(&c->free); next != 0; free_rows++) {
        const uint64_t row = next - 1;
        CHECK(row < high);
        uint8_t *at = fps_row_at(t, (uint32_t)row);
        CHECK_EQ(times[row]++, 0);
        CHECK_EQ(fps_load_relaxed(fps_row_word(at)) & (FPS_ROW_FREE | 0xfff), FPS_ROW_FREE);
        next = fps_load_relaxed(fps_row_key(at));
    }
    CHECK_EQ(free_rows + fps_load_relaxed(&c->live), high);
}

/* What holds of a table that nobody works on. */
static inline void check_table(const fps_table *t)
{
    const fps_control *c = t->control;
    uint32_t *times = known_rows(t);
    check_index(t, times);
    check_free_rows(t, times);
    free(times);
    CHECK(fps_load_relaxed(&c->high) <= t->layout.max_rows);
    CHECK(fps_load_relaxed(&c->rows_backed) >= fps_load_relaxed(&c->high) * t->layout.row_bytes);
    CHECK_EQ(fps_lock_holder(&c->lock), 0);
    CHECK(!fps_lock_abandoned(&c->lock));
}

/* Whoever comes first behind a death repairs. */
static inline void enter_and_leave(const fps_arena *arena, const fps_table *t)
{
    const fps_wait wait = wait_ms(20000);
    CHECK_EQ(fps_rowset_enter(arena, t, &wait), FPS_OK);
    fps_rowset_leave(t);
}

#endif

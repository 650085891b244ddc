#include "plan.h"

#include <stdbool.h>
#include <string.h>

#include "half.h"

#define REDO_RESIDUE 3072u
#define PARAMS_RESIDUE 2048u
#define STRIPE_MIN_BYTES (UINT64_C(64) << 10)
#define STRIPE_ONLY_BYTES (UINT64_C(256) << 10)
#define STRIPE_MAX_BYTES (UINT64_C(1) << 20)
#define PARAMS_MAX_BYTES (UINT64_C(1) << 45)
#define CACHED_BYTES (UINT64_C(12) << 20)
#define TOTAL_MAX_BYTES (UINT64_C(1) << 46)
#define LEAVES_MAX (UINT32_C(1) << 24)

static uint64_t checksum(const void *layout, size_t length)
{
    const uint8_t *bytes = layout;
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < length; i++) hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
    return hash;
}

/* The next offset at or after `from` that is `residue` modulo a page. */
static uint64_t residue_up(uint64_t from, uint64_t residue) { return fps_page_up(from - residue) + residue; }

/* An eighth of the shard, so that workers can follow each other closely, within the best range of `bench dense`. */
static uint64_t choose_stripe_bytes(uint64_t params_bytes)
{
    uint64_t bytes = STRIPE_MIN_BYTES;
    if (params_bytes <= STRIPE_ONLY_BYTES) return STRIPE_ONLY_BYTES;
    while (bytes < STRIPE_MAX_BYTES && bytes * 8 < params_bytes) bytes *= 2;
    return bytes;
}

/* A block and its results share the first-level cache. Without slots, against numpy in place at 40 MB: 4 KiB 1.16, 8
 * KiB 1.10, 16 KiB 1.14 (Zen 3), and 1.18, 1.11, 1.07 at 80 MB (Sapphire Rapids). With the seven streams of Adam at 40
 * MB, against torch's fused step: 1 KiB 0.95, 2 KiB 0.93, 4 KiB 1.25, 16 KiB 1.6; at 800 KB 4 KiB is best. */
static uint32_t choose_block_bytes(uint64_t params_bytes, uint32_t n_slots)
{
    if (n_slots > 0) return params_bytes * (2 + n_slots) < CACHED_BYTES ? FPS_BLOCK_BYTES : FPS_BLOCK_BYTES / 2;
    return params_bytes >= UINT64_C(256) << 10 ? 2 * FPS_BLOCK_BYTES : FPS_BLOCK_BYTES;
}

void fps_table_plan_row(fps_table *t)
{
    const fps_table_layout *l = &t->layout;
    uint32_t at = t->head_bytes = l->tracked ? 24 : 16;
    for (uint32_t k = 0; k <= l->n_slots; k++) {
        t->at[k] = at;
        t->bytes[k] = l->item_bytes * (k > 0 && (l->row_slots >> (k - 1) & 1) ? 1 : l->dim);
        t->held[k] = k == 0 && l->stored ? t->bytes[0] / 2 : t->bytes[k];
        at += (t->held[k] + 3) / 4 * 4;
    }
    t->layout.row_bytes = (at + 7) / 8 * 8;
}

uint64_t fps_table_row_bytes(const fps_table_layout *table)
{
    fps_table t = {.layout = *table};
    fps_table_plan_row(&t);
    return t.layout.row_bytes;
}

/* Lays a table out from `from` on; returns its end, or 0 if it is invalid. */
static uint64_t plan_table(const fps_table_layout *spec, uint64_t from, uint64_t control_offset, fps_table_layout *out)
{
    fps_table t = {.layout = *spec};
    fps_table_layout *l = &t.layout;
    if (l->dim == 0 || l->dim > FPS_MAX_DIM || (l->item_bytes != 4 && l->item_bytes != 8)) return 0;
    if (l->n_slots > FPS_MAX_SLOTS || l->row_slots >> l->n_slots != 0) return 0;
    if (l->initial > FPS_INITIAL_NORMAL || l->tracked > 1 || l->stochastic > 1) return 0;
    if (l->stored && (l->item_bytes != 4 || l->stored > FPS_FLOAT16)) return 0;
    if (l->max_rows == 0 || l->max_rows > FPS_MAX_ROWS) return 0;
    fps_table_plan_row(&t);
    l->max_buckets = l->max_rows / 4 + FPS_MIN_BUCKETS;
    l->control_offset = control_offset;
    l->index_offset = fps_huge_up(from);
    l->index_stride = fps_huge_up(l->max_buckets * FPS_BUCKET_BYTES);
    l->rows_offset = l->index_offset + 2 * l->index_stride;
    l->checksum = checksum(l, offsetof(fps_table_layout, checksum));
    *out = *l;
    return fps_huge_up(l->rows_offset + l->max_rows * l->row_bytes);
}

fps_status fps_arena_plan(const fps_arena_spec *spec, fps_layout *out, fps_table_layout *tables)
{
    uint64_t stripe_bytes = spec->stripe_bytes ? spec->stripe_bytes : choose_stripe_bytes(spec->params_bytes);
    if (spec->n_tables > FPS_MAX_TABLES || (spec->params_bytes == 0 && spec->n_tables == 0)) return FPS_BAD_HEADER;
    if (spec->params_bytes > PARAMS_MAX_BYTES) return FPS_NO_MEMORY;
    if (spec->n_sessions == 0 || spec->n_sessions > FPS_MAX_SESSIONS) return FPS_BAD_HEADER;
    if (spec->n_slots > FPS_MAX_SLOTS || spec->isolation > FPS_ISOLATION_NONE) return FPS_BAD_HEADER;
    if (spec->n_leaves > LEAVES_MAX) return FPS_BAD_HEADER;
    if (stripe_bytes < FPS_BLOCK_BYTES || (stripe_bytes & (stripe_bytes - 1)) != 0) return FPS_BAD_HEADER;
    bool rounds = spec->policy.kind == FPS_BSP;
    if (spec->n_members > FPS_MAX_MEMBERS || spec->policy.kind > FPS_BSP || spec->policy.straggler_ns < 0)
        return FPS_BAD_HEADER;
    if (spec->policy.reduce > FPS_REDUCE_PARAMS || spec->policy.unused != 0) return FPS_BAD_HEADER;
    if (rounds && spec->isolation != FPS_ISOLATION_SHARD) return FPS_BAD_HEADER;
    if (rounds) { /* one lock: one process applies a round, and nothing else changes */
        while (stripe_bytes < spec->params_bytes) stripe_bytes *= 2;
    }
    uint64_t n_stripes = (spec->params_bytes + stripe_bytes - 1) / stripe_bytes;
    if (n_stripes == 0) n_stripes = 1;
    if (n_stripes > UINT32_MAX) return FPS_BAD_HEADER;

    *out = (fps_layout){
        .magic = FPS_MAGIC,
        .format_version = FPS_FORMAT_VERSION,
        .header_bytes = sizeof(fps_header),
        .shard_index = spec->shard_index,
        .shard_count = spec->shard_count,
        .n_sessions = spec->n_sessions,
        .n_stripes = (uint32_t)n_stripes,
        .stripe_bytes = stripe_bytes,
        .mutex_bytes = sizeof(pthread_mutex_t),
        .block_bytes = choose_block_bytes(spec->params_bytes, spec->n_slots),
        .sessions_offset = FPS_HEADER_BYTES,
        .params_bytes = spec->params_bytes,
        .n_slots = spec->n_slots,
        .isolation = spec->isolation,
        .n_tables = spec->n_tables,
        .n_leaves = spec->n_leaves,
    };
    uint64_t controls_offset = fps_page_up(FPS_HEADER_BYTES + out->n_tables * sizeof(fps_table_layout));
    if (out->n_tables > 0) out->sessions_offset = controls_offset + out->n_tables * (uint64_t)FPS_PAGE;
    memcpy(out->arena_id, spec->arena_id, sizeof out->arena_id);
    bool cached = spec->n_slots == 0 || spec->params_bytes * (2 + spec->n_slots) < CACHED_BYTES;
    out->ahead_bytes = cached ? 0 : out->block_bytes;
    out->redo_bytes = out->n_slots == 0 ? out->block_bytes : (out->block_bytes + FPS_STREAM_APART) * (1 + out->n_slots);
    for (uint32_t i = 0; i < out->n_tables; i++) { /* a row's new values */
        fps_table t = {.layout = spec->tables[i]};
        if (t.layout.dim > FPS_MAX_DIM || t.layout.n_slots > FPS_MAX_SLOTS || t.layout.item_bytes > 8)
            return FPS_BAD_HEADER;
        fps_table_plan_row(&t);
        uint64_t bytes = t.layout.row_bytes - t.head_bytes;
        if (out->redo_bytes < bytes) out->redo_bytes = (uint32_t)bytes;
    }
    out->stripes_offset = out->sessions_offset + (uint64_t)out->n_sessions * sizeof(fps_seat);
    out->n_members = spec->n_members;
    out->n_versions = rounds ? FPS_MAX_VERSIONS : 1;
    out->policy = spec->policy;
    out->board_offset = out->stripes_offset + n_stripes * sizeof(fps_stripe);
    uint64_t board_end = out->board_offset + sizeof(fps_board) + out->n_members * sizeof(fps_member);
    if (rounds) board_end += out->n_members * sizeof(fps_tray);
    out->redo_offset = residue_up(board_end, REDO_RESIDUE);
    out->params_offset = residue_up(out->redo_offset + (uint64_t)out->n_sessions * out->redo_bytes, PARAMS_RESIDUE);
    out->slot_stride = fps_page_up(out->params_bytes) + FPS_STREAM_APART;
    out->slots_offset = residue_up(out->params_offset + out->params_bytes, PARAMS_RESIDUE + FPS_STREAM_APART);
    out->counts_offset = fps_line_up(out->slots_offset + out->n_slots * out->slot_stride);
    out->fixed_bytes = fps_page_up(out->counts_offset + out->n_leaves * sizeof(fps_word));
    out->version_stride = fps_page_up(out->fixed_bytes - out->params_offset);
    out->trays_offset = residue_up(out->fixed_bytes + (out->n_versions - 1) * out->version_stride, PARAMS_RESIDUE);
    out->tray_stride = fps_page_up(fps_line_up(out->params_bytes) + out->n_leaves * sizeof(fps_word32));
    out->total_bytes = rounds ? fps_page_up(out->trays_offset + out->n_members * out->tray_stride) : out->fixed_bytes;
    for (uint32_t i = 0; i < out->n_tables; i++) {
        uint64_t control = controls_offset + i * (uint64_t)FPS_PAGE;
        uint64_t end = plan_table(&spec->tables[i], out->total_bytes, control, &tables[i]);
        if (end == 0) return FPS_BAD_HEADER;
        if (end > TOTAL_MAX_BYTES) return FPS_NO_MEMORY;
        out->total_bytes = end;
    }
    out->checksum = checksum(out, offsetof(fps_layout, checksum));
    return FPS_OK;
}

uint64_t fps_arena_bytes(const fps_arena_spec *spec)
{
    fps_layout layout;
    fps_table_layout tables[FPS_MAX_TABLES];
    if (fps_arena_plan(spec, &layout, tables) != FPS_OK) return 0;
    if (layout.n_versions == 1) return layout.fixed_bytes;
    uint32_t trays = spec->policy.quorum < spec->n_members ? spec->policy.quorum : spec->n_members;
    return layout.fixed_bytes + layout.version_stride + trays * layout.tray_stride;
}

/* The layout is a function of a few of its fields: any difference from its result is refused. */
fps_status fps_layout_parse(const void *bytes, size_t available, uint64_t file_bytes, fps_layout *out,
                            fps_table_layout *tables)
{
    fps_layout found, expected;
    fps_table_layout planned[FPS_MAX_TABLES];
    if (available < sizeof found) return FPS_TRUNCATED;
    memcpy(&found, bytes, sizeof found);
    if (found.magic != FPS_MAGIC) return FPS_BAD_MAGIC;
    if (found.format_version != FPS_FORMAT_VERSION) return FPS_BAD_VERSION;
    if (found.checksum != checksum(&found, offsetof(fps_layout, checksum))) return FPS_BAD_HEADER;
    fps_arena_spec spec = {
        .shard_index = found.shard_index,
        .shard_count = found.shard_count,
        .n_sessions = found.n_sessions,
        .n_slots = found.n_slots,
        .isolation = found.isolation,
        .n_members = found.n_members,
        .policy = found.policy,
        .params_bytes = found.params_bytes,
        .stripe_bytes = found.stripe_bytes,
        .n_tables = found.n_tables,
        .n_leaves = found.n_leaves,
        .tables = tables,
    };
    memcpy(spec.arena_id, found.arena_id, sizeof spec.arena_id);
    if (found.n_tables > FPS_MAX_TABLES) return FPS_BAD_HEADER;
    size_t tables_bytes = found.n_tables * sizeof *tables;
    if (tables_bytes > 0 && available < FPS_HEADER_BYTES + tables_bytes) return FPS_BAD_HEADER;
    if (tables_bytes > 0) memcpy(tables, (const uint8_t *)bytes + FPS_HEADER_BYTES, tables_bytes);
    if (found.stripe_bytes == 0 || fps_arena_plan(&spec, &expected, planned) != FPS_OK) return FPS_BAD_HEADER;
    if (memcmp(&found, &expected, sizeof found) != 0) return FPS_BAD_HEADER;
    if (memcmp(tables, planned, tables_bytes) != 0) return FPS_BAD_HEADER;
    if (file_bytes < found.total_bytes) return FPS_TRUNCATED;
    *out = found;
    return FPS_OK;
}

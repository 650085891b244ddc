/* The layout of an arena, as a function of its spec. Pure. */
#ifndef FPS_PLAN_H
#define FPS_PLAN_H

#include <stddef.h>
#include <stdint.h>

#include "layout.h"
#include "status.h"

/* What to create. */
typedef struct fps_arena_spec {
    uint8_t arena_id[16];
    uint32_t shard_index;
    uint32_t shard_count;
    uint32_t n_sessions;
    uint32_t n_slots;
    uint32_t isolation;
    uint32_t n_members;
    fps_policy policy;
    uint64_t params_bytes;
    uint32_t n_leaves;
    uint64_t stripe_bytes; /* 0: chosen from params_bytes; else a power of two, at least one block */
    uint32_t n_tables;
    const fps_table_layout *tables; /* the fields up to `max_rows`; the offsets follow from them */
} fps_arena_spec;

/* A process's view of a table. */
typedef struct fps_table {
    fps_table_layout layout;
    fps_control *control;
    uint8_t *index[2];
    uint8_t *rows;
    uint32_t number;
    uint32_t head_bytes;
    uint32_t at[1 + FPS_MAX_SLOTS];    /* offset of a stream in a row */
    uint32_t bytes[1 + FPS_MAX_SLOTS]; /* size of a stream of a row in arrays of callers, */
    uint32_t held[1 + FPS_MAX_SLOTS];  /* and in the row */
} fps_table;

/* The part of an arena that describes it. */
#define FPS_HEAD_BYTES (FPS_HEADER_BYTES + FPS_MAX_TABLES * sizeof(fps_table_layout))

/* The layout of an arena for `spec`, and of its tables. */
fps_status fps_arena_plan(const fps_arena_spec *spec, fps_layout *out, fps_table_layout *tables);

/* The offsets of the streams in a row, and its size. */
void fps_table_plan_row(fps_table *t);

/* Checks the first `available` bytes of an arena against the size that fstat gave. `tables` has room for
 * FPS_MAX_TABLES. */
fps_status fps_layout_parse(const void *bytes, size_t available, uint64_t file_bytes, fps_layout *out,
                            fps_table_layout *tables);

/* The memory of the arena for `spec` with as many workers as its quorum; 0 if it is invalid. */
uint64_t fps_arena_bytes(const fps_arena_spec *spec);

/* The bytes of a row in such a table: its values and slots, and 16 to 31 more. */
uint64_t fps_table_row_bytes(const fps_table_layout *table);

#endif

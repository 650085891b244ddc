/* What lies where in an arena: a function of what is asked for. Pure. */
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
    uint64_t stripe_bytes; /* 0: chosen from params_bytes; else a power of two, at least one block */
    uint32_t n_tables;
    const fps_table_layout *tables; /* what a table is, up to `max_rows`; where it lies follows from that */
} fps_arena_spec;

/* A process's view of a table. */
typedef struct fps_table {
    fps_table_layout layout;
    fps_control *control;
    uint8_t *index[2];
    uint8_t *rows;
    uint32_t number;
    uint32_t head_bytes;
    uint32_t at[1 + FPS_MAX_SLOTS];    /* where in a row a stream begins */
    uint32_t bytes[1 + FPS_MAX_SLOTS]; /* of a stream in a row */
} fps_table;

/* The beginning of an arena, as far as it says what it is. */
#define FPS_HEAD_BYTES (FPS_HEADER_BYTES + FPS_MAX_TABLES * sizeof(fps_table_layout))

/* The places of everything in an arena for `spec`, and of its tables. */
fps_status fps_arena_plan(const fps_arena_spec *spec, fps_layout *out, fps_table_layout *tables);

/* Where in a row its streams lie, and how long it is. */
void fps_table_plan_row(fps_table *t);

/* Checks the first `available` bytes of an arena against the size that fstat gave. `tables` has room for
 * FPS_MAX_TABLES. */
fps_status fps_layout_parse(const void *bytes, size_t available, uint64_t file_bytes, fps_layout *out,
                            fps_table_layout *tables);

/* How much memory the arena for `spec` takes with as many workers as its quorum; 0 when it cannot be. */
uint64_t fps_arena_bytes(const fps_arena_spec *spec);

/* The bytes of a row in such a table, of which its values and slots are all but 16 to 31. */
uint64_t fps_table_row_bytes(const fps_table_layout *table);

#endif

#include "redo.h"

void fps_redo_finish_piece(const fps_arena *arena, uint32_t seat, uint64_t from, uint64_t to)
{
    fps_seat *dead = &arena->seats[seat];
    const uint64_t record = fps_load_acquire(&dead->redo); /* SYNC redo-complete */
    const uint64_t position = FPS_REDO_POSITION(record), bytes = FPS_REDO_BYTES(record);
    const uint32_t streams = FPS_REDO_STREAMS(record);
    if ((record & FPS_REDO_COMPLETE) == 0 || (record & FPS_REDO_IS_ROW) != 0) return;
    if (fps_load_acquire(&dead->position) > position) return; /* SYNC redo-done */
    if (bytes == 0 || bytes > arena->layout.block_bytes || (streams & 15u) > arena->layout.n_slots) return;
    if (position < from || position >= to || bytes > to - position) return;
    fps_redo_copy_piece(arena, seat, position, streams, bytes);
    fps_redo_done(dead, position + bytes);
}

/* Idempotent: the redo block does not change until the row's mark is gone. */
void fps_redo_finish_row(const fps_arena *arena, uint32_t seat, const fps_table *t, uint32_t row)
{
    fps_seat *dead = &arena->seats[seat];
    const uint64_t record = fps_load_acquire(&dead->redo), position = fps_load_acquire(&dead->position);
    /* SYNC redo-complete, redo-done */
    if (record != (FPS_REDO_ROW(t->number, row, FPS_REDO_ROW_STEP(record)) | FPS_REDO_COMPLETE)) return;
    fps_redo_copy_row(arena, seat, t, row);
    if (FPS_REDO_STEP(position) == FPS_REDO_ROW_STEP(record)) fps_redo_done(dead, position + 1);
}

const fps_table *fps_redo_named_row(const fps_arena *arena, uint32_t seat, uint32_t *row)
{
    const uint64_t record = fps_load_relaxed(&arena->seats[seat].redo);
    const uint32_t table = FPS_REDO_ROW_TABLE(record);
    *row = FPS_REDO_ROW_NUMBER(record);
    if ((record & FPS_REDO_IS_ROW) == 0 || table >= arena->layout.n_tables) return NULL;
    return *row < arena->tables[table].layout.max_rows ? &arena->tables[table] : NULL;
}

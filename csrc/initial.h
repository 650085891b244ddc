/* The initial values of a row: a function of the table's seed and the row's key alone, independent of the number of
 * shards and of the order of creation. Plain arithmetic: the same bits on every machine. */
#ifndef FPS_INITIAL_H
#define FPS_INITIAL_H

#include <stdint.h>

#include "layout.h"

/* values[i] for i < layout->dim, of layout->item_bytes each; those that the row can hold. */
void fps_initial_fill(const fps_table_layout *layout, uint64_t key, void *values);

/* The same as the row holds them. */
void fps_initial_hold(const fps_table_layout *layout, uint64_t key, void *held);

/* The same without instructions that only some processors have. */
void fps_initial_fill_anywhere(const fps_table_layout *layout, uint64_t key, void *values);

#endif

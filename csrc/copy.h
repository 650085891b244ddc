/* Copies of parameters. */
#ifndef FPS_COPY_H
#define FPS_COPY_H

#include <stddef.h>

/* Through the caches. */
void fps_copy(void *restrict to, const void *restrict from, size_t bytes);

/* Bypassing the caches, for some hundred bytes; fps_copy_drain as below. */
void fps_copy_short(void *restrict to, const void *restrict from, size_t bytes);

/* Bypassing the caches; call fps_copy_drain before another thread may read the copy. */
void fps_copy_stream(void *restrict to, const void *restrict from, size_t bytes);
void fps_copy_drain(void);

#endif

/* Life locks: a robust lock that its owner holds for as long as it lives. The kernel marks the word when the owning
 * *thread* ends, so the locks of a process are taken by one thread that never does. */
#ifndef FPS_LIFE_H
#define FPS_LIFE_H

#include <stdint.h>

/* Runs `call(argument)` on this process's life thread, started at first need, and returns its answer; or -1 with errno
 * set when the thread could not be started. Calls from many threads take turns. */
int fps_life_run(int (*call)(void *argument), void *argument);

/* Counts the forks between the first process of this family and this one. A child holds none of its parent's locks, so
 * whoever sees another number than before has to open its sessions again. */
uint32_t fps_life_generation(void);

#endif

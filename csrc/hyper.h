/* Hyper-parameters of one rule, in shared memory: two sets, of which one is read while the other one is changed. So a
 * reader gets a consistent set without waiting, and a death in the middle of a change leaves the old one. */
#ifndef FPS_HYPER_H
#define FPS_HYPER_H

#include <stdint.h>

#include "layout.h"

/* One consistent set, which was the newest at some time during the call. */
void fps_hyper_read(const fps_hyper *hyper, double *values);

/* Those whose bit in `which` is 0 are kept. The caller holds the lock that serialises changes. */
void fps_hyper_change(fps_hyper *hyper, uint32_t which, const double *values);

#endif

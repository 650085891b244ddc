/* Hyper-parameters of one rule, in shared memory: two sets of them, of which one is read while the next change is made
 * in the other. So a reader gets one whole set and waits for nobody, and a death in the middle of a change leaves the
 * old one. */
#ifndef FPS_HYPER_H
#define FPS_HYPER_H

#include <stdint.h>

#include "layout.h"

/* One set, whole: that of the newest change, or of one that was the newest meanwhile. */
void fps_hyper_read(const fps_hyper *hyper, double *values);

/* Those whose bit in `which` is 0 stay. One change at a time: the caller holds the lock that sees to it. */
void fps_hyper_change(fps_hyper *hyper, uint32_t which, const double *values);

#endif

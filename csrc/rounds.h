/* Rounds: the gradients of many workers become one update, applied out of place.
 *
 * A worker writes its gradient to its tray in the arena of every shard and then gives it to the open round
 * (csrc/clock.c decides which gradients a round counts, in one place for all shards). A process that learns that a
 * round has closed brings a shard to it: it adds up the trays that count, in the order of ranks, and writes parameters
 * and slots of the next version beside the current one. One word, `current`, then publishes the new version. So a
 * published version never changes, readers need no lock, and a process that dies before that store has changed nothing.
 *
 * A round is applied before any worker gives to the next: a deposit first brings the shard to the previous round. So a
 * tray has been read when it is written again, and a shard is never more than one round behind.
 *
 * The turn to make the next version only avoids duplicate work; correctness does not depend on it. A session that dies
 * loses its turn at once, one that is stopped after the straggler timeout: it writes to a version of its own, and its
 * attempt to change `current` fails. */
#ifndef FPS_ROUNDS_H
#define FPS_ROUNDS_H

#include "call.h"
#include "clock.h"
#include "tray.h"

/* Runs the parts that are not done: brings each shard to the decision's round, then deposits `grads`, or copies one
 * round of all shards to `outs`, whose number is every part's `version`. With `streams`, sets values in a new version.
 * FPS_MIXED when shards are at other rounds than the decision allows: a newer decision is needed. FPS_BAD_DECISION,
 * with nothing changed, when the decision or the deposit names a rank that the arenas do not have. */
fps_status fps_rounds_run(fps_call *call, const fps_decision *decision, const fps_deposit *deposit, uint32_t *at);

#endif

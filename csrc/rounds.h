/* Rounds: the gradients of many workers become one update, applied out of place.
 *
 * A worker writes its gradient to its tray in the arena of every shard and then gives it to the open round
 * (csrc/clock.c decides which gradients a round counts, in one place for all shards). Whoever learns that a round has
 * closed brings a shard there: it adds up the trays that count, in the order of ranks, and writes parameters and slots
 * of the next version beside the current one. One word, `current`, then names the new one. So a version never changes
 * once it is named, a reader needs no lock, and a process that dies before that word has done nothing.
 *
 * A round is applied before anybody gives to the next: whoever deposits brings the shard to the round before first. So
 * a tray has been read when it is written again, and a shard is never more than one round behind.
 *
 * Whose turn it is to make the next version is a matter of politeness: it keeps two from doing the same work. One that
 * dies loses its turn at once, one that is stopped after the time that stragglers are given: the version that it writes
 * is its own, and `current` has changed when it wants to change it. */
#ifndef FPS_ROUNDS_H
#define FPS_ROUNDS_H

#include "clock.h"
#include "dense.h"
#include "tray.h"

/* Runs the parts that are not done: brings each shard to the decision's round, then deposits `grads`, or copies `outs`
 * out of one round of all shards, whose number is every part's `version`. Values that go with `streams` are set in a
 * version of their own. FPS_MIXED when shards are at other rounds than the decision allows: a newer one knows more.
 * FPS_BAD_DECISION, with nothing touched, when it, or the deposit, names a rank that the arenas do not have. */
fps_status fps_rounds_run(fps_call *call, const fps_decision *decision, const fps_deposit *deposit, uint32_t *at);

#endif

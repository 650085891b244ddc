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

/* A gradient on its way into a round. */
typedef struct fps_deposit {
    uint32_t rank;
    uint32_t number;     /* gradients of this worker for this round, with this one; number 1 takes the place of all */
    uint64_t generation; /* of the rank */
    uint64_t attempt;    /* grows with every deposit of a generation: one that comes twice, or late, changes nothing */
    uint64_t round;
} fps_deposit;

/* Runs the parts that are not done: brings each shard to the decision's round, then deposits `grads`, or copies `outs`
 * out of one round of all shards, whose number is every part's `version`. Values that go with `streams` are set in a
 * version of their own. FPS_MIXED when shards are at other rounds than the decision allows: a newer one knows more.
 * FPS_BAD_DECISION, with nothing touched, when it, or the deposit, names a rank that the arenas do not have. */
fps_status fps_rounds_run(fps_call *call, const fps_decision *decision, const fps_deposit *deposit, uint32_t *at);

/* Keeps the current version of a shard as it is until it is let go, and answers `current`. Pins are not counted, and an
 * operation lets its session's pin go: for longer ones a session of their own. */
uint64_t fps_rounds_pin(const fps_session *session);
/* Keeps a version that another session keeps, and will keep until this has been said to it. */
void fps_rounds_pin_too(const fps_session *session, uint32_t version);
void fps_rounds_unpin(const fps_session *session, uint32_t version);

#endif

"""A worker's session where updates are applied in rounds."""

from __future__ import annotations

import contextlib
from typing import Any

from fastps._core import Outcome
from fastps.client.attach import Attachment
from fastps.client.rounds import RoundSession
from fastps.client.view import View
from fastps.deadline import left_until
from fastps.errors import OptionError, WorkerExpelledError
from fastps.spec.arrays import Structure
from fastps.transport.contract import Deposit, Membership
from fastps.workers.worker import Reply, Worker

MOST = 65535  # FPS_GIVEN_MAX in csrc/layout.h

# What became of the gradients of a push that raised.
NOTHING = "nothing was done"
AGAIN = "nothing of this step counts: push all its gradients again"
IN_PLACE = "the gradients are in place, and the next operation gives them: do not push them again"


class RoundWorker(Worker):
    """A worker under `BSP`. Its clock is the round that its next gradient is for.

    A push gives a gradient to the round and does not wait for the others; the next operation does. With ``step=False``
    the gradient is added to those that the worker already has for the round, and the push that ends the step gives them
    all. Until then they do not count, and are lost when the worker leaves or dies.

    A pull or a view reads one round's parameters on all shards: those of the worker's clock, or with backup workers of
    a later round, to which the clock then jumps. Gradients that were accumulated for a round that has closed are lost.

    A push whose round has closed without it is dropped on every shard; `reply.counted` is False then.

    When a push raises, Ctrl-C included, its error or a note on it says what became of the gradients: nothing was done;
    nothing of this step counts, so all its gradients are to be pushed again; they will be given by the next operation;
    or they were given. In the last two cases they must not be pushed again. Where the error says none of these, nothing
    was done.
    """

    def __init__(self, attachment: Attachment, membership: Membership) -> None:
        super().__init__(attachment, membership)
        assert isinstance(self._arrays, RoundSession)
        self._rounds = self._arrays
        self._number = self._attempt = self._gives = 0  # gradients in the worker's trays; deposits and gives so far
        self._touched = False  # the push under way may have changed the trays
        self._counted = True  # what was given last

    def pull(self, *, out: Any = None, names: Any = None, timeout: float | None = None) -> Any:
        """As `ParameterServer.pull`: the parameters of this worker's round, once the one before has closed."""
        deadline = self._begin(timeout)
        return self._pull(out, *self._rounds.named(names, "pull"), deadline)

    def _pull(self, out: Any, structure: Structure, leaves: tuple[int, ...] | None, deadline: float) -> Any:
        decision = self._membership.decision()
        params, versions = self._rounds.pull_of(out, left_until(deadline), structure, leaves, decision)
        self._has_read(versions[0], deadline)
        self._reply(versions)
        return params

    def view(self, *, timeout: float | None = None) -> View:
        """As `ParameterServer.view`: read-only arrays on the parameters of this worker's round, which do not change."""
        deadline = self._begin(timeout)
        view, round = self._rounds.view_of_round(left_until(deadline), self._membership.decision())
        self._has_read(round, deadline)
        self._reply((round,) * len(self._shards))
        return view

    def push(
        self,
        grads: Any,
        *,
        step: bool = True,
        partial: bool = False,
        pulled: Any = None,
        timeout: float | None = None,
        resume: Any = None,
    ) -> Reply:
        """Gives gradients to this worker's round; with ``step=False`` keeps them, at most 65,534 times in a step, for
        the push that ends the step. There is nothing to resume. With ``partial=True``, of some arrays: the round
        reduces, for each array, the gradients that were given of it."""
        return self._give(grads, step, partial, pulled, timeout, resume)[0]

    def push_pull(
        self,
        grads: Any,
        *,
        step: bool = True,
        partial: bool = False,
        pulled: Any = None,
        out: Any = None,
        timeout: float | None = None,
        resume: Any = None,
    ) -> Any:
        """A push, then, once the round has closed, the parameters as that round left them; of a partial push those of
        its arrays."""
        outcome = Outcome()
        given, structure, leaves, timeout = self._given(grads, partial, out, timeout)
        reply, deadline = self._give(given, step, partial, pulled, timeout, resume)
        try:
            params = self._pull(out, structure, leaves, self._begin(left_until(deadline)))
            assert self.reply is not None
            self.reply = Reply(reply.clock, reply.staleness, self.reply.versions, reply.counted)
            return params
        except BaseException as error:
            outcome.counts = reply.counted
            what = "counts" if reply.counted else "came too late"
            outcome.tell(error, None, f"the push {what} in round {reply.clock}")
            raise

    def _given(
        self, grads: Any, partial: bool, out: Any, timeout: float | None
    ) -> tuple[Any, Structure, tuple[int, ...] | None, float | None]:
        """What a push_pull gives, a Part if it is partial; what it is to return: its structure, and the numbers of the
        arrays or None for all; and the rest of its timeout."""
        outcome, structure = Outcome(), self._rounds.structure
        if not partial or structure.is_array:
            return grads, structure, None, timeout
        try:
            deadline = self._deadline(timeout)
            part = self._rounds.part(grads, "push_pull", left_until(deadline))
            some = self._rounds.structure_of(part.leaves)
            if out is None:
                some.assemble(some.empty())  # a class that refuses None for the others does so before the push
            return part, some, part.leaves, left_until(deadline)
        except BaseException as error:
            outcome.counts = False
            outcome.tell(error, None, NOTHING)
            raise

    def _give(
        self, grads: Any, step: bool, partial: bool, pulled: Any, timeout: float | None, resume: Any
    ) -> tuple[Reply, float]:
        """A push: its reply, and its deadline. If `self.returns` is not `returns` any more, the worker was expelled and
        has rejoined meanwhile: its gradients are of an old round, and the step is over."""
        outcome, begun, counted, returns = Outcome(), False, False, self.returns
        try:
            refuse(pulled, resume)
            deadline = self._begin(timeout)
            gives, clock, self._touched, begun = self._gives, self.clock, False, True
            staleness = max(0, clock - self._progress)
            if self.returns == returns:
                counted = self._deposit(grads, partial, deadline)
            if step and self.returns == returns:
                self._owes_end = True
                self._end_step(deadline)
                counted = counted and self._counted
            self.reply = Reply(clock, staleness, (clock + 1,) * len(self._shards) if counted else (), counted)
            return self.reply, deadline
        except BaseException as error:  # only plain stores before `tell`: another handler may raise behind any call
            given = begun and self._gives > gives  # an end of the step before, that `_begin` owed, is none of this push
            says = NOTHING if not begun else IN_PLACE if self._owes_end else AGAIN if self._touched else NOTHING
            if given:
                says = f"the gradients were given to round {clock}: do not push them again"
            elif says is AGAIN:
                self._number = 0
            outcome.counts = counted and (self._counted if given else says is IN_PLACE)
            outcome.tell(error, None, says)
            raise

    def _deposit(self, grads: Any, partial: bool, deadline: float) -> bool:
        """Puts gradients into the worker's trays; False when they are skipped, or their round has closed."""
        if self._progress > self.clock:
            return False  # its round has closed: the end of the step reports that
        if self._number == MOST:
            raise OptionError(f"push: a step holds at most {MOST} gradients; end it with a push")
        self._attempt += 1
        place = (self.rank, self._number + 1, self._membership.generation, self._attempt, self.clock)
        try:
            deposited = self._place(grads, partial, place, deadline)
        except WorkerExpelledError:
            self._return(deadline)
            return False
        self._number += deposited
        return deposited

    def _place(self, grads: Any, partial: bool, place: Deposit, deadline: float) -> bool:
        decision = self._membership.decision()
        self._touched = True
        if self._rounds.deposit_directly(grads, place, decision, left_until(deadline), partial):
            return True
        self._touched = False
        pushing = self._rounds.pushing(grads, None, None, "push", left_until(deadline), partial=partial)
        if pushing is None:
            return False
        self._touched = True
        self._rounds.deposit(pushing, place, decision, left_until(deadline))
        return True

    def _end_step(self, deadline: float) -> None:
        """Idempotent: an error or a signal may interrupt it anywhere, and it is run again."""
        if self._number == 0:
            self._rounds.settle(left_until(deadline))  # as a deposit would: no give while a shard is behind
        try:
            self._counted = self._membership.give(self.clock, self._number, left_until(deadline))
        except WorkerExpelledError:
            self._counted = False
            self._return(deadline)
        self._gives += 1
        self._number = 0
        self._owes_end = False
        self.clock, self._progress = self._membership.state()
        if self._counted and self._progress >= self.clock:
            self._rounds.help(self._membership.decision())  # this gradient closed the round

    def _has_read(self, round: int, deadline: float) -> None:
        if round <= self.clock:
            return
        self._number = 0
        with contextlib.suppress(WorkerExpelledError):  # the next operation rejoins
            self._membership.catch_up(round, left_until(deadline))
        self.clock, self._progress = self._membership.state()

    def _return(self, deadline: float) -> None:
        self._number = 0
        super()._return(deadline)
        self.rank = self._membership.rank
        self.clock, self._progress = self._membership.state()


def refuse(pulled: Any, resume: Any) -> None:
    if resume is not None or pulled is not None:
        raise OptionError("push: in rounds there is nothing to resume, and all gradients are of one version")

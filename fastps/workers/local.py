"""A worker's session under `LocalSGD`: steps are local, parameters are averaged."""

from __future__ import annotations

import os
from typing import Any

from fastps._core import Arena, Outcome
from fastps.client.attach import Attachment
from fastps.client.view import View
from fastps.consistency import LocalSGD
from fastps.deadline import left_until
from fastps.errors import PlacementError
from fastps.kernels.loader import host_cpu
from fastps.machine import capacity
from fastps.spec.arrays import Structure
from fastps.transport.contract import Deposit, Membership, Operation
from fastps.transport.shm import group_of, in_leaves
from fastps.workers.rounds import NOTHING, RoundWorker, refuse
from fastps.workers.worker import Reply

MADE = "the step was made on this worker's copy: do not repeat it"
OWED_STEP = "the step was made on this worker's copy, and the next operation ends the round: do not repeat it"
SESSIONS = 2  # on a copy: its worker's, and one to spare


class LocalWorker(RoundWorker):
    """A worker under `LocalSGD`. Its clock counts rounds, not its steps.

    Operations change a copy of its own, in arenas of this process, by the same C calls and kernels as on a server. The
    push that completes the steps of a round puts the copy's parameters into the worker's trays and gives them; the next
    operation waits for the mean of all copies and continues from it. A push with ``step=False`` does not count as a
    step. Memory: a copy of parameters and slots, and one more of the parameters.
    """

    def __init__(self, attachment: Attachment, membership: Membership) -> None:
        super().__init__(attachment, membership)
        self._spec = spec = attachment.spec
        assert isinstance(spec.consistency, LocalSGD)
        self._steps_a_round = spec.consistency.steps
        theirs, ours = spec.node_of(0).cpu, host_cpu()
        if theirs != ours:
            raise PlacementError(
                f"worker: local steps run what was compiled on the node of shard 0, for {theirs.split(',')[0]}; this "
                f"node is {ours.split(',')[0]}, or has other features of it; place workers on nodes of one kind"
            )
        leaves = len(spec.structure.leaves)
        for plan in spec.plans:
            needed = Arena.size(plan.params_bytes, SESSIONS, spec.n_slots, n_leaves=leaves)
            capacity.require(needed, "worker: its local copy")
        self._arenas = {
            plan.index: Arena.create(
                os.urandom(16), f"local copy of {spec.label(plan.index)}", plan.index, len(self._shards),
                plan.params_bytes, SESSIONS, True, n_slots=spec.n_slots, n_leaves=leaves,
            )
            for plan in spec.plans
        }  # fmt: skip
        self._group = group_of(spec, self._arenas, buffers=leaves, offset=in_leaves(spec), slots=True)
        initial = [*(list(spec.rules[rule].initial) for rule, _ in spec.kernels), []]
        for part in range(len(self._arenas)):
            self._group.begin(part, initial)
        self._buffers = spec.structure.stored()
        self._begun = False  # the copy has this round's parameters
        self._steps = 0  # of this round

    def pull(self, *, out: Any = None, names: Any = None, timeout: float | None = None) -> Any:
        """The parameters of this worker's copy."""
        deadline = self._begin_locally(timeout)
        return self._pull(out, *self._rounds.named(names, "pull"), deadline)

    def _pull(self, out: Any, structure: Structure, leaves: tuple[int, ...] | None, deadline: float) -> Any:
        arrays = structure.empty() if out is None else structure.outs(out, "pull", self._spec.structure)
        outs = arrays if leaves is None else self._rounds.spread(leaves, arrays)
        self._reply(self._group.run(None, outs, left_until(deadline), leaves=leaves))
        return structure.assemble(arrays) if out is None else out

    def view(self, *, timeout: float | None = None) -> View:
        """Read-only arrays on this worker's copy: live memory, which its pushes change."""
        self._begin_locally(timeout)
        arenas, session = self._arenas, self._rounds.session
        return View(
            self._spec, lambda shard, position, nbytes: arenas[shard].window(position, nbytes), session.require_alive
        )  # fmt: skip

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
        """Applies the rule to this worker's copy; the last step of a round gives the copy's parameters to the round."""
        return self._give(grads, step, partial, pulled, timeout, resume)[0]

    def _give(
        self, grads: Any, step: bool, partial: bool, pulled: Any, timeout: float | None, resume: Any
    ) -> tuple[Reply, float]:
        versions: tuple[int, ...] = ()
        outcome, begun, returns = Outcome(), False, self.returns
        try:
            refuse(pulled, resume)
            deadline = self._begin_locally(timeout)
            steps, begun = self._steps, True
            clock, staleness = self.clock, max(0, self.clock - self._progress)
            counted = self.returns == returns  # otherwise the gradients belong to a copy that is gone
            if counted:
                pushing = self._rounds.pushing(grads, None, None, "push", left_until(deadline), partial=partial)
                counted = pushing is not None
                if pushing is not None:
                    versions = self._group.run(
                        pushing.grads, None, left_until(deadline), scale=pushing.scale, outcome=outcome,
                        leaves=pushing.leaves,
                    )  # fmt: skip
                if step:
                    counted = self._count_step(deadline) and counted
            self.reply = Reply(clock, staleness, versions, counted)
            return self.reply, deadline
        except BaseException as error:  # only plain stores before `tell`: another handler may raise behind any call
            whole = outcome.applied == self._shards
            if whole and step and self._steps == steps:
                self._steps += 1
                self._owes_end = self._steps >= self._steps_a_round
            outcome.counts = whole or (None if outcome.partial else False)
            says = NOTHING if not begun else OWED_STEP if self._owes_end else MADE if whole else ""
            outcome.tell(error, None if says else "push to this worker's copy", says)
            raise

    def end_step(self, *, timeout: float | None = None) -> None:
        """A step without a push."""
        deadline, outcome = self._begin_locally(timeout), Outcome()
        steps = self._steps
        try:
            self._count_step(deadline)
        except BaseException as error:
            outcome.tell(error, None, OWED_STEP if self._owes_end else MADE if self._steps != steps else NOTHING)
            raise

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
        """A push, then the copy as that push left it, of a partial push its arrays; after the last step of a round it
        waits for the mean of all copies and returns that."""
        outcome = Outcome()
        given, structure, leaves, timeout = self._given(grads, partial, out, timeout)
        reply, deadline = self._give(given, step, partial, pulled, timeout, resume)
        try:
            params = self._pull(out, structure, leaves, self._begin_locally(left_until(deadline)))
            self.reply = reply
            return params
        except BaseException as error:
            outcome.counts = True
            outcome.tell(error, None, MADE)
            raise

    def close(self) -> None:
        """Leaves, and frees the copy's memory except what views refer to."""
        if self._open:
            self._group.close()
            del self._group, self._arenas, self._buffers
        super().close()

    def __del__(self) -> None:
        if hasattr(self, "_group"):
            self._group.close()  # idle lanes refer to the group, and large memory does not trigger the collector

    def _begin_locally(self, timeout: float | None) -> float:
        """Brings the copy to the worker's round."""
        deadline, spec = self._begin(timeout), self._spec
        self._rounds.session.require_alive()
        if self._begun:
            return deadline
        _, versions = self._rounds.pull(
            spec.structure.assemble(self._buffers), left_until(deadline), None, self._membership.decision()
        )
        self._has_read(versions[0], deadline)
        self._group.run(self._buffers, None, left_until(deadline), streams=spec.streams()[:1])
        hyper = self._rounds.hyper_by_row(left_until(deadline))
        for arena in self._arenas.values():
            for row, values in enumerate(hyper):
                arena.configure(row, dict(enumerate(values)), 1.0)
        self._begun, self._steps = True, 0
        return deadline

    def _count_step(self, deadline: float) -> bool:
        """Counts a step; the last one of a round gives the copy. False when that round had closed already."""
        self._steps += 1
        if self._steps < self._steps_a_round:
            return True
        self._owes_end = True
        self._end_step(deadline)
        return self._counted

    def _end_step(self, deadline: float) -> None:
        """Puts the copy into the trays, unless it is there already, and gives it."""
        if self._number == 0 and self._progress <= self.clock:
            returns = self.returns
            self._group.run(None, self._buffers, left_until(deadline))
            self._deposit(self._buffers, False, deadline)
            if self.returns > returns:
                self._owes_end = self._counted = False
                return
        self._begun = False  # even if the next line raises, the next operation begins with the mean
        super()._end_step(deadline)

    def _place(self, grads: Any, partial: bool, place: Deposit, deadline: float) -> bool:
        self._rounds.deposit(Operation(grads=grads), place, self._membership.decision(), left_until(deadline))
        return True

    def _return(self, deadline: float) -> None:
        self._begun = False
        super()._return(deadline)

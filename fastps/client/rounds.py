"""A process's side of rounds: what is read is one round of all shards; what is pushed goes to a worker's rows.

Called by sessions and workers, from any thread. Whoever reads or writes brings the shards to the last round that closed
first, as far as others have not: see csrc/rounds.h.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fastps.client.view import View
from fastps.deadline import deadline_after, left_until
from fastps.errors import FastPSError, WaitTimeoutError
from fastps.transport.contract import MIXED, Work

if TYPE_CHECKING:
    from fastps._core import Decision, Held
    from fastps._core.core import Deposit
    from fastps.client.session import Session


class Rounds:
    """What a session does otherwise where updates are applied in rounds."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def decision(self, timeout: float) -> Decision:
        """The last round that closed, asked on the node of shard 0."""
        return next(t for t in self._session.transports if 0 in t.shards).decision(timeout)

    def reach(self, timeout: float) -> None:
        """Brings all shards to the last round that closed."""
        deadline = deadline_after(timeout)
        decision = self.decision(timeout)
        while not all(t.reach(decision, left_until(deadline)) for t in self._session.transports):
            decision = self._newer(deadline, "rounds")

    def help(self, decision: Decision) -> None:
        """Brings the shards of this node to a round, as far as that needs no waiting. What fails here fails again where
        it matters: in the next operation."""
        if self._session.shm is not None:
            with contextlib.suppress(FastPSError, MemoryError):
                self._session.shm.group.help(decision)

    def pull(self, out: Any, timeout: float | None, decision: Decision | None) -> tuple[Any, tuple[int, ...]]:
        """The parameters of one round, and its number a shard. Of the decision's round, or a later one."""
        session, structure = self._session, self._session.spec.structure
        deadline = deadline_after(session.limit(timeout))
        arrays = structure.empty() if out is None else None
        target = structure.assemble(arrays) if arrays else out
        while True:
            if decision is None and (session.shm is not None or len(session.transports) > 1):
                decision = self.decision(left_until(deadline))
            versions = session.run_round_directly(None, target, left_until(deadline), decision)
            if versions is None:
                arrays = arrays or structure.outs(out, "pull")
                versions = session.run(Work(outs=arrays, decision=decision), left_until(deadline), "pull")
            if is_one_round(versions):
                return target, versions
            decision = self._newer(deadline, "pull")

    def deposit_directly(self, grads: Any, place: Deposit, decision: Decision, timeout: float) -> bool:
        """Puts gradients into a worker's rows, where they count for nothing until they are given. False, having done
        nothing, when they need a closer look."""
        deadline = deadline_after(timeout)
        while True:
            versions = self._session.run_round_directly(grads, None, left_until(deadline), decision, place)
            if versions is None or is_one_round(versions):
                return versions is not None
            decision = self._newer(deadline, "push")

    def deposit(self, work: Work, place: Deposit, decision: Decision, timeout: float) -> None:
        """The same after that look."""
        deadline = deadline_after(timeout)
        while True:
            work = replace(work, decision=decision, deposit=place)
            if is_one_round(self._session.run(work, left_until(deadline), "push")):
                return
            decision = self._newer(deadline, "push")

    def view(self, timeout: float | None, decision: Decision | None) -> tuple[View, int]:
        """A view of one round, which does not change, and its number."""
        session = self._session
        session.arenas_of_all("view")
        assert session.shm is not None
        deadline = deadline_after(session.limit(timeout))
        while True:
            if decision is None:
                decision = self.decision(left_until(deadline))
            held: Held | None = None
            if session.shm.reach(decision, left_until(deadline)):
                held = session.shm.group.hold()
            session.require_alive()
            if held is not None:
                # All shards are here: part i is shard i.
                return View(session.spec, held.window, session.require_alive), held.round
            decision = self._newer(deadline, "view")

    def _newer(self, deadline: float, verb: str) -> Decision:
        left = left_until(deadline)
        if left == 0:
            raise WaitTimeoutError(f"{verb}: the shards did not come to one round in time; nothing was done")
        return self.decision(left)


def is_one_round(versions: tuple[int, ...]) -> bool:
    return len(set(versions)) == 1 and versions[0] != MIXED

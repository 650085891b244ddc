"""The client side of a server's arrays, where updates are applied in rounds: reads see one round on all shards, pushes
go to a worker's trays.

Every reader and writer first brings the shards to the last round that closed, unless others have: see csrc/rounds.h.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

from fastps._core import Decision, Held
from fastps.client.arrays import ArraySession
from fastps.client.view import View
from fastps.deadline import deadline_after, left_until
from fastps.errors import FastPSError, WaitTimeoutError
from fastps.spec.arrays import Structure
from fastps.transport.contract import MIXED, Deposit, Operation


class RoundSession(ArraySession):
    """An ArraySession in rounds. Only workers push."""

    def decision(self, timeout: float) -> Decision:
        """The last round that closed, asked on the node of shard 0."""
        decision: Decision = self.session.endpoint_of(0).ask("decision", timeout=timeout)
        return decision

    def settle(self, timeout: float) -> None:
        """Brings all shards to the last round that closed."""
        deadline = deadline_after(timeout)
        decision = self.decision(timeout)
        while not all(self.session.ask("reach", decision, timeout=left_until(deadline))):
            decision = self._newer(deadline, "rounds")

    def help(self, decision: Decision) -> None:
        """Brings the shards of this node to a round, as far as that is possible without waiting. Errors are ignored:
        the next operation raises them."""
        if self.session.shm is not None:
            with contextlib.suppress(FastPSError, MemoryError):
                self.session.shm.group.help(decision)

    def pull(
        self, out: Any, timeout: float | None, names: Any = None, decision: Decision | None = None
    ) -> tuple[Any, tuple[int, ...]]:
        """The parameters of one round, that of the decision or a later one, and its number for each shard."""
        return self.pull_of(out, timeout, *self.named(names, "pull"), decision)

    def _pull_part(
        self, out: Any, timeout: float | None, structure: Structure, leaves: tuple[int, ...]
    ) -> tuple[Any, tuple[int, ...]]:
        return self.pull_of(out, timeout, structure, leaves, None)

    def pull_of(
        self, out: Any, timeout: float | None, structure: Structure, leaves: tuple[int, ...] | None,
        decision: Decision | None,
    ) -> tuple[Any, tuple[int, ...]]:  # fmt: skip
        """`pull` of the arrays with these numbers, or all, in their structure."""
        session = self.session
        deadline = deadline_after(session.limit(timeout))
        arrays = structure.empty() if out is None else None
        target = out if arrays is None else structure.assemble(arrays)
        while True:
            if decision is None and (session.shm is not None or len(session.endpoints) > 1):
                decision = self.decision(left_until(deadline))
            partial = leaves is not None
            versions = self._round_directly(None, target, left_until(deadline), decision, None, partial, leaves)
            if versions is None:
                arrays = structure.outs(out, "pull", self.structure) if arrays is None else arrays
                outs = arrays if leaves is None else self.spread(leaves, arrays)
                pull = Operation(outs=outs, decision=decision, leaves=leaves)
                versions = session.run(pull, left_until(deadline), "pull")
            if is_one_round(versions):
                return target, versions
            decision = self._newer(deadline, "pull")

    def read(self, operation: Operation, timeout: float, verb: str) -> None:
        deadline = deadline_after(timeout)
        while not is_one_round(self.session.run(operation, left_until(deadline), verb)):
            if left_until(deadline) == 0:
                raise WaitTimeoutError(f"{verb}: the shards did not come to one round in time; try again")
            self.settle(left_until(deadline))

    def deposit_directly(
        self, grads: Any, place: Deposit, decision: Decision, timeout: float, partial: bool = False
    ) -> bool:
        """Puts gradients into a worker's trays, where they have no effect until they are given. False, with nothing
        done, if the fast path does not support the arguments."""
        deadline = deadline_after(timeout)
        while True:
            versions = self._round_directly(grads, None, left_until(deadline), decision, place, partial)
            if versions is None or is_one_round(versions):
                return versions is not None
            decision = self._newer(deadline, "push")

    def deposit(self, operation: Operation, place: Deposit, decision: Decision, timeout: float) -> None:
        """The same for checked gradients."""
        deadline = deadline_after(timeout)
        while True:
            operation = replace(operation, decision=decision, deposit=place)
            if is_one_round(self.session.run(operation, left_until(deadline), "push")):
                return
            decision = self._newer(deadline, "push")

    def view(self) -> View:
        return self.view_of_round(None, None)[0]

    def view_of_round(self, timeout: float | None, decision: Decision | None) -> tuple[View, int]:
        """A view of one round, which does not change, and its number."""
        session = self.session
        session.arenas_of_all("view")
        assert session.shm is not None
        deadline = deadline_after(session.limit(timeout))
        while True:
            if decision is None:
                decision = self.decision(left_until(deadline))
            held: Held | None = None
            if session.shm.verbs.reach(decision, left_until(deadline)):
                held = session.shm.group.hold()
            session.require_alive()
            if held is not None:
                # All shards are here: part i is shard i.
                return View(self.spec, held.window, session.require_alive), held.round
            decision = self._newer(deadline, "view")

    def _newer(self, deadline: float, verb: str) -> Decision:
        left = left_until(deadline)
        if left == 0:
            raise WaitTimeoutError(f"{verb}: the shards did not come to one round in time; nothing was done")
        return self.decision(left)

    def _round_directly(
        self, grads: Any, outs: Any, timeout: float, decision: Decision | None, deposit: Deposit | None = None,
        partial: bool = False, wanted: tuple[int, ...] | None = None,
    ) -> tuple[int, ...] | None:  # fmt: skip
        """As `_run_directly`."""
        if self.direct is None:
            return None
        pushes = deposit is not None
        try:
            arguments = (pushes, grads, not pushes, outs, timeout, decision, deposit, None)
            direct = self.direct
            versions = direct.run_some_if_fits(*arguments, wanted) if partial else direct.run_if_fits(*arguments)
        except WaitTimeoutError as error:
            raise self.session.late(error, False) from None
        return (MIXED,) if versions == () else versions


def is_one_round(versions: tuple[int, ...]) -> bool:
    return len(set(versions)) == 1 and versions[0] != MIXED

"""The client side of a server's arrays, where pushes are applied as they arrive. For rounds: `fastps.client.rounds`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastps._core import Outcome
from fastps.arrays.checks import apart
from fastps.arrays.types import Array, Arrays
from fastps.bounded import Bounded
from fastps.client.grad_buffer import GradBuffers
from fastps.client.session import Session
from fastps.client.view import View
from fastps.deadline import deadline_after, left_until
from fastps.errors import NamesError, OptionError, WaitTimeoutError
from fastps.messages import few
from fastps.spec.arrays import Structure
from fastps.transport.contract import Operation

MOST_PARTS = 1024  # structures that a session keeps for partial operations
MOST_PARTS_LEAVES = 1 << 17  # of all of them together; each takes about half a KiB


@dataclass(frozen=True)
class Part:
    """Checked gradients of a partial push: one array per leaf, of which those with the numbers `leaves` count."""

    grads: Arrays
    leaves: tuple[int, ...]


class ArraySession:
    """Operations on the arrays. Threads: any number.

    Attributes
    ----------
    session : runs them
    direct : the shards, if all are here: one C call checks and does everything, unless an argument needs a closer look
    grad_buffers : those that operations take over
    """

    def __init__(self, session: Session) -> None:
        self.session, self.spec, self.structure = session, session.spec, session.spec.structure
        self.direct = session.shm.group if session.shm and session.all_here else None
        self.grad_buffers = GradBuffers(self.structure)
        self._parts = Bounded[tuple[int, ...], Structure](MOST_PARTS, MOST_PARTS_LEAVES)

    def pull(self, out: Any, timeout: float | None, names: Any = None) -> tuple[Any, tuple[int, ...]]:
        """The parameters, or those with the names, and per shard their update count."""
        if names is not None:
            leaves = self.structure.named(names, "pull")
            return self._pull_part(out, timeout, self.structure_of(leaves), leaves)
        structure = self.structure
        arrays = structure.empty() if out is None else None
        target = out if arrays is None else structure.assemble(arrays)
        versions = None if self.direct is None else self._run_directly(False, None, True, target, timeout)
        if versions is None:
            outs = structure.outs(out, "pull") if arrays is None else arrays
            versions = self.session.run(Operation(outs=outs), timeout, "pull")
        return target, versions

    def pull_one(self, number: int, timeout: float | None) -> Array:
        """One array, by its number: the containers that it is in are not made."""
        if self.structure.is_array:
            whole: Array = self.pull(None, timeout)[0]
            return whole
        structure = self.structure.alone(number)
        array: Array = self._pull_part(None, timeout, structure, (number,))[0][structure.leaves[0].name]
        return array

    def _pull_part(
        self, out: Any, timeout: float | None, structure: Structure, leaves: tuple[int, ...]
    ) -> tuple[Any, tuple[int, ...]]:
        """Some of the arrays, put into a structure of these."""
        arrays = structure.empty() if out is None else None
        target = out if arrays is None else structure.assemble(arrays)
        direct = self.direct is not None
        versions = self._run_directly(False, None, True, target, timeout, None, True, leaves) if direct else None
        if versions is None:
            outs = self.spread(leaves, structure.outs(out, "pull", self.structure) if arrays is None else arrays)
            versions = self.session.run(Operation(outs=outs, leaves=leaves), timeout, "pull")
        return target, versions

    def named(self, names: Any, verb: str) -> tuple[Structure, tuple[int, ...] | None]:
        """The structure of the arrays with these names, and their numbers; None: all arrays."""
        if names is None:
            return self.structure, None
        leaves = self.structure.named(names, verb)
        return self.structure_of(leaves), leaves

    def part(self, grads: Any, verb: str, timeout: float) -> Part:
        """The gradients of a partial push. They are looked at once: references are fetched, and iterators used up."""
        return Part(*self.structure.part(self.session.resolve(grads, timeout), verb))

    @property
    def kept_leaves(self) -> int:
        """The leaves of the structures that are kept for partial operations."""
        return self._parts.size

    def structure_of(self, leaves: tuple[int, ...]) -> Structure:
        """The structure of some of the arrays."""
        found = self._parts.get(leaves)
        if found is None:
            found = self._parts.keep(leaves, self.structure.only(list(leaves)), len(leaves))
        return found

    def push(
        self,
        grads: Any,
        pulled: Any,
        timeout: float | None,
        resume: Any,
        outcome: Outcome,
        partial: bool = False,
    ) -> tuple[int, ...] | None:
        """Per shard the update count that it made, 0 where an earlier attempt had applied it; None if it was
        skipped."""
        if resume is None and pulled is None and self.direct is not None:
            versions = self._run_directly(True, grads, False, None, timeout, outcome, partial)
            if versions is not None:
                return versions
        deadline = deadline_after(self.session.limit(timeout))
        operation = self.pushing(grads, pulled, None, "push", left_until(deadline), resume, partial=partial)
        if operation is None:
            return None
        return self.session.run(operation, left_until(deadline), "push", resume, outcome)

    def push_pull(
        self, grads: Any, pulled: Any, out: Any, timeout: float | None, resume: Any, outcome: Outcome,
        partial: bool = False,
    ) -> tuple[Any, tuple[int, ...], bool]:  # fmt: skip
        """The parameters, of a partial push those that it has; their update counts; and whether the push was applied,
        not skipped."""
        if partial:
            return self._push_pull_part(grads, pulled, out, timeout, resume, outcome)
        if resume is not None:  # what was pushed before is not in this `out`
            deadline = deadline_after(self.session.limit(timeout))
            applied = self.push(grads, pulled, left_until(deadline), resume, outcome) is not None
            return *self.pull(out, left_until(deadline)), applied
        structure = self.structure
        fresh = structure.empty() if out is None else None
        target = out if fresh is None else structure.assemble(fresh)
        plain = pulled is None and self.direct is not None
        versions = self._run_directly(True, grads, True, target, timeout, outcome) if plain else None
        if versions is not None:
            return target, versions, True
        deadline = deadline_after(self.session.limit(timeout))
        arrays = structure.outs(out, "push_pull") if fresh is None else fresh
        operation = self.pushing(grads, pulled, arrays, "push_pull", left_until(deadline), theirs=out is not None)
        if operation is None:
            return target, self.session.run(Operation(outs=arrays), left_until(deadline), "push_pull"), False
        return target, self.session.run(operation, left_until(deadline), "push_pull", None, outcome), True

    def _push_pull_part(
        self, grads: Any, pulled: Any, out: Any, timeout: float | None, resume: Any, outcome: Outcome
    ) -> tuple[Any, tuple[int, ...], bool]:
        deadline = deadline_after(self.session.limit(timeout))
        if out is not None and pulled is None and resume is None and self.direct is not None:
            versions = self._run_directly(True, grads, True, out, left_until(deadline), outcome, True)
            if versions is not None:
                return out, versions, True
        part = self.part(grads, "push_pull", left_until(deadline))
        leaves, structure = part.leaves, self.structure_of(part.leaves)
        fresh = structure.empty() if out is None else None
        outs = self.spread(leaves, structure.outs(out, "push_pull", self.structure) if fresh is None else fresh)
        target = out if fresh is None else structure.assemble(fresh)
        if resume is not None:
            applied = self.push(part, pulled, left_until(deadline), resume, outcome, True) is not None
            pull = Operation(outs=outs, leaves=leaves)
            return target, self.session.run(pull, left_until(deadline), "push_pull"), applied
        theirs = out is not None
        operation = self.pushing(part, pulled, outs, "push_pull", left_until(deadline), theirs=theirs)
        if operation is None:
            pull = Operation(outs=outs, leaves=leaves)
            return target, self.session.run(pull, left_until(deadline), "push_pull"), False
        return target, self.session.run(operation, left_until(deadline), "push_pull", None, outcome), True

    def pushing(
        self,
        grads: Any,
        pulled: Any,
        outs: Arrays | None,
        verb: str,
        timeout: float,
        resume: Any = None,
        theirs: bool = False,
        partial: bool = False,
    ) -> Operation | None:
        """A push of checked gradients; None when it is to be skipped. `grads` may be a Part. `theirs`: `outs` are the
        caller's, and may share memory with the gradients."""
        deadline, resolve, structure = deadline_after(timeout), self.session.resolve, self.structure
        leaves: tuple[int, ...] | None = None
        if partial or isinstance(grads, Part):
            part = grads if isinstance(grads, Part) else self.part(grads, verb, left_until(deadline))
            given, leaves = part.grads, part.leaves
        else:
            given = structure.grads(resolve(grads, left_until(deadline)), verb)
        wanted = [rule.label for rule in self.spec.rules if rule.uses_pulled]
        if wanted and pulled is None:
            raise OptionError(f"{verb}: {wanted[0]} needs pulled=, the parameters with which grads were computed")
        if pulled is not None and not wanted:
            raise OptionError(f"{verb}: pulled= is for rules that use it; {self.spec.rules_label} does not")
        had = None
        if pulled is not None:
            value = resolve(pulled, left_until(deadline))
            whole = leaves is None
            had = structure.grads(value, f"{verb} pulled") if whole else structure.part(value, f"{verb} pulled")[0]
            lacking = [structure.leaves[i].name for i in leaves or () if had[i].shape != structure.leaves[i].shape]
            if lacking:
                raise NamesError(f"{verb} pulled: missing {few(lacking)}, of which there are gradients; pass them too")
        if outs is not None and theirs:  # gradients in the memory of `out` would be overwritten while they are read
            given = apart(given, outs)
            had = None if had is None else apart(had, outs)
        scale = self.session.scale(given, lambda number: f"`{structure.leaves[number].name}`", verb, resume)
        return None if scale is None else Operation(grads=given, outs=outs, pulled=had, scale=scale, leaves=leaves)

    def settle(self, timeout: float) -> None:
        """In rounds, applies the last round that closed before something else changes."""

    def slots(self, names: Sequence[str], timeout: float | None) -> dict[str, Any]:
        """The slots with these names, all of one moment for each shard."""
        deadline = deadline_after(self.session.limit(timeout))
        streams, found = self._streams(), dict[str, tuple[Structure, Arrays]]()
        for name in names:
            number, with_slot = self._slot(name, "slots")
            structure = self.structure.only(with_slot)
            found[name] = structure, structure.stored()
            streams[number] = self.spread(with_slot, found[name][1])
        if found:
            self.settle(left_until(deadline))
            self.read(Operation(gets=streams), left_until(deadline), "slots")
        return {name: structure.assemble(arrays) for name, (structure, arrays) in found.items()}

    def steps(self, timeout: float | None) -> Any:
        """The update count of each array that is trained; the largest, where its shards have different ones."""
        deadline = deadline_after(self.session.limit(timeout))
        self.settle(left_until(deadline))
        by_shard = self._no_steps()
        self.read(Operation(gets=self._streams(), steps=by_shard), left_until(deadline), "steps")
        return self.structure.only(self.structure.trained).assemble(list(self._counts(by_shard).values()))

    def everything(self, deadline: float, verb: str) -> tuple[dict[int, Arrays], dict[int, int]]:
        """The parameters and all slots by the number of their stream, as they are stored, one array per leaf; and the
        update count of each array that is trained. All of one moment for each shard."""
        streams, by_shard = self._streams(), self._no_steps()
        streams[0] = self.structure.stored()
        for number, slot in enumerate([] if self.spec.consistency.local else self.spec.slot_names(), 1):
            with_slot = self.spec.leaves_with(slot)
            streams[number] = self.spread(with_slot, self.structure.only(with_slot).stored())
        self.settle(left_until(deadline))
        self.read(Operation(gets=streams, steps=by_shard), left_until(deadline), verb)
        found = {number: arrays for number, arrays in enumerate(streams) if arrays is not None}
        return found, self._counts(by_shard)

    def read(self, operation: Operation, timeout: float, verb: str) -> None:
        """Reads streams of the parameters."""
        self.session.run(operation, timeout, verb)

    def set(
        self,
        params: Any,
        slots: Mapping[str, Any] | None,
        steps: Any,
        partial: bool,
        timeout: float | None,
        outcome: Outcome,
    ) -> None:
        """Sets parameters, slots and update counts without the rule."""
        deadline = deadline_after(self.session.limit(timeout))
        self._set_all(self._setting(params, slots, steps, partial, deadline), deadline, outcome, "set")

    def overwrite(
        self, parts: Sequence[tuple[int, ...]], values: Mapping[int, Mapping[int, Array]], counts: Mapping[int, int],
        deadline: float, outcome: Outcome, verb: str,
    ) -> None:  # fmt: skip
        """Sets the leaves of each part at once, in each shard between two pushes: by the number of a leaf, checked
        values by the number of their stream, and its update count. The leaves of one part have the same of these, or
        all that there are."""
        self._set_all([self._overwriting(leaves, values, counts) for leaves in parts], deadline, outcome, verb)

    def _overwriting(
        self, leaves: tuple[int, ...], values: Mapping[int, Mapping[int, Array]], counts: Mapping[int, int]
    ) -> Operation:
        """Sets what there is of these leaves. A count for what is carried is the largest, as `Structure.counts`."""
        streams = self._streams()
        for number in sorted({number for leaf in leaves for number in values[leaf]}):
            some = [leaf for leaf in leaves if number in values[leaf]]
            streams[number] = self.spread(some, [values[leaf][number] for leaf in some])
        counted = {leaf: counts[leaf] for leaf in leaves if leaf in counts}
        steps = self._steps_by_shard(dict.fromkeys(leaves, max(counted.values())) | counted) if counted else None
        return Operation(sets=streams, steps=steps, leaves=leaves if len(leaves) < len(self.structure.leaves) else None)

    def _set_all(self, operations: Sequence[Operation], deadline: float, outcome: Outcome, verb: str) -> None:
        self.settle(left_until(deadline))
        for operation in operations:
            try:
                self.session.run(operation, left_until(deadline), verb, None, outcome)
            except WaitTimeoutError as error:
                raise WaitTimeoutError(f"{verb}: {error}; call it again to set all of it") from None

    def _setting(
        self, params: Any, slots: Mapping[str, Any] | None, steps: Any, partial: bool, deadline: float
    ) -> list[Operation]:
        """The operations that set what is given, checked: one for all, or where only some arrays are given one for
        those of each stream, which may be others."""
        resolve, everything = self.session.resolve, tuple(range(len(self.structure.leaves)))
        chosen: list[tuple[int, Sequence[int], Any, str]] = []
        if params is not None:
            chosen.append((0, everything, params, "set"))
        if slots is not None and not isinstance(slots, Mapping):
            raise OptionError(f"set slots: expected a dict of slots by name, got {type(slots).__name__}")
        for name, values in (slots or {}).items():
            chosen.append((*self._slot(name, "set"), values, f"set slot {name!r}"))
        if not chosen or (steps is not None and params is None):
            raise OptionError("set: expected params, slots or both, and steps= with params alone")
        streams, operations, counts = self._streams(), list[Operation](), None
        for number, have, values, verb in chosen:
            structure = self.structure if number == 0 else self.structure.only(list(have))
            given = structure.values(resolve(values, left_until(deadline)), verb, partial)
            leaves = tuple(have[i] for i in given)
            streams[number] = self.spread(leaves, list(given.values()))
            if number == 0 and steps is not None:
                counts = self._steps_by_shard(structure.counts(steps, leaves, "set steps"))
            if partial and leaves:
                operations.append(Operation(sets=streams, leaves=leaves, steps=counts))
                streams, counts = self._streams(), None
        return operations if partial else [Operation(sets=streams, steps=counts)]

    def _no_steps(self) -> dict[int, Array]:
        """Room for the update counts of all runs."""
        return {plan.index: np.zeros(len(plan.runs), np.uint64) for plan in self.spec.plans}

    def _counts(self, by_shard: dict[int, Array]) -> dict[int, int]:
        """The update count of each array that is trained; the largest, where its shards have different ones."""
        counts = dict.fromkeys(self.structure.trained, 0)
        for plan in self.spec.plans:
            for run, step in zip(plan.runs, by_shard[plan.index].tolist(), strict=True):
                if run.leaf in counts:
                    counts[run.leaf] = max(counts[run.leaf], step)
        return counts

    def _steps_by_shard(self, counts: dict[int, int]) -> dict[int, Array]:
        """Those of the runs of these arrays."""
        return {
            plan.index: np.array([counts[run.leaf] for run in plan.runs if run.leaf in counts], np.uint64)
            for plan in self.spec.plans
        }

    def _streams(self) -> list[Arrays | None]:
        """Of an operation that reads or sets nothing yet."""
        return [None] * (1 + len(self.spec.slot_names()))

    def _slot(self, name: Any, verb: str) -> tuple[int, list[int]]:
        """The number of a slot among the streams, and those of the arrays that have it."""
        names = self.spec.slot_names()
        if self.spec.consistency.local:
            raise OptionError(f"{verb}: under {self.spec.consistency} each worker has slots of its own")
        if name not in names:
            raise OptionError(f"{verb}: {self.spec.rules_label} has no slot {name!r}, only {names}")
        return 1 + names.index(name), self.spec.leaves_with(name)

    def spread(self, leaves: Sequence[int], arrays: Arrays) -> Arrays:
        """One array per leaf: an empty one for other leaves."""
        by_leaf, nothing = dict(zip(leaves, arrays, strict=True)), np.empty(0, np.float32)
        return [by_leaf.get(i, nothing) for i in range(len(self.structure.leaves))]

    def configure(self, pattern: str | None, values: dict[str, Any], timeout: float | None, outcome: Outcome) -> None:
        deadline = deadline_after(self.session.limit(timeout))
        rules = [(row, rule) for row, rule in enumerate(self.spec.rules) if pattern is None or rule.pattern == pattern]
        if not rules:
            raise OptionError(
                f"configure: no rule has the pattern {pattern!r}; they are {[rule.pattern for rule in self.spec.rules]}"
            )
        changes = []
        for name in values:
            if not any(name in rule.hyper for _, rule in rules):
                known = list(dict.fromkeys(h for _, rule in rules for h in rule.hyper))
                raise OptionError(f"configure: unknown hyper-parameter `{name}`; the rules have {known}")
        for row, rule in rules:
            numbers = rule.numbers({n: v for n, v in values.items() if n in rule.hyper}, "configure")
            if numbers:
                changes.append((row, numbers))
        self.settle(left_until(deadline))
        for row, numbers in changes:
            self.session.ask("configure", None, row, numbers, timeout=left_until(deadline), outcome=outcome)

    def hyper(self, timeout: float | None) -> dict[str, dict[str, float | None]]:
        rows = self.hyper_by_row(self.session.limit(timeout))
        return {rule.pattern: rule.named(values) for rule, values in zip(self.spec.rules, rows, strict=True)}

    def hyper_by_row(self, timeout: float) -> list[list[float]]:
        """The hyper-parameters of each rule in order, read on one node; NaN stands for a schedule."""
        endpoint, deadline = self.session.endpoints[-1], deadline_after(timeout)  # this node's, if it has shards
        return [
            endpoint.ask("hyper", None, row, len(rule.hyper), timeout=left_until(deadline))
            for row, rule in enumerate(self.spec.rules)
        ]

    def view(self) -> View:
        session = self.session
        arenas = session.arenas_of_all("view")
        session.require_alive()
        return View(
            self.spec, lambda shard, position, nbytes: arenas[shard].window(position, nbytes), session.require_alive
        )  # fmt: skip

    def _run_directly(
        self, pushes: bool, grads: Any, pulls: bool, outs: Any, timeout: float | None, outcome: Outcome | None = None,
        partial: bool = False, wanted: tuple[int, ...] | None = None,
    ) -> tuple[int, ...] | None:  # fmt: skip
        """The update counts, if one C call could check the arguments and do everything; otherwise None."""
        assert self.direct is not None
        try:
            if partial:
                return self.direct.run_some_if_fits(pushes, grads, pulls, outs, timeout, None, None, outcome, wanted)
            return self.direct.run_if_fits(pushes, grads, pulls, outs, timeout, None, None, outcome)
        except WaitTimeoutError as error:
            raise self.session.late(error, pushes) from None

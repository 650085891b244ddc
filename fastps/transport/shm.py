"""Shards on the caller's node: their arenas are mapped, and the caller executes operations itself.

Called by sessions, from any thread, and by the gateway in a shard's process, for workers of other nodes. The arenas
belong to the shards' processes; this process maps them and keeps them mapped for as long as a view refers to them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fastps._core import Arena, Decision, Group, Outcome, TableGroup, shards_of
from fastps.arrays.types import Array, Arrays, numpy_dtype
from fastps.deadline import deadline_after, left_until
from fastps.errors import ClosedError, KeysError, ShardDiedError
from fastps.kernels.loader import addresses_of
from fastps.spec.server import ServerSpec
from fastps.transport.arenas import open_arena, require_alive
from fastps.transport.contract import MIXED, Operation
from fastps.transport.layout import Layouts

Offset = Callable[[int, int], tuple[int, int]]  # (shard, number of the run) -> (its buffer, the byte in that)
NO_ROW = 2**32 - 1
NOTHING = (0, 0, 0, 0)  # the rule, without a kernel, of arrays that are carried: pushes leave them alone
SCAN_BYTES = 32 << 20  # of rows in one batch


def in_leaves(spec: ServerSpec) -> Offset:
    """Where runs are when there is one buffer per array."""

    def offset(shard: int, number: int) -> tuple[int, int]:
        run = spec.plans[shard].runs[number]
        return run.leaf, run.start * spec.structure.leaves[run.leaf].item_bytes

    return offset


def group_of(
    spec: ServerSpec,
    arenas: dict[int, Arena],
    *,
    buffers: int,
    offset: Offset,
    direct: bool = False,
    slots: bool | None = None,
) -> Group:
    """The arenas with their spans and rules. `direct`: the group accepts arguments as users pass them; `slots`: whether
    the arenas have slots, None: if the server's shards have."""
    with_slots = not spec.consistency.local if slots is None else slots
    spans, kernels = [], spec.kernels
    for shard in arenas:
        runs = []
        for number, run in enumerate(spec.plans[shard].runs):
            leaf = spec.structure.leaves[run.leaf]
            which = (spec.rule_of_leaf[run.leaf], leaf.dtype)
            kernel = kernels.index(which) if leaf.trains else len(kernels)
            nbytes = run.count * leaf.item_bytes
            runs.append((run.position, nbytes, *offset(shard, number), kernel, leaf.item_bytes, run.leaf))
        spans.append(runs)
    images = spec.node_of(next(iter(arenas))).kernels[: len(kernels)]
    rules = [
        (*addresses_of(image), len(spec.rules[rule].slots) if with_slots else 0, rule)
        for image, (rule, _) in zip(images, kernels, strict=True)
    ]
    rules.append(NOTHING)
    leaves = spec.structure.leaves
    kinds = [(np.dtype(leaf.dtype), leaf.shape) for leaf in leaves] if direct else None
    names = [leaf.path[0] for leaf in leaves] if direct and not spec.structure.is_array else None
    limit = spec.gradients.clip_value
    streams = 1 + len(spec.slot_names())
    return Group(list(arenas.values()), spans, rules, buffers, spec.timeout, kinds, names, limit, streams)


def in_a_row(streams: list[Any]) -> Arrays:
    """The buffers of several streams, of which some are None."""
    return [buffer for buffers in streams if buffers is not None for buffer in buffers]


@dataclass(frozen=True)
class Done:
    """An operation that ended before `start` returned."""

    versions: dict[int, int]

    def finish(self) -> dict[int, int]:
        return self.versions


class Verbs:
    """What can be asked of the shards of a node, besides operations. `table` is a number, or None for the arrays. The
    last argument is the timeout; verbs that change something also take an outcome.

    Attributes
    ----------
    CHANGES : the verbs that change something
    """

    CHANGES = frozenset({"configure", "remove", "resume", "use"})

    def __init__(self, spec: ServerSpec, arenas: dict[int, Arena], group: Group) -> None:
        self.spec, self.shards, self.arenas, self.group = spec, tuple(arenas), arenas, group
        self.tables = [Rows(spec, number, arenas, group) for number in range(len(spec.tables))]

    def reach(self, decision: Decision, timeout: float) -> bool:
        """Brings the shards to a round that has closed. False when a newer decision is needed."""
        return self.group.run(None, None, timeout, decision=decision) != ()

    def decision(self, timeout: float) -> Decision:
        """The last round that closed. On the node of shard 0."""
        return self.arenas[0].decision()

    def skipped(self, timeout: float) -> None:
        """Counts a push that was not applied."""
        self.group.count_skipped(timeout)

    def configure(
        self, table: int | None, row: int, values: dict[int, float], timeout: float, outcome: Outcome | None = None
    ) -> None:
        """Changes hyper-parameters by their index: those of a rule of the arrays, or of a table."""
        deadline = deadline_after(timeout)
        require_alive(self.arenas)  # before any of them is changed
        if table is not None:
            self.tables[table].group.configure(values, timeout, outcome)
            return
        for arena in self.arenas.values():
            arena.configure(row, values, left_until(deadline), outcome)

    def hyper(self, table: int | None, row: int, count: int, timeout: float) -> list[float]:
        """The hyper-parameters of one of the shards."""
        first = next(iter(self.arenas.values()))
        values = first.hyper(row, count) if table is None else self.tables[table].group.hyper(count)
        require_alive(self.arenas)
        return values

    def counters(self, table: int | None, timeout: float) -> dict[int, dict[str, int]]:
        """Per shard, the counters of its arena, or of its part of a table."""
        if table is not None:
            return self.tables[table].counters_of_all()
        counted = {shard: arena.counters() for shard, arena in self.arenas.items()}
        require_alive(self.arenas)
        return counted

    def find(self, table: int, keys: Array, timeout: float) -> Array:
        """bool[n]: whether keys, all on these shards, have a row."""
        found: Array = self.tables[table].group.find(keys, timeout) != NO_ROW
        return found

    def seen(self, table: int, keys: Array, timeout: float) -> tuple[Array, Array]:
        """How many seconds ago rows were last used, and how often; NaN and 0 without a row."""
        return self.tables[table].group.seen(keys, timeout)

    def remove(
        self, table: int, keys: Array, wanted: list[bool], timeout: float, outcome: Outcome | None = None
    ) -> tuple[Array, list[Any]]:
        """Removes rows. Returns bool[n], which rows existed, and the wanted ones of their values and slots."""
        rows = self.tables[table]
        removed, streams = np.zeros(len(keys), np.bool_), rows.streams(len(keys), wanted)
        rows.expire(keys, 2**32 - 1, removed, streams, timeout, outcome)
        return removed, streams

    def resume(
        self, table: int, shard: int, version: int, now: int, timeout: float, outcome: Outcome | None = None
    ) -> None:
        """Gives a shard's part of a table an update count, and the time in its ticks."""
        self.tables[table].group.resume(self.shards.index(shard), version, now, timeout)

    def use(self, table: int, keys: Array, uses: Array, timeout: float, outcome: Outcome | None = None) -> None:
        """Records how many ticks ago and how often rows were used, uint32[n, 2]."""
        self.tables[table].group.use(keys, uses, timeout)

    def scan(
        self, table: int, shard: int, cursor: int, most: int, wanted: list[bool], timeout: float
    ) -> tuple[Array, list[Any], int]:
        """Up to `most` rows of a shard from `cursor` on: keys, the wanted ones of values and slots, and the next
        cursor. No rows at the end."""
        return self.tables[table].scan(shard, cursor, most, wanted, timeout)


class Rows:
    """A table's part on the shards of this node.

    Parameters
    ----------
    spec : the server
    number : of the table
    arenas : those of the shards
    group : of the same arenas
    """

    def __init__(self, spec: ServerSpec, number: int, arenas: dict[int, Arena], group: Group) -> None:
        self.info, self.number, self._shards = spec.tables[number], number, tuple(arenas)
        self._spec, self._arenas, self._of_arrays = spec, arenas, group

    @cached_property
    def group(self) -> TableGroup:
        """Made at first use: a process may use one table of many."""
        spec = self._spec
        image = spec.node_of(self._shards[0]).kernels[len(spec.kernels) + self.number]
        rule = (*addresses_of(image), len(self.info.rule.slots))
        limit = math.inf if self.info.counts_for is not None else spec.gradients.clip_value
        return TableGroup(self._of_arrays, self.number, self.info.name, len(spec.plans), rule, limit, self.info.keys)

    def views(self, keys: Array) -> list[Array]:
        """Read-only arrays on the rows of keys, which exist."""
        shards, rows = shards_of(keys, len(self._spec.plans)), self.group.find(keys)
        if (rows == NO_ROW).any():
            raise KeysError(f"view `{self.info.name}`: a row was evicted meanwhile; take the view again")
        windows = [self.group.window(int(shard), int(row)) for shard, row in zip(shards, rows, strict=True)]
        dtype = numpy_dtype(self.info.stored or self.info.dtype)
        return [np.frombuffer(memoryview(window), dtype) for window in windows]

    def expire(
        self,
        keys: Array,
        since: int,
        removed: Array,
        streams: list[Any],
        timeout: float | None,
        outcome: Outcome | None = None,
    ) -> None:
        """Removes rows that were not used after tick `since`. `removed` and `streams` say which, and what they held,
        also when it times out."""
        self.group.remove(keys, streams, removed.view(np.uint8), timeout, since, outcome)

    def scan(
        self, shard: int, cursor: int, most: int, wanted: list[bool], timeout: float
    ) -> tuple[Array, list[Any], int]:
        row_bytes = sum(n for (_, n), want in zip(self.info.streams, wanted, strict=True) if want) * 8
        most = min(most, max(1, SCAN_BYTES // max(1, row_bytes)))
        keys, streams = np.empty(most, np.uint64), self.streams(most, wanted)
        n, cursor = self.group.scan(self._shards.index(shard), cursor, keys, streams, None, timeout)
        return keys[:n], [None if stream is None else stream[:n] for stream in streams], cursor

    def begin_scan(self, shard: int, timeout: float) -> tuple[int, int, int, int]:
        """For `changes` that are asked for later: the epoch of the scan, the time in ticks, the update count, and how
        many rows were removed so far."""
        return self.group.begin_scan(self._shards.index(shard), timeout)

    def batches(
        self, shard: int, most: int, wanted: list[bool], deadline: float = math.inf
    ) -> Iterator[tuple[Array, list[Any], Array]]:
        """The rows of a shard in batches: keys, the wanted ones of values and slots, and per row the tick of its last
        use and how often it was used, where the table tracks that."""
        for keys, streams, seen, _ in self._scanned(shard, most, wanted, deadline, 0, 0, False):
            yield keys, streams, seen

    def changes(
        self, shard: int, most: int, epoch: int, tick: int, deadline: float
    ) -> Iterator[tuple[Array, list[Any], Array, Array]]:
        """The same of rows that were written, created or used since an earlier scan, with all of their values and
        slots; and the keys of the other rows in between."""
        yield from self._scanned(shard, most, [True] * len(self.info.streams), deadline, epoch, tick, True)

    def _scanned(
        self, shard: int, most: int, wanted: list[bool], deadline: float, epoch: int, tick: int, with_others: bool
    ) -> Iterator[tuple[Array, list[Any], Array, Array]]:
        cursor, part, n_others = 0, self._shards.index(shard), 0
        others = np.empty(most if with_others else 0, np.uint64)
        while True:
            keys, streams, seen = np.empty(most, np.uint64), self.streams(most, wanted), np.empty((most, 2), np.uint32)
            left = None if deadline == math.inf else left_until(deadline)
            if with_others:
                n, cursor, n_others = self.group.scan(part, cursor, keys, streams, seen, left, epoch, tick, others)
            else:
                n, cursor = self.group.scan(part, cursor, keys, streams, seen, left)
            if n + n_others == 0:
                return
            yield keys[:n], [None if stream is None else stream[:n] for stream in streams], seen[:n], others[:n_others]

    def now(self, shard: int) -> int:
        """The time in a shard's ticks."""
        return self.group.now(self._shards.index(shard))

    def counters(self, shard: int) -> dict[str, int]:
        return self.counters_of_all()[shard]

    def counters_of_all(self) -> dict[int, dict[str, int]]:
        """By shard."""
        counted: dict[int, dict[str, int]] = self.group.counters()
        require_alive(self._arenas)
        return counted

    def streams(self, n: int, wanted: list[bool]) -> list[Any]:
        return [self.info.empty(n, k) if want else None for k, want in enumerate(wanted)]


class ShmEndpoint:
    """Reaches shards of this node. See contract.Endpoint.

    Parameters
    ----------
    spec : the server
    arenas : those of the shards, mapped
    group : of the same arenas
    layouts : of messages, if operations have their buffers and not one array per leaf
    """

    def __init__(
        self, spec: ServerSpec, arenas: dict[int, Arena], group: Group, layouts: Layouts | None = None
    ) -> None:
        self.shards, self.arenas, self.group, self._layouts = tuple(arenas), arenas, group, layouts
        self.verbs = Verbs(spec, arenas, group)
        self._streams = spec.streams()

    @classmethod
    def of_leaves(cls, spec: ServerSpec, shards: tuple[int, ...]) -> ShmEndpoint:
        """Maps the arenas; operations have one array per leaf."""
        arenas, leaves = {shard: open_arena(spec, shard) for shard in shards}, spec.structure.leaves
        # All shards are here, users pass an array or a dict of arrays, and gradients need no inspection: the group can
        # take what they pass.
        direct = len(shards) == len(spec.plans) and spec.structure.is_plain
        direct = direct and not spec.gradients.inspects and not any(rule.uses_pulled for rule in spec.rules)
        group = group_of(spec, arenas, buffers=len(leaves), offset=in_leaves(spec), direct=direct)
        return cls(spec, arenas, group)

    @classmethod
    def of_layouts(cls, spec: ServerSpec, arenas: dict[int, Arena], layouts: Layouts) -> ShmEndpoint:
        """Operations have the two buffers of messages."""
        return cls(spec, arenas, group_of(spec, arenas, buffers=2, offset=layouts.of(None).place), layouts)

    def _place(self, leaves: tuple[int, ...] | None) -> Offset | None:
        """Where the spans of a partial operation are in its buffers, by (part, span)."""
        if leaves is None or self._layouts is None:
            return None
        layout = self._layouts.of(leaves)
        return lambda part, number: layout.place(self.shards[part], number)

    def start(
        self,
        operation: Operation,
        timeout: float,
        resume: Any = None,
        outcome: Outcome | None = None,
        *,
        together: bool = False,
    ) -> Done:
        """See `Endpoint`. `together`: `gets` are those of one moment, at which no push has entered some shards only."""
        op = operation
        if op.table is not None:
            grads, outs = op.grads and op.grads[0], op.outs and op.outs[0]
            group = self.verbs.tables[op.table].group
            versions = group.run(op.keys, grads, outs, op.sets, op.create, timeout, resume, op.scale, outcome)
        else:
            chosen = op.sets or op.gets
            streams = chosen and [self._streams[k] for k, arrays in enumerate(chosen) if arrays is not None]
            steps = None if op.steps is None else [op.steps[shard] for shard in self.shards]
            versions = self.group.run(
                op.grads if op.sets is None else in_a_row(op.sets), op.outs if op.gets is None else in_a_row(op.gets),
                timeout, resume, op.pulled, op.scale, streams, op.decision, op.deposit, outcome, op.leaves,
                self._place(op.leaves), op.initial, steps, together,
            )  # fmt: skip
        return Done(dict(zip(self.shards, versions or [MIXED] * len(self.shards), strict=True)))

    def ask(self, verb: str, *arguments: Any, timeout: float, outcome: Outcome | None = None) -> Any:
        more = (outcome,) if verb in Verbs.CHANGES else ()
        return getattr(self.verbs, verb)(*arguments, timeout, *more)

    def tell(self, verb: str, *arguments: Any) -> None:
        self.ask(verb, *arguments, timeout=0.0)

    def alive(self) -> bool:
        """Whether no arena was closed and no owner has died."""
        try:
            require_alive(self.arenas)
        except (ClosedError, ShardDiedError):
            return False
        return True

    def close(self) -> None:
        self.group.close()

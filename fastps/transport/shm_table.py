"""Tables on the caller's node: the caller executes operations on their rows itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastps._core import Group, Outcome, TableGroup, shards_of
from fastps.errors import KeysError
from fastps.kernels.loader import addresses_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastps._core import Arena
    from fastps.spec.server import ServerSpec
    from fastps.transport.contract import TableWork

NO_ROW = 2**32 - 1
SCAN_BYTES = 32 << 20  # at once, of rows however long they are


def require_alive(arenas: dict[int, Arena]) -> None:
    """Raises ClosedError or ShardDiedError when one is closed, or its owner has died. What was read before, in their
    order, is of a server that was alive. Cost: two loads a shard."""
    for arena in arenas.values():
        arena.check()


@dataclass(frozen=True)
class Done:
    """An operation that ended before `start` returned."""

    versions: dict[int, int]

    def finish(self) -> dict[int, int]:
        return self.versions


class ShmTable:
    """Reaches a table's part on the shards of one node from a process on it. See contract.TableTransport."""

    def __init__(self, spec: ServerSpec, group: Group, number: int, arenas: dict[int, Arena]) -> None:
        self.shards, self.info, self._num_shards = tuple(arenas), spec.tables[number], len(spec.plans)
        self._arenas = arenas
        image = spec.addresses[self.shards[0]].kernels[len(spec.kernels) + number]
        rule = (*addresses_of(image), len(self.info.rule.slots))
        limit = math.inf if self.info.counts_for is not None else spec.gradients.clip_value
        self.group = TableGroup(group, number, self.info.name, len(spec.plans), rule, limit, self.info.keys)

    def start(self, work: TableWork, timeout: float | None, resume: Any = None, outcome: Outcome | None = None) -> Done:
        versions = self.group.run(
            work.keys, work.grads, work.outs, work.sets, work.create, timeout, resume, work.scale, outcome
        )  # fmt: skip
        return Done(dict(zip(self.shards, versions, strict=True)))

    def find(self, keys: Any, timeout: float | None) -> np.ndarray[Any, np.dtype[np.bool_]]:
        found: np.ndarray[Any, np.dtype[np.bool_]] = self.group.find(keys) != NO_ROW
        return found

    def views(self, keys: Any) -> list[np.ndarray[Any, np.dtype[Any]]]:
        """Read-only arrays on the rows of keys, which are there."""
        shards, rows = shards_of(keys, self._num_shards), self.group.find(keys)
        if (rows == NO_ROW).any():
            raise KeysError(f"view `{self.info.name}`: a row was evicted meanwhile; take the view again")
        windows = [self.group.window(int(shard), int(row)) for shard, row in zip(shards, rows, strict=True)]
        return [np.frombuffer(memoryview(window), self.info.dtype) for window in windows]

    def remove(
        self, keys: Any, wanted: list[bool], timeout: float | None, outcome: Outcome | None = None
    ) -> tuple[Any, list[Any]]:
        removed, streams = np.zeros(len(keys), np.bool_), self.streams(len(keys), wanted)
        self.expire(keys, 2**32 - 1, removed, streams, timeout, outcome)
        return removed, streams

    def expire(
        self,
        keys: Any,
        since: int,
        removed: Any,
        streams: list[Any],
        timeout: float | None,
        outcome: Outcome | None = None,
    ) -> None:
        """Removes rows that nobody has asked for since that tick; which and what they held is in the arrays, when it
        times out, too."""
        self.group.remove(keys, streams, removed.view(np.uint8), timeout, since, outcome)

    def scan(
        self, shard: int, cursor: int, most: int, wanted: list[bool], timeout: float | None
    ) -> tuple[Any, list[Any], int]:
        row_bytes = sum(n for (_, n), want in zip(self.info.streams, wanted, strict=True) if want) * 8
        most = min(most, max(1, SCAN_BYTES // max(1, row_bytes)))
        keys, streams = np.empty(most, np.uint64), self.streams(most, wanted)
        n, cursor = self.group.scan(self.shards.index(shard), cursor, keys, streams, None, timeout)
        return keys[:n], [None if stream is None else stream[:n] for stream in streams], cursor

    def scan_seen(self, shard: int, most: int) -> Iterator[tuple[Any, Any]]:
        """The keys of a shard's rows in batches, and per row when it was asked for, in ticks, and how often."""
        cursor, part, none = 0, self.shards.index(shard), [None] * len(self.info.streams)
        while True:
            keys, seen = np.empty(most, np.uint64), np.empty((most, 2), np.uint32)
            n, cursor = self.group.scan(part, cursor, keys, none, seen)
            if n == 0:
                return
            yield keys[:n], seen[:n]

    def now(self, shard: int) -> int:
        """The time as a shard's rows know it, in ticks."""
        return self.group.now(self.shards.index(shard))

    def seen(self, keys: Any, timeout: float | None) -> tuple[Any, Any]:
        return self.group.seen(keys)

    def streams(self, n: int, wanted: list[bool]) -> list[Any]:
        return [self.info.empty(n, k) if want else None for k, want in enumerate(wanted)]

    def configure(self, values: dict[int, float], timeout: float, outcome: Outcome) -> None:
        require_alive(self._arenas)  # all of them: none changes alone
        self.group.configure(values, timeout, outcome)

    def hyper(self, count: int, timeout: float) -> list[float]:
        values = self.group.hyper(count)
        require_alive(self._arenas)
        return values

    def counters(self, timeout: float | None) -> dict[int, dict[str, int]]:
        counted = self.group.counters()
        require_alive(self._arenas)
        return counted

"""Evicts rows of a table: to make room, or when their time to live is over. `fastps.shard.victims` chooses them.

Runs in the process of a shard, for the rows of that shard: on the actor's thread when a worker finds the shard full, on
a thread of its own for the time to live.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from fastps.deadline import deadline_after, left_until
from fastps.errors import ClosedError, ShardDiedError, WaitTimeoutError
from fastps.shard.victims import expiry_tick, rows_at_a_time, sweep_seconds, victims
from fastps.spec.keys import from_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastps.arrays.types import Array
    from fastps.spec.keys import Keys
    from fastps.spec.table import Life, TableInfo
    from fastps.transport.shm import Rows

BATCH = 65536


class Eviction:
    """Evicts rows of one table on one shard. Threads: any number; they take turns."""

    def __init__(self, table: Rows, shard: int, life: Life) -> None:
        self._table, self._shard, self._life = table, shard, life
        self._lock = threading.Lock()
        self._receive = receiver(table.info, shard, life.on_evict)

    def make_room(self, rows: int, kept: Keys, timeout: float) -> int:
        """Evicts rows until there is room for `rows` more, but none of the keys `kept`. Returns how many it evicted.

        Raises WaitTimeoutError when another eviction, or the user's `on_evict`, takes longer than `timeout`.
        """
        deadline = deadline_after(timeout)
        with self._turn(timeout):
            counted = self._table.counters(self._shard)
            wanted = rows - (counted["capacity"] - counted["rows"])
            if wanted <= 0:
                return rows  # another call has made room meanwhile
            now = self._table.now(self._shard)
            keys, seen, counts = self._scan()
            free = ~np.isin(keys, kept)
            keys, seen, counts = keys[free], seen[free], counts[free]
            assert self._life.evict is not None
            n = rows_at_a_time(wanted, counted["capacity"], len(keys))
            order, evicted = victims(self._life.evict, seen, counts, len(keys)), 0
            for start in range(0, len(keys), n):  # more than once where workers use the chosen rows meanwhile
                evicted += self._evict(keys[order[start : start + n]], now, left_until(deadline))
                if evicted >= wanted:
                    break
            return evicted

    def expire(self) -> int:
        """Evicts rows that were not used within the time to live. Returns how many."""
        assert self._life.ttl is not None
        with self._lock:
            since = expiry_tick(self._table.now(self._shard), self._life.ttl)
            if since < 0 or self._table.counters(self._shard)["rows"] == 0:
                return 0
            keys, seen, _ = self._scan()
            return self._evict(keys[seen <= since], since, None)

    def start(self) -> None:
        """Starts the thread that expires rows, if the table has a time to live. It ends with the process, or when the
        arena is closed."""
        if self._life.ttl is not None:
            pause = sweep_seconds(self._life.ttl)
            threading.Thread(target=self._sweep, args=(pause,), name="fastps ttl", daemon=True).start()

    def _sweep(self, pause: float) -> None:
        never = threading.Event()
        while not never.wait(pause):
            try:
                self.expire()
            except (ClosedError, ShardDiedError):
                return
            except Exception:  # a stopped process holds a lock, or memory is short: try again next time
                logging.getLogger("fastps").exception("ttl of table `%s`", self._table.info.name)

    @contextlib.contextmanager
    def _turn(self, timeout: float) -> Iterator[None]:
        if not self._lock.acquire(timeout=min(timeout, threading.TIMEOUT_MAX)):
            raise WaitTimeoutError(f"rows of shard {self._shard} are being evicted, or handed to on_evict")
        try:
            yield
        finally:
            self._lock.release()

    def _scan(self) -> tuple[Keys, Array, Array]:
        """The keys of all rows, the tick of each one's last use, and how often it was used."""
        none = [False] * len(self._table.info.streams)
        parts = list(self._table.batches(self._shard, BATCH, none))
        words = np.concatenate([np.empty((0, 2), np.uint32), *(seen for _, _, seen in parts)])
        return np.concatenate([np.empty(0, np.uint64), *(keys for keys, _, _ in parts)]), words[:, 0], words[:, 1]

    def _evict(self, keys: Keys, since: int, timeout: float | None) -> int:
        """Evicts those of the keys' rows that were not used after the tick `since`. Returns how many."""
        n = 0
        for start in range(0, len(keys), BATCH):
            some = keys[start : start + BATCH]
            held = self._table.streams(len(some), [self._receive is not None] * len(self._table.info.streams))
            removed = np.zeros(len(some), np.bool_)
            try:
                self._table.expire(some, since, removed, held, timeout)
            finally:  # rows removed before an error must be handed over, too
                self._hand_over(some[removed], held, removed)
            n += int(removed.sum())
        return n

    def _hand_over(self, keys: Keys, held: list[Array], removed: Array) -> None:
        if self._receive is not None and len(keys):
            try:
                self._receive(keys, [stream[removed] for stream in held])
            except Exception:  # of the user's function, or of a disk: the rows are gone either way
                logging.getLogger("fastps").exception(
                    "on_evict of table `%s`, %d rows", self._table.info.name, len(keys)
                )


def receiver(info: TableInfo, shard: int, on_evict: Any) -> Callable[[Keys, list[Array]], Any] | None:
    """The function that takes the keys and the streams of evicted rows; None without `on_evict`."""
    if on_evict is None:
        return None
    if callable(on_evict):
        slots = [name for name, _ in info.streams[1:]]
        return lambda keys, held: on_evict(
            from_keys(keys, info.keys), held[0], dict(zip(slots, held[1:], strict=True))
        )  # fmt: skip
    from fastps.shard.evicted import EvictedRows  # pyarrow is loaded only where it is used

    return EvictedRows(info, on_evict, shard).append

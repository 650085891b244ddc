"""Which rows of a table end, and what becomes of them. Runs in the process of a shard, for the rows of that shard."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from fastps.deadline import deadline_after, left_until
from fastps.errors import ClosedError, FastPSError, ShardDiedError, WaitTimeoutError
from fastps.spec.keys import from_keys

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastps.spec.table import Life
    from fastps.transport.shm_table import ShmTable

Array = np.ndarray[Any, np.dtype[Any]]
BATCH = 65536
SHARE = 16  # one row in so many makes room at a time: a scan of all rows costs about 10 ns a row
TICKS_A_SECOND = 16  # FPS_TICK_NS in csrc/layout.h
SWEEPS = 8  # in a ttl


def victims(policy: str, seen: Array, counts: Array, n: int) -> Array:
    """Which n of the rows make room: those not asked for for longest, or asked for least often, and then for
    longest."""
    order = np.lexsort((counts, seen) if policy == "lru" else (seen, counts))
    return order[:n]


class Eviction:
    """Ends rows of one table on one shard. Threads: any; one at a time is at work."""

    def __init__(self, table: ShmTable, shard: int, life: Life) -> None:
        self._table, self._shard, self._life = table, shard, life
        self._lock = threading.Lock()
        self._receive = receiver(table, shard, life.on_evict)

    def _scan(self) -> tuple[Array, Array, Array]:
        """Keys of all rows, when and how often they were asked for."""
        parts = list(self._table.scan_seen(self._shard, BATCH))
        words = np.concatenate([np.empty((0, 2), np.uint32), *(seen for _, seen in parts)])
        return np.concatenate([np.empty(0, np.uint64), *(keys for keys, _ in parts)]), words[:, 0], words[:, 1]

    def make_room(self, rows: int, kept: Array, timeout: float) -> int:
        """Ends rows until there is room for so many more; `kept` are keys that stay. Answers how many ended."""
        deadline = deadline_after(timeout)
        with self._at_work(timeout):
            counted = self._table.counters(None)[self._shard]
            wanted = rows - (counted["capacity"] - counted["rows"])
            if wanted <= 0:
                return rows  # somebody else has made it
            now = self._table.now(self._shard)
            keys, seen, counts = self._scan()
            free = ~np.isin(keys, kept)
            keys, seen, counts = keys[free], seen[free], counts[free]
            assert self._life.evict is not None
            n = max(wanted, min(counted["capacity"] // SHARE, len(keys) // 2))
            order, ended = victims(self._life.evict, seen, counts, len(keys)), 0
            for start in range(0, len(keys), n):  # more than once where somebody is at work on them
                ended += self._end(keys[order[start : start + n]], now, left_until(deadline))
                if ended >= wanted:
                    break
            return ended

    @contextlib.contextmanager
    def _at_work(self, timeout: float) -> Iterator[None]:
        if not self._lock.acquire(timeout=min(timeout, threading.TIMEOUT_MAX)):
            raise WaitTimeoutError(f"rows of shard {self._shard} are being evicted, or handed to on_evict")
        try:
            yield
        finally:
            self._lock.release()

    def expire(self) -> int:
        """Ends rows that nobody asked for within the ttl. Answers how many."""
        assert self._life.ttl is not None
        with self._lock:
            since = self._table.now(self._shard) - math.ceil(self._life.ttl * TICKS_A_SECOND) - 1
            if since < 0 or self._table.counters(None)[self._shard]["rows"] == 0:
                return 0
            keys, seen, _ = self._scan()
            return self._end(keys[seen <= since], since, None)

    def _end(self, keys: Array, since: int, timeout: float | None) -> int:
        """Of the rows of keys those that nobody has asked for since that tick, or writes now."""
        n = 0
        for start in range(0, len(keys), BATCH):
            some = keys[start : start + BATCH]
            held = self._table.streams(len(some), [self._receive is not None] * len(self._table.info.streams))
            removed = np.zeros(len(some), np.bool_)
            try:
                self._table.expire(some, since, removed, held, timeout)
            finally:  # it may have come half-way
                self._hand_over(some[removed], held, removed)
            n += int(removed.sum())
        return n

    def _hand_over(self, keys: Array, held: list[Array], removed: Array) -> None:
        if self._receive is not None and len(keys):
            try:
                self._receive(keys, [stream[removed] for stream in held])
            except Exception:  # the user's; the rows are gone either way
                logging.getLogger("fastps").exception("on_evict of table `%s`", self._table.info.name)

    def start(self) -> None:
        """Expires rows now and then, on a thread that ends with the process or its arena."""
        if self._life.ttl is not None:
            interval = min(max(self._life.ttl / SWEEPS, 1 / TICKS_A_SECOND), 60.0)
            threading.Thread(target=self._sweep, args=(interval,), name="fastps ttl", daemon=True).start()

    def _sweep(self, interval: float) -> None:
        pause = threading.Event()
        while not pause.wait(interval):
            try:
                self.expire()
            except (ClosedError, ShardDiedError):
                return
            except FastPSError:  # a row that a stopped process holds: another time
                logging.getLogger("fastps").exception("ttl of table `%s`", self._table.info.name)


def receiver(table: ShmTable, shard: int, on_evict: Any) -> Any:
    """What takes (keys, streams) of rows that ended; None where nobody wants them."""
    info = table.info
    if on_evict is None:
        return None
    if callable(on_evict):
        names = [name for name, _ in info.streams[1:]]
        return lambda keys, held: on_evict(
            from_keys(keys, info.keys), held[0], dict(zip(names, held[1:], strict=True))
        )  # fmt: skip
    from fastps.tables.arrow import EvictedRows  # pyarrow is loaded only where Arrow is spoken

    return EvictedRows(info, on_evict, shard).append

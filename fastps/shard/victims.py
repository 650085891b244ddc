"""Which rows of a table are evicted, how many at a time, and how often a table with a `ttl` is scanned.

Pure: numbers in, decisions out. `fastps.shard.eviction` scans the rows and carries the decisions out. Times are ticks,
as rows record them.
"""

from __future__ import annotations

import math

import numpy as np

from fastps.arrays.types import Array

TICKS_PER_SECOND = 16  # FPS_TICK_NS in csrc/layout.h
SHARE = 16  # 1/16 of the capacity is evicted at a time: a scan of all rows costs about 10 ns per row
SWEEPS_PER_TTL = 8
MAX_SWEEP_SECONDS = 60.0


def victims(policy: str, seen: Array, counts: Array, n: int) -> Array:
    """The indices of the n rows to evict first.

    Parameters
    ----------
    policy : "lru" takes the least recently used rows, and of those the least frequently used; "lfu" the other way round
    seen : the tick of each row's last use
    counts : how often each row was used
    """
    order = np.lexsort((counts, seen) if policy == "lru" else (seen, counts))
    return order[:n]


def rows_at_a_time(wanted: int, capacity: int, candidates: int) -> int:
    """How many rows to evict after one scan to make room for `wanted` more.

    At least `wanted`; more than that, so that the next new rows need no scan, but then at most half of the candidates.
    """
    return max(wanted, min(capacity // SHARE, candidates // 2))


def expiry_tick(now: int, ttl: float) -> int:
    """Rows last used at this tick or before were not used for `ttl` seconds. Negative: there can be none yet.

    One tick is subtracted because both times are rounded down.
    """
    return now - math.ceil(ttl * TICKS_PER_SECOND) - 1


def sweep_seconds(ttl: float) -> float:
    """The pause between two scans for rows that have expired."""
    return min(max(ttl / SWEEPS_PER_TTL, 1 / TICKS_PER_SECOND), MAX_SWEEP_SECONDS)

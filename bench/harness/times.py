"""Single operations timed one by one, interleaved, so that a drifting machine hurts all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from fastps.messages import binary

Operation = Callable[[], object]
BEYOND = 5  # calls that have to be slower than a percentile, or it tells of the few slowest ones alone


def enough(calls: int, percentile: float) -> bool:
    """Whether so many calls say something of a percentile: 500 of the 99th, 5,000 of the 99.9th. The median and the
    largest of them are what they are."""
    return percentile <= 50 or percentile == 100 or calls * (100 - percentile) >= 100 * BEYOND * (1 - 1e-9)


@dataclass(frozen=True)
class Times:
    """Durations of single calls in seconds."""

    seconds: np.ndarray

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))

    def percentile(self, p: float) -> float | None:
        """None where there were too few calls."""
        return float(np.percentile(self.seconds, p)) if enough(len(self.seconds), p) else None

    def shown(self, name: str) -> str:
        """ "pull 550 ns (p99 781 ns)"."""
        p99 = self.percentile(99)
        return f"{name} {human_time(self.median)}" + ("" if p99 is None else f" (p99 {human_time(p99)})")


def interleaved(operations: Mapping[str, Operation], seconds: float, rounds: int = 9) -> dict[str, Times]:
    """Calls each operation in short runs by turns, for about `seconds` in all; the first run of each is warm-up."""
    calls = {}
    for name, operation in operations.items():
        operation()
        start = time.perf_counter()
        operation()
        once = max(time.perf_counter() - start, 1e-7)
        calls[name] = int(max(3, min(400, seconds / len(operations) / rounds / once)))
    taken: dict[str, list[int]] = {name: [] for name in operations}
    for _ in range(rounds):
        for name, operation in operations.items():
            operation()  # finds its memory in the caches, as in a loop of its own
            clock = time.perf_counter_ns
            for _ in range(calls[name]):
                start_ns = clock()
                operation()
                taken[name].append(clock() - start_ns)
    return {name: Times(np.array(values) / 1e9) for name, values in taken.items()}


def human_time(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def human_bytes(count: float) -> str:
    """In the units that somebody wrote it in: 2 GiB is that, and 64 MB are."""
    if count >= 1024 and count % 1024 == 0 and count % 1000 != 0:
        return binary(count)
    for unit, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if count >= factor:
            return f"{count / factor:g} {unit}"
    return f"{count:g} B"

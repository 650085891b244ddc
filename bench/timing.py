"""Single operations timed one by one, interleaved, so that a drifting machine hurts all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Operation = Callable[[], object]


@dataclass(frozen=True)
class Times:
    """Durations of single calls in seconds."""

    seconds: np.ndarray

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))

    def percentile(self, p: float) -> float:
        return float(np.percentile(self.seconds, p))


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
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if count >= factor:
            return f"{count / factor:g} {unit}"
    return f"{count:g} B"

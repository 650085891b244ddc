"""Timing of single operations: one stamp behind each, so that no time falls between two, and what stamps say."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bench.harness.times import enough

PERCENTILES = {
    "min_ns": 0, "median_ns": 50, "p90_ns": 90, "p99_ns": 99, "p999_ns": 99.9, "p9999_ns": 99.99, "max_ns": 100,
}  # fmt: skip
BLOCK = 1000  # stamps between two looks at the time that is left
BINS_A_DOUBLING = 32  # of histograms: 2 % wide


def stamps(operation: Callable[[], object], seconds: float, at_least: int = 3, calls: int | None = None) -> np.ndarray:
    """Calls an operation for so long, or so often: when it began, and when each call ended, int64[calls + 1] in ns.

    The next call begins where the last one ended, so a call that is held up delays the next one in the record as it
    does in life (no coordinated omission). Cost of the record: about 50 ns a call (`overhead`).
    """
    clock = time.perf_counter_ns
    start = clock()
    end, found = start + round(seconds * 1e9), [start]
    block = calls or 1
    while True:
        part = [0] * block
        for i in range(block):
            operation()
            part[i] = clock()
        found += part
        done, now = len(found) - 1, part[-1]
        if done == calls or (now >= end and done >= at_least):
            return np.array(found, np.int64)
        pace = (now - start) / done
        block = max(1, min(BLOCK, int((end - now) / pace / 2), 2 * block)) if now < end else 1


def _nothing() -> None:
    pass


def overhead(seconds: float = 0.05) -> float:
    """What the record of a call costs here, in ns: calls that do nothing, less the same calls without a record."""
    recorded = float(np.median(np.diff(stamps(_nothing, seconds))))
    count, bare = 20_000, math.inf
    for _ in range(5):
        start = time.perf_counter_ns()
        for _ in range(count):
            _nothing()
        bare = min(bare, (time.perf_counter_ns() - start) / count)
    return max(0.0, recorded - bare)


@dataclass(frozen=True)
class Sample:
    """Calls of one operation by all workers.

    Attributes
    ----------
    durations : of single calls, int64 in ns
    turns : of each run, the median of its calls in ns
    rates : of each run, calls a second of all workers together while all of them were at work
    cpu_seconds : that all workers' processes took meanwhile
    """

    durations: np.ndarray
    turns: list[float]
    rates: list[float]
    cpu_seconds: float

    @classmethod
    def of(cls, runs: list[list[tuple[np.ndarray, float]]], one_clock: bool = True) -> Sample:
        """From runs, in each of which every worker has (stamps, CPU seconds). Without `one_clock` the workers' machines
        have clocks of their own: they count as begun at the same time."""
        durations = [np.concatenate([np.diff(found) for found, _ in run]) for run in runs]
        rates = [_rate([found if one_clock else found - found[0] for found, _ in run]) for run in runs]
        cpu = sum(cpu for run in runs for _, cpu in run)
        turns = [float(np.median(of_run)) for of_run in durations]
        return cls(np.concatenate(durations), turns, rates, cpu)

    def summary(self) -> dict[str, int | None]:
        """Percentiles in ns, by name, None where there were too few calls for one; and how many there were."""
        calls = len(self.durations)
        found = np.percentile(self.durations, list(PERCENTILES.values()), method="inverted_cdf")
        told = [enough(calls, p) for p in PERCENTILES.values()]
        values = [int(value) if tell else None for value, tell in zip(found, told, strict=True)]
        return {"calls": calls, **dict(zip(PERCENTILES, values, strict=True))}

    def histogram(self) -> tuple[np.ndarray, np.ndarray]:
        """(lower bounds in ns, counts) of the bins that are not empty, each 2 % wide."""
        bins = np.floor(np.log2(np.maximum(self.durations, 1)) * BINS_A_DOUBLING).astype(np.int64)
        numbers, counts = np.unique(bins, return_counts=True)
        return np.exp2(numbers / BINS_A_DOUBLING), counts


def _rate(stamps_of: list[np.ndarray]) -> float:
    """Calls a second of all workers while all were at work; a call that was under way at either end counts in part."""
    start, end = max(found[0] for found in stamps_of), min(found[-1] for found in stamps_of)
    if end <= start:  # never all at once: each for itself
        return sum((len(found) - 1) / (found[-1] - found[0]) for found in stamps_of) * 1e9
    calls = 0.0
    for found in stamps_of:
        calls += float((np.diff(np.clip(found, start, end)) / np.maximum(np.diff(found), 1)).sum())
    return calls / (end - start) * 1e9

"""What stamps say: medians and tails of single calls, rates of several workers. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.harness.units import human_time

PERCENTILES = {
    "min_ns": 0, "median_ns": 50, "p90_ns": 90, "p99_ns": 99, "p999_ns": 99.9, "p9999_ns": 99.99, "max_ns": 100,
}  # fmt: skip
SLOWER = 5  # calls that have to be slower than a percentile, or it describes only the few slowest ones
BINS_A_DOUBLING = 32  # of histograms: 2 % wide


def enough(calls: int, percentile: float) -> bool:
    """Whether this many calls determine a percentile: 500 the 99th, 5,000 the 99.9th. The median and the largest always
    are reported."""
    return percentile <= 50 or percentile == 100 or calls * (100 - percentile) >= 100 * SLOWER * (1 - 1e-9)


@dataclass(frozen=True)
class Times:
    """Durations of single calls of one process, in ns."""

    durations: np.ndarray

    @property
    def median(self) -> float:
        """In seconds."""
        return float(np.median(self.durations)) / 1e9

    def percentile(self, p: float) -> float | None:
        """In seconds; None where there were too few calls."""
        return float(np.percentile(self.durations, p)) / 1e9 if enough(len(self.durations), p) else None

    def shown(self, name: str) -> str:
        """ "pull 550 ns (p99 781 ns)"."""
        p99 = self.percentile(99)
        return f"{name} {human_time(self.median)}" + ("" if p99 is None else f" (p99 {human_time(p99)})")


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

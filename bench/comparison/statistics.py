"""Whether one result is faster than another: of each setting and operation the ratio with its confidence interval.

What is compared is a turn's median of fastps beside that of the reference in the same turn, where both files have it:
a machine that is slower today is slower for both. A difference counts only if the times alone show it as well. The
interval is that of Hodges and Lehmann (Estimates of Location Based on Rank Tests, 1963): the shifts of the logarithms
that the rank test of Mann and Whitney does not reject. No distribution of the turns is assumed, and a disturbed turn
has no more weight than another. Pure.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from bench.peers import REFERENCES, comparable
from bench.sweep.results import SETTING, Results

Verdict = Literal["faster", "slower", "same", "too noisy"]
CONFIDENCE = 0.95  # that all intervals of a comparison cover the true value
MARGIN = 0.05  # smaller differences count as none


class ComparisonError(ValueError):
    """What cannot be compared: one line that says why."""


@dataclass(frozen=True)
class Comparison:
    """One operation in one setting, in the second result beside the first.

    Attributes
    ----------
    setting, op : what was measured; the setting by the columns SETTING
    before_ns, after_ns : medians of single operations
    ratio, low, high : of the second's time to the first's, and its interval; of ratios to the
        reference where `to_reference`
    times : the interval of the times themselves
    margin : smaller differences count as none
    """

    setting: tuple[Any, ...]
    op: str
    before_ns: float
    after_ns: float
    ratio: float
    low: float
    high: float
    times: tuple[float, float]
    to_reference: bool
    margin: float

    @property
    def verdict(self) -> Verdict:
        """By whether the interval is beyond the margin, within it, or too wide. A difference that only the reference's
        times show counts as noise."""
        if self.low > 1 + self.margin:
            return "slower" if self.times[0] > 1 else "too noisy"
        if self.high < 1 / (1 + self.margin):
            return "faster" if self.times[1] < 1 else "too noisy"
        return "same" if self.high <= 1 + self.margin and self.low >= 1 / (1 + self.margin) else "too noisy"


def compare(
    before: Sequence[Results], after: Sequence[Results], margin: float = MARGIN, confidence: float = CONFIDENCE
) -> list[Comparison]:
    """What both have measured; several results of a side are taken together. Raises ComparisonError."""
    require_one_machine([*before, *after])
    first, second = turns_of(before), turns_of(after)
    common = [key for key in first if key in second]
    if not common:
        raise ComparisonError("the results have no setting and operation in common")
    found = []
    for setting, op in common:
        a, b = first[setting, op], second[setting, op]
        to_reference = a.ratios is not None and b.ratios is not None
        x, y = (a.ratios, b.ratios) if to_reference else (a.times, b.times)
        # The more intervals, the wider each of them: all are to hold at once (Bonferroni).
        each = 1 - (1 - confidence) / len(common)
        ratio, low, high = np.exp(interval(np.log(x), np.log(y), each))
        times = np.exp(interval(np.log(a.times), np.log(b.times), each))
        found.append(
            Comparison(
                setting, op, float(np.median(a.times)), float(np.median(b.times)),
                float(ratio), float(low), float(high), (float(times[1]), float(times[2])), to_reference, margin,
            )
        )  # fmt: skip
    return found


def machine_of(result: Results) -> str:
    """What has to be the same for times to be comparable, in words."""
    processor, about = result.about["machine"]["processor"], result.about
    hosts = len({node["host"] for node in about["nodes"]})
    return f"{processor['model']}, {processor['cores']} cores" + (f", {hosts} machines" if hosts > 1 else "")


def require_one_machine(results: Sequence[Results]) -> None:
    """Raises ComparisonError."""
    machines = sorted({machine_of(result) for result in results})
    if len(machines) > 1:
        raise ComparisonError(f"the results are of different machines: {'; '.join(machines)}; compare results of one")


@dataclass(frozen=True)
class Turns:
    """Medians of turns in ns, and beside those of the reference in the same turns where it was measured."""

    times: np.ndarray
    ratios: np.ndarray | None


def turns_of(results: Sequence[Results]) -> dict[tuple[tuple[Any, ...], str], Turns]:
    """Of fastps, by setting and operation."""
    times: dict[Any, list[float]] = {}
    references: dict[Any, list[float]] = {}
    for result in results:
        for row in result.rows:
            key = tuple(row[name] for name in SETTING), row["op"]
            if row["subject"] == "fastps":
                times.setdefault(key, []).extend(row["turns_ns"])
            elif row["subject"] == REFERENCES[row["op"]] and comparable(row):
                references.setdefault(key, []).extend(row["turns_ns"])
    found = {}
    for key, taken in times.items():
        beside = references.get(key, [])
        ratios = np.array(taken) / np.array(beside) if len(beside) == len(taken) else None
        found[key] = Turns(np.array(taken), ratios)
    return found


def interval(x: np.ndarray, y: np.ndarray, confidence: float) -> tuple[float, float, float]:
    """The shift from x to y: the median of all pairwise differences, and its confidence interval, which is infinite
    where there are too few of them."""
    differences = np.sort(np.subtract.outer(y, x).ravel())
    rejected = rejected_ranks(len(x), len(y), 1 - confidence)
    middle = float(np.median(differences))
    if rejected == 0:
        return middle, -math.inf, math.inf
    return middle, float(differences[rejected - 1]), float(differences[-rejected])


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """The median, and the confidence interval of the median of the distribution by the ranks of the sign test, which is
    infinite where there are too few values."""
    found, middle = sorted(values), float(np.median(values))
    below, rejected = 0.0, 0
    for k in range(len(found) // 2):
        below += math.comb(len(found), k) / 2 ** len(found)
        if 2 * below > 1 - confidence:
            break
        rejected = k + 1
    if rejected == 0:
        return middle, -math.inf, math.inf
    return middle, float(found[rejected - 1]), float(found[-rejected])


@functools.cache
def rejected_ranks(n: int, m: int, alpha: float) -> int:
    """The largest k for which U < k has a probability of at most alpha / 2 when both samples have one distribution; U
    counts the pairs of Mann and Whitney's test. Exact."""
    sums = np.zeros((n + 1, n * m + 1))  # ways to choose that many of the ranks so far, by their sum less the least one
    sums[0, 0] = 1
    for rank in range(1, n + m + 1):
        for chosen in range(min(rank, n), max(0, rank - m - 1), -1):
            more = rank - chosen
            sums[chosen, more:] += sums[chosen - 1, : n * m + 1 - more]
    below = np.cumsum(sums[n]) / sums[n].sum()
    return int(np.searchsorted(below, alpha / 2, side="right"))

"""Ratios of times with their intervals, from rows. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.comparison.statistics import CONFIDENCE, interval, median_interval
from bench.report.select import Row


@dataclass(frozen=True)
class Ratio:
    """A ratio and its 95 % confidence interval, which is infinite where there are too few turns."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """ "1.46 [1.45, 1.47]"."""
        return number(self.value) + brackets(self.low, self.high)

    def times(self, factor: float) -> Ratio:
        return Ratio(self.value * factor, self.low * factor, self.high * factor)


def in_turns(row: Row, other: Row) -> Ratio:
    """How many times as long as `other` a row takes. Subjects of one setting take turns, so the medians of each turn
    are compared: a machine that is slower in one is slower for both."""
    pairs = list(zip(row["turns_ns"], other["turns_ns"], strict=False))
    return Ratio(*median_interval([mine / its for mine, its in pairs]))


def apart(first: Sequence[float], second: Sequence[float]) -> Ratio:
    """How many times as large the numbers of the first are as those of the second, measured at different times."""
    return Ratio(*(math.exp(value) for value in interval(np.log(second), np.log(first), CONFIDENCE)))


def number(value: float) -> str:
    """With two or three significant digits."""
    if value >= 10:
        return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.1 or value == 0 else f"{value:.2g}"


def brackets(low: float, high: float) -> str:
    """ " [1.45, 1.47]"; nothing where there is no interval."""
    return f" [{number(low)}, {number(high)}]" if 0 < low <= high < math.inf else ""

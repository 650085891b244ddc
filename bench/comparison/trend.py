"""How results of one machine have changed over time: for each setting and operation the ratio to the reference of run
after run, where it was measured, otherwise the median. Pure but for `results_in`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.comparison.statistics import ComparisonError, machine_of, turns_of
from bench.sweep.results import Results, ResultsError, load

BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Trend:
    """One operation in one setting.

    Attributes
    ----------
    setting, op : what was measured
    values : ratios to the reference, or ns, of the runs by their time; None where a run has not measured it
    to_reference : which of the two
    """

    setting: tuple[Any, ...]
    op: str
    values: list[float | None]
    to_reference: bool

    @property
    def change(self) -> float:
        """The last value beside the median of those before; 1 where there are none."""
        known = [value for value in self.values if value is not None]
        return known[-1] / float(np.median(known[:-1])) if len(known) > 1 else 1.0

    def drawn(self) -> str:
        """A bar for each run, from the least to the largest of them, on a logarithmic scale of at least 10 %."""
        known = np.log([value for value in self.values if value is not None])
        low, high = float(known.min()), float(known.max())
        low, high = min(low, (low + high) / 2 - 0.05), max(high, (low + high) / 2 + 0.05)
        return "".join(
            " " if value is None else BARS[round((np.log(value) - low) / (high - low) * (len(BARS) - 1))]
            for value in self.values
        )


def results_in(path: Path) -> list[Results]:
    """The result that a file is, or those in a directory by their time. Raises ResultsError."""
    if not path.is_dir():
        return [load(path)]
    found = [load(file) for file in sorted(path.glob("*.parquet"))]
    if not found:
        raise ResultsError(f"{path}: no Parquet files are in there")
    return sorted(found, key=lambda result: str(result.about["begun"]))


def trends(results: Sequence[Results]) -> list[Trend]:
    """Of what the last result has measured; results of other machines are left out."""
    if not results:
        raise ComparisonError("there are no results")
    mine = [result for result in results if machine_of(result) == machine_of(results[-1])]
    runs = [turns_of([result]) for result in mine]
    found = []
    for key, last in runs[-1].items():
        to_reference = last.ratios is not None
        values = []
        for run in runs:
            turns = run.get(key)
            measured = None if turns is None else turns.ratios if to_reference else turns.times
            values.append(None if measured is None else float(np.median(measured)))
        found.append(Trend(*key, values, to_reference))
    return found

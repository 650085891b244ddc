"""What `python -m bench compare` and `history` print."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.comparison import statistics
from bench.comparison.trend import results_in, trends
from bench.harness.units import human_bytes, human_time
from bench.sweep.results import SETTING

STYLES = {"slower": "red", "faster": "green", "same": "", "too noisy": "yellow"}


def compare(before: Path, after: Path, margin: float, confidence: float, as_json: bool = False) -> bool:
    """Whether something is slower. Raises ComparisonError or ResultsError."""
    found = statistics.compare(results_in(before), results_in(after), margin, confidence)
    if as_json:
        print(json.dumps([_as_dict(one) for one in found], indent=1))
    else:
        _print_comparison(found, margin, confidence)
    return any(one.verdict == "slower" for one in found)


def _as_dict(one: statistics.Comparison) -> dict[str, Any]:
    """For JSON, which has no infinity: an end that there is not is None."""
    return {
        **dict(zip(SETTING, one.setting, strict=True)), "op": one.op, "before_ns": one.before_ns,
        "after_ns": one.after_ns, "ratio": one.ratio, "low": one.low, "high": one.high if one.high < math.inf else None,
        "beside_reference": one.to_reference, "verdict": one.verdict,
    }  # fmt: skip


def _print_comparison(found: Sequence[statistics.Comparison], margin: float, confidence: float) -> None:
    table = Table(box=None)
    columns = settings([(*one.setting, one.op) for one in found], table)
    for name in ("before", "after", "ratio", "interval"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for one, cells in zip(found, columns, strict=True):
        table.add_row(
            *cells, human_time(one.before_ns / 1e9),
            human_time(one.after_ns / 1e9), f"{one.ratio:.3f}" + ("" if one.to_reference else " *"),
            f"{one.low:.3f} to {one.high:.3f}", one.verdict, style=STYLES[one.verdict],
        )  # fmt: skip
    console = console_for(table)
    console.print(table)
    console.print(
        "Ratios are of times beside the reference's"
        + ("." if all(one.to_reference for one in found) else "; * of times."),
        soft_wrap=True,
    )
    counts = Counter(one.verdict for one in found)
    console.print(
        f"{', '.join(f'{counts[verdict]} {verdict}' for verdict in STYLES)} "
        f"(a difference of {100 * margin:g}% is none; all at once with a confidence of {100 * confidence:g}%)",
        soft_wrap=True,
    )


def history(directory: Path, as_json: bool = False) -> None:
    """Raises ResultsError."""
    results = results_in(directory)
    found = trends(results)
    if as_json:
        rows = [
            {**dict(zip(SETTING, trend.setting, strict=True)), "op": trend.op, "values": trend.values,
             "beside_reference": trend.to_reference, "last_to_before": trend.change}
            for trend in found
        ]  # fmt: skip
        print(json.dumps(rows, indent=1))
        return
    table = Table(box=None)
    columns = settings([(*trend.setting, trend.op) for trend in found], table)
    for name in ("first to last", "trend", "last / before"):
        table.add_column(name, justify="right", no_wrap=True)
    for trend, cells in zip(found, columns, strict=True):
        known = [value for value in trend.values if value is not None]
        first, last = (f"{v:.2f}" if trend.to_reference else human_time(v / 1e9) for v in (known[0], known[-1]))
        table.add_row(*cells, f"{first} to {last}", trend.drawn(), f"{trend.change:.3f}")
    console = console_for(table)
    console.print(table)
    console.print("Ratios to the reference's time, or times where it was not measured.")
    used = len(found[0].values) if found else 0
    console.print(
        f"{used} results of {statistics.machine_of(results[-1])}"
        + (f"; {len(results) - used} of other machines are left out" if used < len(results) else ""),
        highlight=False,
    )


def settings(keys: Sequence[tuple[Any, ...]], table: Table) -> list[list[str]]:
    """Columns that say which row is which: the size, the operation, and what else is not the same in all rows."""
    names = [*SETTING, "op"]
    shown = [i for i, name in enumerate(names) if name in ("nbytes", "op") or len({key[i] for key in keys}) > 1]
    for i in shown:
        table.add_column(
            "size" if names[i] == "nbytes" else names[i], no_wrap=True, justify="right" if i < 3 else "left"
        )
    return [[human_bytes(key[i]) if names[i] == "nbytes" else str(key[i]) for i in shown] for key in keys]


def console_for(table: Table) -> Console:
    """At least as wide as the table, so that no cell is cut: a narrower terminal breaks the lines."""
    console = Console(highlight=False)
    widest = Console(width=1000).measure(table).maximum
    return Console(width=max(console.width if console.is_terminal else 100, widest), highlight=False)

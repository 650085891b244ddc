"""What the demo prints."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial

from rich.table import Table

from fastps.programs.demo.measure import Outcome
from fastps.programs.demo.settings import Settings
from fastps.programs.screen import Screen, Update


def progress(screen: Screen, title: str, total: int) -> AbstractContextManager[Update]:
    """Of a run of `total` steps, all workers together."""
    return screen.progress(f"{title:<10}", total, partial(_texts, total))


def _texts(total: int, steps: int, loss: float, steps_per_second: float) -> Sequence[str]:
    return f"{steps:>7,} of {total:,} steps", f"loss {loss:.4f}", f"{steps_per_second:>7,.0f} steps/s"


def comparison(ours: Outcome, floor: Outcome, settings: Settings) -> Table:
    """A column for each server, and one for what fastps is better by."""
    table = Table(title=f"The same {settings.workers} x {settings.steps:,} steps", title_justify="left")
    table.add_column("")
    for name, style in (("fastps", "bold"), ("Ray actor", ""), ("ratio", "bold green")):
        table.add_column(name, justify="right", style=style)

    def row(name: str, mine: float, other: float, unit: str, ratio: float) -> None:
        table.add_row(name, f"{_short(mine)}{unit}", f"{_short(other)}{unit}", f"{_short(ratio)} x")

    row("steps per second", *(pair := (ours.steps_per_second, floor.steps_per_second)), "", pair[0] / pair[1])
    for verb, mine, other in (("pull", ours.pull_us, floor.pull_us), ("push", ours.push_us, floor.push_us)):
        for kind, a, b in zip(("median", "p99"), mine, other, strict=True):
            if a is not None and b is not None:
                row(f"{verb}, {kind}", a, b, " us", b / a)
    table.add_section()
    table.add_row("test accuracy", f"{ours.accuracy:.1%}", f"{floor.accuracy:.1%}", "")
    return table


def _short(value: float) -> str:
    """Three figures, no exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"

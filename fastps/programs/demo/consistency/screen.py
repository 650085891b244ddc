"""What the comparison of consistency settings prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial

from fastps.programs.demo.consistency.race import Finish
from fastps.programs.demo.consistency.settings import Settings
from fastps.programs.screen import Screen, Update, plain_table

TARGET = 0.2  # a loss that all settings reach in a run of the usual length
MOMENTS = 1.0, 2.0  # seconds, and the end


def progress(screen: Screen, title: str, seconds: float) -> AbstractContextManager[Update]:
    """Of a run of this length: a line in the middle and one at the end where the output is no terminal."""
    return screen.progress(f"{title:<13}", seconds, partial(_texts, seconds), lines=2)


def _texts(total: float, seconds: float, loss: float) -> Sequence[str]:
    return f"{seconds:5.1f} of {total:g} s", f"loss {loss:.4f}"


def say_results(screen: Screen, finishes: list[Finish], settings: Settings) -> None:
    """A table with a column for each setting, narrow enough for five of them in 80 characters; and who waits."""
    pace = f", the last one {settings.straggler:g} times slower" if settings.straggler > 1.0 else ""
    slow = "straggler" if settings.straggler > 1.0 else "last worker"
    table = plain_table()
    table.add_column("")
    for title in (f.policy.title for f in finishes):
        table.add_column(title.replace("(", "\n(") if len(title) > 8 else title, justify="right")

    def row(name: str, cells: Iterator[str]) -> None:
        table.add_row(name, *cells)

    row("learning rate", (f"{f.policy.lr(settings.workers):.2g}" for f in finishes))
    row("steps/s of a fast worker", (f"{f.steps_per_second:.0f}" for f in finishes))
    row(f"{slow}: steps", (f"{f.straggler_steps:,}" for f in finishes))
    row("   that counted", (f"{f.straggler_counted:,}" for f in finishes))
    row("dropped gradients", (f"{f.dropped:,}" for f in finishes))
    table.add_section()
    for moment in (*(m for m in MOMENTS if m < settings.seconds), settings.seconds):
        row(f"loss after {moment:g} s", (f"{f.curve.at(moment):.3f}" for f in finishes))
    row(f"loss {TARGET:g} reached after", (_seconds(f.curve.reached(TARGET)) for f in finishes))
    row("test accuracy", (f"{f.accuracy:.1%}" for f in finishes))
    screen.say(f"\n[bold]{settings.seconds:g} s of training by {settings.workers} workers[/]{pace}\n")
    screen.say(table)
    screen.say()
    for f in finishes:
        screen.say(f"{f.policy.title:<13} {f.policy.waits}")


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"

"""What the demo prints: live on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

if TYPE_CHECKING:  # at run time this module needs rich alone
    from fastps.programs.demo.measure import Outcome, Settings

PLAIN_LINES = 4  # of progress a run, when nobody watches


class Live:
    """A bar on a terminal."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def update(self, steps: int, loss: float, steps_per_second: float) -> None:
        self._progress.update(
            self._task, completed=steps, steps=f"{steps:,}", loss=f"{loss:.4f}", rate=f"{steps_per_second:,.0f}"
        )


class Plain:
    """A line for each quarter of the run."""

    def __init__(self, console: Console, title: str, total: int) -> None:
        self._console, self._title, self._total = console, title, total
        self._next = total / PLAIN_LINES

    def update(self, steps: int, loss: float, steps_per_second: float) -> None:
        if steps >= self._next:
            self._console.print(
                f"{self._title:<10} {steps:>7,} of {self._total:,} steps   loss {loss:.4f}   "
                f"{steps_per_second:>7,.0f} steps/s"
            )
            self._next = (steps * PLAIN_LINES // self._total + 1) * self._total / PLAIN_LINES


class Screen:
    """The demo's output, in the order in which it calls."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)

    def say(self, text: str) -> None:
        self._console.print(text)

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """Something that takes seconds and has no progress to show."""
        if not self._console.is_terminal:
            self._console.print(text)
            yield
            return
        with self._console.status(text):
            yield

    @contextmanager
    def run(self, title: str, total: int) -> Iterator[Live | Plain]:
        """One training run of `total` steps, all workers together."""
        if not self._console.is_terminal:
            yield Plain(self._console, title, total)
            return
        columns = (
            TextColumn("[bold]{task.description:<10}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[steps]:>7}/{task.fields[of]} steps"),
            TextColumn("loss {task.fields[loss]:>6}"),
            TextColumn("{task.fields[rate]:>7} steps/s"),
        )
        with Progress(*columns, console=self._console) as progress:
            task = progress.add_task(title, total=total, steps="0", of=f"{total:,}", loss="", rate="")
            yield Live(progress, task)

    def compare(self, ours: Outcome, floor: Outcome, settings: Settings) -> None:
        """The table."""
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
        self._console.print(table)


def _short(value: float) -> str:
    """Three figures, no exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"

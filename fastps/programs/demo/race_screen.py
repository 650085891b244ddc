"""What the comparison of consistency settings prints."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from fastps.programs.demo.policies import Policy
from fastps.programs.demo.race import Finish, Settings
from fastps.programs.demo.screen import Screen

TARGET = 0.2  # a loss that all settings reach in a run of the usual length
MOMENTS = 1.0, 2.0  # seconds, and the end


class Live:
    """A bar on a terminal."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def update(self, seconds: float, loss: float) -> None:
        self._progress.update(self._task, completed=seconds, at=f"{seconds:.1f}", loss=f"{loss:.4f}")


class Plain:
    """A line in the middle of the run and one at its end."""

    def __init__(self, console: Console, title: str, seconds: float) -> None:
        self._console, self._title, self._seconds = console, title, seconds
        self._next = seconds / 2

    def update(self, seconds: float, loss: float) -> None:
        if seconds >= self._next:
            self._console.print(f"{self._title:<13} {seconds:5.1f} of {self._seconds:g} s   loss {loss:.4f}")
            self._next = self._seconds


class RaceScreen(Screen):
    """The output, in the order in which it calls."""

    @contextmanager
    def race(self, title: str, seconds: float) -> Iterator[Live | Plain]:
        """One run of so many seconds."""
        if not self._console.is_terminal:
            yield Plain(self._console, title, seconds)
            return
        columns = (
            TextColumn("[bold]{task.description:<13}"),
            BarColumn(bar_width=24),
            TextColumn(f"{{task.fields[at]:>5}}/{seconds:g} s"),
            TextColumn("loss {task.fields[loss]:>6}"),
        )
        with Progress(*columns, console=self._console) as progress:
            yield Live(progress, progress.add_task(title, total=seconds, at="0", loss=""))

    def table(self, runs: dict[str, tuple[Policy, Finish]], settings: Settings) -> None:
        """A column for each setting. Narrow: five of them fit into 80 characters."""
        pace = f", the last one {settings.straggler:g} times slower" if settings.straggler > 1.0 else ""
        slow = "straggler" if settings.straggler > 1.0 else "last worker"
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1), pad_edge=False)
        table.add_column("")
        for policy, _ in runs.values():
            table.add_column(
                policy.title.replace("(", "\n(") if len(policy.title) > 8 else policy.title, justify="right"
            )
        policies, finishes = zip(*runs.values(), strict=True)

        def row(name: str, cells: Iterator[str]) -> None:
            table.add_row(name, *cells)

        row("learning rate", (f"{policy.lr(settings.workers):.2g}" for policy in policies))
        row("steps/s of a fast worker", (f"{f.steps_per_second:.0f}" for f in finishes))
        row(f"{slow}: steps", (f"{f.straggler_steps:,}" for f in finishes))
        row("   that counted", (f"{f.straggler_counted:,}" for f in finishes))
        row("dropped gradients", (f"{f.dropped:,}" for f in finishes))
        table.add_section()
        for moment in (*(m for m in MOMENTS if m < settings.seconds), settings.seconds):
            row(f"loss after {moment:g} s", (f"{f.curve.at(moment):.3f}" for f in finishes))
        row(f"loss {TARGET:g} reached after", (_seconds(f.curve.reached(TARGET)) for f in finishes))
        row("test accuracy", (f"{f.accuracy:.1%}" for f in finishes))
        self._console.print(f"\n[bold]{settings.seconds:g} s of training by {settings.workers} workers[/]{pace}\n")
        self._console.print(table)
        self._console.print()
        for policy in policies:
            self._console.print(f"{policy.title:<13} {policy.waits}")


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"

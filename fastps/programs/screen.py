"""What programs print: live on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter

from rich import box
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

Update = Callable[..., None]


class Screen:
    """The output of one program."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._began = perf_counter()

    def say(self, what: RenderableType = "") -> None:
        self._console.print(what)

    def total_time(self) -> str:
        """Of the program until now."""
        return f"{perf_counter() - self._began:.0f} s in all, Ray's start included."

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
    def progress(
        self, title: str, total: float, describe: Callable[..., Sequence[str]], lines: int = 4
    ) -> Iterator[Update]:
        """One training run. Yields a function that shows how far it is.

        Parameters
        ----------
        title : of the run
        total : what the first argument of the function is at the end
        describe : texts for the arguments of the function; called only where they are shown
        lines : that are printed, evenly spaced, when the output is no terminal
        """
        if self._console.is_terminal:
            columns = (
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=None),  # as wide as the texts leave room for
                TextColumn("{task.fields[text]}", justify="right"),
            )
            with Progress(*columns, console=self._console, expand=True) as bar:
                task = bar.add_task(title, total=total, text="")
                yield lambda done, *rest: bar.update(
                    task, completed=done, text=" ".join(describe(done, *rest)).lstrip()
                )
            return
        due = total / lines

        def update(done: float, *rest: float) -> None:
            nonlocal due
            if done >= due:
                self._console.print(f"{title} {'   '.join(describe(done, *rest))}")
                due = (done * lines // total + 1) * total / lines

        yield update


def plain_table(expand: bool = False) -> Table:
    """A table without a frame, narrow unless it is to `expand`."""
    return Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1), pad_edge=False, expand=expand)

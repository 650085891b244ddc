"""What the recommender prints: live on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from fastps.programs.demo.screen import Screen
from fastps.programs.recommend.picks import ForUser, LikeMovie

PLAIN_LINES = 4  # of progress, when nobody watches


class LatestError:
    """The error of the training since it was last asked for, if that is a hundredth of the run or more; fewer ratings
    would say more about themselves than about the model."""

    def __init__(self, total: int) -> None:
        self._least = total / 100
        self._ratings, self._squares, self._rmse = 0, 0.0, math.nan

    def rmse(self, ratings: int, squares: float) -> float:
        if ratings - self._ratings >= self._least:
            self._rmse = ((squares - self._squares) / (ratings - self._ratings)) ** 0.5
            self._ratings, self._squares = ratings, squares
        return self._rmse


class Live:
    """A bar on a terminal."""

    def __init__(self, progress: Progress, task: TaskID, total: int) -> None:
        self._progress, self._task, self._error = progress, task, LatestError(total)

    def update(self, ratings: int, squares: float, ratings_per_second: float) -> None:
        rmse = self._error.rmse(ratings, squares)
        self._progress.update(
            self._task, completed=ratings, count=f"{ratings:,}", rmse=f"{rmse:.3f}", rate=f"{ratings_per_second:,.0f}"
        )


class Plain:
    """About a line for each quarter of the run."""

    def __init__(self, console: Console, total: int) -> None:
        self._console, self._total, self._error = console, total, LatestError(total)
        self._next = total / PLAIN_LINES

    def update(self, ratings: int, squares: float, ratings_per_second: float) -> None:
        if ratings >= self._next:
            self._console.print(
                f"Training {ratings:>11,} of {self._total:,} ratings   RMSE {self._error.rmse(ratings, squares):.3f}   "
                f"{ratings_per_second:>9,.0f} ratings/s"
            )
            self._next = (ratings * PLAIN_LINES // self._total + 1) * self._total / PLAIN_LINES


class RecommendScreen(Screen):
    """The output, in the order in which it calls."""

    @contextmanager
    def training(self, total: int) -> Iterator[Live | Plain]:
        """A run over so many ratings, epochs counted."""
        if not self._console.is_terminal:
            yield Plain(self._console, total)
            return
        columns = (
            TextColumn("[bold]Training"),
            BarColumn(bar_width=16),
            TextColumn(f"{{task.fields[count]:>{len(f'{total:,}')}}}/{total:,}"),
            TextColumn("RMSE {task.fields[rmse]:>5}"),
            TextColumn("{task.fields[rate]:>9} ratings/s"),
        )
        with Progress(*columns, console=self._console) as progress:
            yield Live(progress, progress.add_task("", total=total, count="0", rmse="", rate=""), total)

    def for_users(self, picks: list[ForUser]) -> None:
        for pick in picks:
            self._console.print()
            table = _table()
            _add_titles(table, f"best of {pick.ratings} by user {pick.user}")
            table.add_column("given", justify="right")
            _add_titles(table, "recommended")
            table.add_column("predicted", justify="right")
            for i in range(max(len(pick.rated), len(pick.recommended))):
                table.add_row(*_cells(pick.rated, i, ".1f"), *_cells(pick.recommended, i, ".2f"))
            self._console.print(table)

    def like_movies(self, picks: list[LikeMovie]) -> None:
        self._console.print()
        table = _table()
        _add_titles(table, "movie")
        _add_titles(table, "nearest to it")
        table.add_column("cosine", justify="right")
        for pick in picks:
            for i in range(len(pick.nearest)):
                table.add_row("" if i else escape(pick.title), *_cells(pick.nearest, i, ".2f"))
            table.add_section()
        self._console.print(table)


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1), pad_edge=False, expand=True)


def _add_titles(table: Table, header: str) -> None:
    table.add_column(header, ratio=1, no_wrap=True, overflow="ellipsis")


def _cells(picks: list[tuple[str, float]], i: int, form: str) -> tuple[str, str]:
    """A title, and its score."""
    if i >= len(picks):
        return "", ""
    title, score = picks[i]
    return escape(title), f"{score:{form}}"

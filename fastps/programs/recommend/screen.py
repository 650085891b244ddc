"""What the recommender prints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager

from rich.markup import escape
from rich.table import Table

from fastps.programs.recommend.picks import ForUser, LikeMovie
from fastps.programs.screen import Screen, Update, plain_table


class RecentError:
    """The error of the training since it was last shown, if that is a hundredth of the run or more: the error of fewer
    ratings depends on the ratings more than on the model."""

    def __init__(self, total: int) -> None:
        self._least = total / 100
        self._ratings, self._squares, self._rmse = 0, 0.0, math.nan

    def rmse(self, ratings: int, squares: float) -> float:
        if ratings - self._ratings >= self._least:
            self._rmse = ((squares - self._squares) / (ratings - self._ratings)) ** 0.5
            self._ratings, self._squares = ratings, squares
        return self._rmse


def progress(screen: Screen, total: int) -> AbstractContextManager[Update]:
    """Of a run over `total` ratings, each counted once in each epoch."""
    error = RecentError(total)

    def texts(ratings: int, squares: float, ratings_per_second: float) -> Sequence[str]:
        return (
            f"{ratings:>11,} of {total:,} ratings",
            f"RMSE {error.rmse(ratings, squares):.3f}",
            f"{ratings_per_second:>9,.0f} ratings/s",
        )

    return screen.progress("Training", total, texts)


def user_table(pick: ForUser) -> Table:
    table = plain_table(expand=True)
    _add_titles(table, f"best of {pick.ratings} by user {pick.user}")
    table.add_column("given", justify="right")
    _add_titles(table, "recommended")
    table.add_column("predicted", justify="right")
    for i in range(max(len(pick.rated), len(pick.recommended))):
        table.add_row(*_cells(pick.rated, i, ".1f"), *_cells(pick.recommended, i, ".2f"))
    return table


def movies_table(picks: list[LikeMovie]) -> Table:
    table = plain_table(expand=True)
    _add_titles(table, "movie")
    _add_titles(table, "nearest to it")
    table.add_column("cosine", justify="right")
    for pick in picks:
        for i in range(len(pick.nearest)):
            table.add_row("" if i else escape(pick.title), *_cells(pick.nearest, i, ".2f"))
        table.add_section()
    return table


def _add_titles(table: Table, header: str) -> None:
    table.add_column(header, ratio=1, no_wrap=True, overflow="ellipsis")


def _cells(picks: list[tuple[str, float]], i: int, form: str) -> tuple[str, str]:
    """A title, and its score."""
    if i >= len(picks):
        return "", ""
    title, score = picks[i]
    return escape(title), f"{score:{form}}"

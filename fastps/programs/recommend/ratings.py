"""Ratings, and their split into training and test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
TEST_SHARE = 0.1


@dataclass(frozen=True)
class Ratings:
    """Who gave which movie how many stars.

    Attributes
    ----------
    users, movies : int64[ratings], the numbers of MovieLens, which have gaps
    stars : float32[ratings], from 0.5 to 5
    """

    users: Array
    movies: Array
    stars: Array

    def __len__(self) -> int:
        return len(self.stars)

    def __getitem__(self, which: slice | Array) -> Ratings:
        """Some of them: views for a slice, copies for indices or a mask."""
        return Ratings(self.users[which], self.movies[which], self.stars[which])

    @property
    def mean(self) -> float:
        """Of the stars."""
        return float(self.stars.mean())


def split(ratings: Ratings, seed: int) -> tuple[Ratings, Ratings]:
    """All of them, shuffled by `seed`: those to train on, and a tenth that is held out for the test."""
    order = np.random.default_rng(seed).permutation(len(ratings))
    test, train = np.split(order, [round(len(ratings) * TEST_SHARE)])
    return ratings[train], ratings[test]

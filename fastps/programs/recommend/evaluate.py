"""How far predictions are from the ratings that were not trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastps import ParameterServer
from fastps.programs.recommend.model import LEAST, MOST, Array, predictions, rows
from fastps.programs.recommend.movielens import MovieLens
from fastps.programs.recommend.ratings import Ratings


@dataclass(frozen=True)
class Evaluation:
    """Root mean square errors on the test ratings, in stars.

    Attributes
    ----------
    model : of the factorisation
    movie_means : of the baseline, a movie's mean rating
    """

    model: float
    movie_means: float


def evaluate(server: ParameterServer, data: MovieLens) -> Evaluation:
    by_model = predictions(
        rows(server, "users", data.test.users), rows(server, "movies", data.test.movies), data.train.mean
    )
    return Evaluation(
        rmse(np.clip(by_model, LEAST, MOST), data.test.stars),
        rmse(movie_means(data.train, data.test.movies), data.test.stars),
    )


def rmse(predicted: Array, stars: Array) -> float:
    return float(np.sqrt(np.mean((predicted - stars) ** 2)))


def movie_means(train: Ratings, movies: Array) -> Array:
    """The mean rating of each movie; for one without ratings, the mean of all ratings."""
    numbers, which = np.unique(train.movies, return_inverse=True)
    means = np.bincount(which, train.stars) / np.bincount(which)
    places = np.searchsorted(numbers, movies).clip(max=len(numbers) - 1)
    return np.where(numbers[places] == movies, means[places], train.mean)

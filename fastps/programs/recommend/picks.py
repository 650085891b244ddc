"""Recommendations from the trained tables: movies for a user, and movies that are like a movie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastps import ParameterServer
from fastps.programs.recommend.model import Array
from fastps.programs.recommend.movielens import MovieLens

# The row of a movie with fewer ratings is still close to its random initial values, and so is near to no other movie.
ENOUGH_RATINGS = 20
USERS, MOVIES, EACH = 3, 5, 5
SCAN_ROWS = 4096


@dataclass(frozen=True)
class ForUser:
    """What a user rated best, and what the model recommends: titles with stars.

    Attributes
    ----------
    ratings : number of training ratings of this user
    rated : the best of them, with the stars given
    recommended : the best of those that the user has not rated, with the stars predicted, which may be above 5
    """

    user: int
    ratings: int
    rated: list[tuple[str, float]]
    recommended: list[tuple[str, float]]


@dataclass(frozen=True)
class LikeMovie:
    """The movies whose rows are nearest to the row of one, with the cosine."""

    title: str
    nearest: list[tuple[str, float]]


def familiar(data: MovieLens) -> Array:
    """Movies with enough ratings, the most rated ones first."""
    numbers, counts = np.unique(data.train.movies, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return numbers[order][counts[order] >= ENOUGH_RATINGS]


def for_users(server: ParameterServer, data: MovieLens, seed: int) -> list[ForUser]:
    """A few users, chosen by `seed`."""
    batches = list(server["movies"].items(SCAN_ROWS))
    movies, movie_rows = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    wanted = np.isin(movies, familiar(data))
    movies, movie_rows = movies[wanted], movie_rows[wanted]
    picks = []
    for user in np.sort(np.random.default_rng(seed).choice(np.unique(data.train.users), USERS, replace=False)):
        row = server["users"].pull(np.array([user]))[0]
        stars = movie_rows[:, :-1] @ row[:-1] + movie_rows[:, -1] + row[-1] + data.train.mean
        mine = data.train[data.train.users == user]
        seen = np.isin(movies, np.concatenate([mine.movies, data.test.movies[data.test.users == user]]))
        picks.append(
            ForUser(
                int(user),
                len(mine),
                _best(data, mine.movies, mine.stars),
                _best(data, movies[~seen], stars[~seen]),
            )
        )
    return picks


def like_movies(server: ParameterServer, data: MovieLens) -> list[LikeMovie]:
    """The movies with the most ratings."""
    movies, others = server["movies"], familiar(data)
    picks = []
    for movie in others[:MOVIES]:
        keys, cosines = movies.nearest(movies.pull(np.array([movie]))[0], len(movies), metric="cosine")
        wanted = np.isin(keys, others) & (keys != movie)
        picks.append(LikeMovie(data.titles[int(movie)], _best(data, keys[wanted], cosines[wanted])))
    return picks


def _best(data: MovieLens, movies: Array, scores: Array) -> list[tuple[str, float]]:
    return [(data.titles[int(movies[i])], float(scores[i])) for i in np.argsort(-scores, kind="stable")[:EACH]]

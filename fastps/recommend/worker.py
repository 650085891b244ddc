"""What a worker does, a Ray task: it trains on its share of the ratings."""

from __future__ import annotations

import time

import numpy as np

from fastps import ParameterServer
from fastps.recommend.model import gradients
from fastps.recommend.ratings import Ratings
from fastps.recommend.settings import Settings

# What the board counts. It is a small server of its own, on which an operation takes a microsecond.
AT_THE_START, RATINGS, SQUARES = 0, 1, 2


def work(
    server: ParameterServer, board: ParameterServer, share: Ratings, mean: float, settings: Settings, rank: int
) -> float:
    """Every rating of the share `epochs` times, each time in a new order.

    Parameters
    ----------
    server : with the tables users and movies
    board : float64[3], which adds up workers at the start, ratings and squares of errors
    share : this worker's ratings, another's to none
    mean : of all ratings that are trained on

    Returns
    -------
    float
        Seconds from before the first step to after the last.
    """
    users, movies = server["users"], server["movies"]
    rng = np.random.default_rng((settings.seed, rank))
    # Whatever a first operation has to do is not part of the time; a gradient of zeros changes nothing.
    for table, keys in ((users, share.users[:1]), (movies, share.movies[:1])):
        table.push(keys, np.zeros_like(table.pull(keys)))
    _line_up(board, settings.workers)
    begin = time.perf_counter()
    for _ in range(settings.epochs):
        shuffled = share[rng.permutation(len(share))]
        for start in range(0, len(share), settings.batch):
            batch = shuffled[start : start + settings.batch]
            user_rows, movie_rows = users.pull(batch.users), movies.pull(batch.movies)
            error, of_users, of_movies = gradients(user_rows, movie_rows, batch.stars, mean)
            users.push(batch.users, of_users)
            movies.push(batch.movies, of_movies)
            board.push(np.array([0.0, len(batch), error @ error]))
    return time.perf_counter() - begin


def _line_up(board: ParameterServer, workers: int) -> None:
    """Waits until all are there: Ray starts tasks one after the other, and the first would be done before the last."""
    board.push(np.array([1.0, 0.0, 0.0]))
    while board.pull()[AT_THE_START] < workers:
        time.sleep(0.001)

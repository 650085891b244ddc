"""What a worker does, a Ray task: it trains on batches of ratings until there are none left."""

from __future__ import annotations

import time

import numpy as np

from fastps import ParameterServer
from fastps.programs.recommend.model import gradients
from fastps.programs.recommend.ratings import Ratings
from fastps.programs.recommend.settings import Settings

# What the board counts. It is a small server of its own, on which an operation takes a microsecond.
BOARD = 4
AT_THE_START, RATINGS, SQUARES, BATCHES = range(BOARD)


def work(server: ParameterServer, board: ParameterServer, ratings: Ratings, settings: Settings) -> float:
    """Takes the next batch of an epoch, whoever has the others, until the last epoch is over.

    So a worker that the machine holds up leaves its part to the others. Where each of two had a half of the ratings,
    one could end with its half alone: on a busy machine the test error had a standard deviation of 0.0019, not 0.0006.

    Parameters
    ----------
    server : with the tables users and movies
    board : float64[BOARD], which adds up workers at the start, ratings, squares of errors, and batches that are taken
    ratings : all that are trained on, the same for every worker

    Returns
    -------
    float
        Seconds from before the first step to after the last.
    """
    users, movies, mean = server["users"], server["movies"], ratings.mean
    # Whatever a first operation has to do is not part of the time; a gradient of zeros changes nothing.
    for table, keys in ((users, ratings.users[:1]), (movies, ratings.movies[:1])):
        table.push(keys, np.zeros_like(table.pull(keys)))
    batches = -(-len(ratings) // settings.batch)
    order, shuffled = np.empty(0, np.int64), -1
    step = np.zeros(BOARD)
    _line_up(board, settings.workers)
    begin = time.perf_counter()
    while True:
        step[BATCHES] = 1.0
        epoch, number = divmod(int(board.push_pull(step)[BATCHES]) - 1, batches)
        if epoch >= settings.epochs:
            return time.perf_counter() - begin
        if epoch != shuffled:
            order, shuffled = np.random.default_rng((settings.seed, epoch)).permutation(len(ratings)), epoch
        batch = ratings[order[number * settings.batch :][: settings.batch]]
        user_rows, movie_rows = users.pull(batch.users), movies.pull(batch.movies)
        error, of_users, of_movies = gradients(user_rows, movie_rows, batch.stars, mean)
        users.push(batch.users, of_users)
        movies.push(batch.movies, of_movies)
        step[RATINGS], step[SQUARES] = len(batch), error @ error


def _line_up(board: ParameterServer, workers: int) -> None:
    """Waits until all are there: Ray starts tasks one after the other, and the first would be done before the last."""
    step = np.zeros(BOARD)
    step[AT_THE_START] = 1.0
    board.push(step)
    while board.pull()[AT_THE_START] < workers:
        time.sleep(0.001)

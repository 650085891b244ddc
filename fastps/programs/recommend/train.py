"""One training run: starts the tasks, shows their progress, sums up."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import ray

from fastps import ParameterServer
from fastps.programs.crew import results_of
from fastps.programs.recommend.ratings import Ratings
from fastps.programs.recommend.settings import Settings
from fastps.programs.recommend.worker import AT_THE_START, BOARD, RATINGS, SQUARES, work

POLL_SECONDS = 0.05
LEAVE_SECONDS = 10.0  # a worker whose board has closed ends within a step

# Not retried when its process dies: what it did until then has been pushed.
TASK = ray.remote(num_cpus=0, max_retries=0)(work)


@dataclass(frozen=True)
class Training:
    """The result of a run.

    Attributes
    ----------
    ratings : trained on, a rating once in each epoch
    seconds : of the slowest worker, from before its first step to after its last
    """

    ratings: int
    seconds: float


# Called with what happened since the start: ratings trained on, the sum of their squared errors then, and ratings per
# second.
Show = Callable[[int, float, float], None]


def train(server: ParameterServer, ratings: Ratings, settings: Settings, show: Show) -> Training:
    """Trains with all workers at once, and calls `show` twenty times a second.

    Raises
    ------
    FastPSError
        Of this process or of a worker.
    ray.exceptions.WorkerCrashedError
        The process of a worker died.
    """
    with ParameterServer(BOARD) as board:
        shared = ray.put(ratings)
        runs = [TASK.remote(server, board, shared, settings) for _ in range(settings.workers)]
        try:
            seconds = _watch(runs, board, show, settings.workers)
        except BaseException:
            # The remaining workers end with an error at their next step. Not by ray.cancel: with a task that ends at
            # the same moment, Ray 2.60 crashed this process, in two of ten runs.
            board.close()
            _discard(runs)
            raise
        return Training(int(board.pull()[RATINGS]), seconds)


def _watch(runs: list[Any], board: ParameterServer, show: Show, workers: int) -> float:
    """Until all have ended; returns the seconds of the slowest."""
    seconds, running, begin = [0.0], runs, perf_counter()
    while running:
        ended, running = ray.wait(running, num_returns=len(running), timeout=POLL_SECONDS)
        seconds += results_of(ended)
        tally = board.pull()
        if tally[AT_THE_START] < workers:
            begin = perf_counter()
        if tally[RATINGS]:
            show(int(tally[RATINGS]), float(tally[SQUARES]), float(tally[RATINGS]) / (perf_counter() - begin))
    return max(seconds)


def _discard(runs: list[Any]) -> None:
    """Waits for tasks and retrieves their errors, which Ray would print otherwise."""
    ended, _ = ray.wait(runs, num_returns=len(runs), timeout=LEAVE_SECONDS)
    for run in ended:
        with suppress(Exception):
            ray.get(run)

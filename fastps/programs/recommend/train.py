"""One training run: starts the tasks, watches them, sums up."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

import ray

from fastps import ParameterServer
from fastps.programs.recommend.ratings import Ratings
from fastps.programs.recommend.settings import Settings
from fastps.programs.recommend.worker import AT_THE_START, BOARD, RATINGS, SQUARES, work

POLL_SECONDS = 0.05
LEAVE_SECONDS = 10.0  # a worker whose board has closed is gone within a step

# Not again when its process dies: what it did until then has been pushed.
TASK = ray.remote(num_cpus=0, max_retries=0)(work)


@dataclass(frozen=True)
class Training:
    """What a run came to.

    Attributes
    ----------
    ratings : trained on, a rating once in each epoch
    seconds : of the slowest worker, from before its first step to after its last
    """

    ratings: int
    seconds: float


class Watcher(Protocol):
    """Shows a run while it goes on."""

    def update(self, ratings: int, squares: float, ratings_per_second: float) -> None:
        """All since the start: ratings trained on, the sum of their squared errors when they were, and the rate."""


def train(server: ParameterServer, ratings: Ratings, settings: Settings, watcher: Watcher) -> Training:
    """Trains with all workers at once and reports to `watcher` twenty times a second.

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
            seconds = _watch(runs, board, watcher, settings.workers)
        except BaseException:
            # The workers that are left end with an error at their next step. Not by ray.cancel: with a task that ends
            # at the same moment Ray 2.60 brought down this process, twice in ten.
            board.close()
            _see_off(runs)
            raise
        return Training(int(board.pull()[RATINGS]), seconds)


def _watch(runs: list[Any], board: ParameterServer, watcher: Watcher, workers: int) -> float:
    """Until all have ended; answers the seconds of the slowest."""
    seconds, going, begin = [0.0], runs, perf_counter()
    while going:
        ended, going = ray.wait(going, num_returns=len(going), timeout=POLL_SECONDS)
        seconds += _answers(ended)
        tally = board.pull()
        if tally[AT_THE_START] < workers:
            begin = perf_counter()
        if tally[RATINGS]:
            watcher.update(int(tally[RATINGS]), float(tally[SQUARES]), float(tally[RATINGS]) / (perf_counter() - begin))
    return max(seconds)


def _see_off(runs: list[Any]) -> None:
    """Waits for tasks and takes their errors, which Ray would print if nobody did."""
    ended, _ = ray.wait(runs, num_returns=len(runs), timeout=LEAVE_SECONDS)
    for run in ended:
        with suppress(Exception):
            ray.get(run)


def _answers(runs: list[Any]) -> list[float]:
    """Of tasks. An error is the worker's own, without Ray's page around it."""
    try:
        answers: list[float] = ray.get(runs)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    return answers

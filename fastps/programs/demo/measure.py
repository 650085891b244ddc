"""One training run on one server: starts the workers, shows their progress, sums up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import ray

from fastps import ParameterServer
from fastps.programs.crew import crew, results_of
from fastps.programs.demo.client import Client
from fastps.programs.demo.digits import Digits
from fastps.programs.demo.network import Array, accuracy
from fastps.programs.demo.settings import Settings
from fastps.programs.demo.worker import Timings, Worker

POLL_SECONDS = 0.1
ENOUGH_FOR_P99 = 500  # operations: with fewer, the p99 is one of the five slowest


@dataclass(frozen=True)
class Outcome:
    """The result of a run.

    Attributes
    ----------
    accuracy : on the test images, from 0 to 1
    steps_per_second : all steps by the time of the slowest worker
    pull_us, push_us : (median, p99) over every single operation of every worker; p99 is None of fewer than 500
    nice : the highest niceness of a worker's process
    """

    accuracy: float
    steps_per_second: float
    pull_us: tuple[float, float | None]
    push_us: tuple[float, float | None]
    nice: int


def measure(
    connect: Callable[[], Client], digits: Digits, settings: Settings, show: Callable[[int, float, float], None]
) -> Outcome:
    """Trains with all workers at once, and ten times a second calls `show` with the number of steps until then, the
    mean loss since the last call, and the steps per second since the start.

    The workers count their steps on a small fastps server of their own, the same for both sides. So showing progress
    costs a worker a microsecond every few steps, and the server that is measured nothing.
    """
    with (
        ParameterServer(2) as board,
        crew(
            [
                Worker.remote(  # type: ignore[attr-defined]  # Ray's decorator adds it
                    connect,
                    board,
                    digits.train_x[rank :: settings.workers],
                    digits.train_y[rank :: settings.workers],
                    (settings.seed, rank),
                )
                for rank in range(settings.workers)
            ]
        ) as workers,
    ):
        nice = max(results_of([worker.ready.remote() for worker in workers]))
        begin = perf_counter()
        runs = [worker.train.remote(settings.steps) for worker in workers]
        _watch(runs, board, show, begin)
        timings = results_of(runs)
    return _outcome(timings, accuracy(connect().pull(), digits.test_x, digits.test_y), nice)


def _watch(runs: list[Any], board: ParameterServer, show: Callable[[int, float, float], None], begin: float) -> None:
    seen, running = np.zeros(2), runs
    while running:
        _, running = ray.wait(running, num_returns=len(running), timeout=POLL_SECONDS)
        tally = board.pull()
        steps, losses = tally - seen
        if steps > 0:
            show(int(tally[0]), losses / steps, tally[0] / (perf_counter() - begin))
            seen = tally


def _outcome(timings: list[Timings], reached: float, nice: int) -> Outcome:
    steps = sum(len(t.pull_ns) for t in timings)
    return Outcome(
        reached,
        steps / max(t.elapsed_ns for t in timings) * 1e9,
        _median_p99([t.pull_ns for t in timings]),
        _median_p99([t.push_ns for t in timings]),
        nice,
    )


def _median_p99(durations_ns: list[Array]) -> tuple[float, float | None]:
    durations = np.concatenate(durations_ns)
    median, p99 = np.percentile(durations, (50, 99)) / 1e3
    return float(median), float(p99) if len(durations) >= ENOUGH_FOR_P99 else None

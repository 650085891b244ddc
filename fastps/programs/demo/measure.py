"""One training run on one server: starts the workers, watches them, sums up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import ray

from fastps.programs.demo.client import Client
from fastps.programs.demo.data import Digits
from fastps.programs.demo.network import accuracy
from fastps.programs.demo.worker import Timings, Worker
from fastps.server.handle import ParameterServer

LR = 0.1
POLL_SECONDS = 0.1
ENOUGH_FOR_P99 = 500  # operations: of fewer it tells of the few slowest alone


@dataclass(frozen=True)
class Settings:
    """The options of the demo.

    Attributes
    ----------
    steps : of each worker
    workers, shards : how many
    seed : of everything random: split, initial weights, batches
    """

    steps: int
    workers: int
    shards: int
    seed: int


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

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


class Watcher(Protocol):
    """Shows a run while it goes on."""

    def update(self, steps: int, loss: float, steps_per_second: float) -> None:
        """`loss` is the mean since the last update, `steps_per_second` since the start."""


def measure(connect: Callable[[], Client], digits: Digits, settings: Settings, watcher: Watcher) -> Outcome:
    """Trains with all workers at once and reports to `watcher` ten times a second.

    The workers count their steps on a small fastps server of their own, the same for both sides; so watching costs a
    worker a microsecond every few steps, and the server that is measured nothing.
    """
    with ParameterServer(2) as board:
        workers = [
            Worker.remote(  # type: ignore[attr-defined]  # Ray's decorator adds it
                connect,
                board,
                digits.train_x[rank :: settings.workers],
                digits.train_y[rank :: settings.workers],
                (settings.seed, rank),
            )
            for rank in range(settings.workers)
        ]
        try:
            nice = max(ray.get([worker.ready.remote() for worker in workers]))
            begin = perf_counter()
            runs = [worker.train.remote(settings.steps) for worker in workers]
            _watch(runs, board, watcher, begin)
            timings = ray.get(runs)
        finally:
            for worker in workers:
                ray.kill(worker)
    return _outcome(timings, accuracy(connect().pull(), digits.test_x, digits.test_y), nice)


def _watch(runs: list[Any], board: ParameterServer, watcher: Watcher, begin: float) -> None:
    seen, going = np.zeros(2), runs
    while going:
        _, going = ray.wait(going, num_returns=len(going), timeout=POLL_SECONDS)
        tally = board.pull()
        steps, losses = tally - seen
        if steps > 0:
            watcher.update(int(tally[0]), losses / steps, tally[0] / (perf_counter() - begin))
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


def _median_p99(durations_ns: list[Any]) -> tuple[float, float | None]:
    durations = np.concatenate(durations_ns)
    median, p99 = np.percentile(durations, (50, 99)) / 1e3
    return float(median), float(p99) if len(durations) >= ENOUGH_FOR_P99 else None

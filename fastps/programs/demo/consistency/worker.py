"""A worker that sleeps for a given time in each step, so that one can be slower than the others."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import ray

from fastps import ParameterServer
from fastps.programs.demo.network import SIZE, Array, loss_and_gradients, named
from fastps.programs.demo.settings import BATCH


@dataclass(frozen=True)
class Tally:
    """What one worker did.

    Attributes
    ----------
    steps : gradients that it pushed
    counted : those of them that were applied, not dropped
    seconds : from before the first step to after the last
    """

    steps: int
    counted: int
    seconds: float


@ray.remote(num_cpus=0)
class SlowedWorker:
    """Trains on batches of all images, with one server after the other.

    Parameters
    ----------
    rank : its number
    x, y : images and labels
    seed : of its batches, the same for every server
    sleep : seconds in each step, in addition to the computation
    """

    def __init__(self, rank: int, x: Array, y: Array, seed: int, sleep: float) -> None:
        self._rank, self._x, self._y = rank, x, y
        self._seed, self._sleep = seed, sleep

    def join(self, server: ParameterServer) -> None:
        """Becomes one of the server's workers."""
        self._worker = server.worker(self._rank)
        self._worker.pull()  # what only a first operation has to do is not timed

    def train(self, seconds: float) -> Tally:
        """As many steps as can begin in that time; then leaves the server, so that no other worker waits for it."""
        params, grads = named(np.zeros(SIZE, np.float32)), named(np.zeros(SIZE, np.float32))
        rng = np.random.default_rng((self._seed, self._rank))
        steps = counted = 0
        begin = time.perf_counter()
        with self._worker as worker:
            while time.perf_counter() < begin + seconds:
                worker.pull(out=params)
                batch = rng.integers(0, len(self._x), BATCH)
                loss_and_gradients(params, self._x[batch], self._y[batch], grads)
                time.sleep(self._sleep)
                counted += worker.push(grads).counted
                steps += 1
        return Tally(steps, counted, time.perf_counter() - begin)

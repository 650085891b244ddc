"""A worker whose steps take a given time, so that one can be made slower than the others."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import ray

from fastps.programs.demo.network import SIZE, Array, loss_and_gradients, named
from fastps.programs.demo.worker import BATCH
from fastps.server.handle import ParameterServer


@dataclass(frozen=True)
class Tally:
    """What one worker did.

    Attributes
    ----------
    steps : that it made
    counted : gradients among them that were applied, not dropped
    seconds : from before the first step to after the last
    """

    steps: int
    counted: int
    seconds: float


@ray.remote(num_cpus=0)
class SlowedWorker:
    """Trains on batches of all images, on one server after the other, by a session of its own.

    Parameters
    ----------
    rank : its number
    x, y : images and digits
    seed : of its batches, the same for every server
    sleep : seconds in each step, besides the gradient
    """

    def __init__(self, rank: int, x: Array, y: Array, seed: int, sleep: float) -> None:
        self._rank, self._x, self._y = rank, x, y
        self._seed, self._sleep = seed, sleep

    def join(self, server: ParameterServer) -> None:
        """Becomes one of the server's workers."""
        self._worker = server.worker(self._rank)
        self._worker.pull()  # whatever a first operation has to do is not part of the time

    def train(self, seconds: float) -> Tally:
        """As many steps as can be begun in that time; then leaves, and nobody waits for it any more."""
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

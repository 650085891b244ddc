"""The training loop of a worker. It is the same for both servers."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter_ns

import numpy as np
import ray

from fastps import ParameterServer
from fastps.programs.demo.client import Client
from fastps.programs.demo.network import Array, loss_and_gradients
from fastps.programs.demo.settings import BATCH

REPORT_EVERY = 20  # steps


@dataclass(frozen=True)
class Timings:
    """What one worker measured.

    Attributes
    ----------
    pull_ns, push_ns : int64[steps], each single operation
    elapsed_ns : from before the first step to after the last
    """

    pull_ns: Array
    push_ns: Array
    elapsed_ns: int


@ray.remote(num_cpus=0)
class Worker:
    """Trains on its share of the images.

    An actor, not a task, so that its process runs and is connected before the clock starts.

    Parameters
    ----------
    connect : creates the client, in this process
    board : float64[2], the number of steps and the sum of the losses, of all workers
    x, y : this worker's images and digits
    seed : of its batches
    """

    def __init__(
        self, connect: Callable[[], Client], board: ParameterServer, x: Array, y: Array, seed: tuple[int, int]
    ) -> None:
        self._client, self._board = connect(), board
        self._x, self._y = x, y
        self._rng = np.random.default_rng(seed)

    def ready(self) -> int:
        """Connects to both servers; returns this process's niceness."""
        self._client.pull()
        self._board.pull()
        return os.nice(0)

    def train(self, steps: int) -> Timings:
        client, grads = self._client, self._client.grads
        # Not np.empty: the first write to each page would fault, within what is timed.
        pull_ns, push_ns = np.ones(steps, np.int64), np.ones(steps, np.int64)
        batches = self._rng.integers(0, len(self._x), (steps, BATCH), np.int32)
        tally = np.zeros(2)
        begin = perf_counter_ns()
        for step, batch in enumerate(batches):
            x, y = self._x[batch], self._y[batch]
            before_pull = perf_counter_ns()
            params = client.pull()
            after_pull = perf_counter_ns()
            loss = loss_and_gradients(params, x, y, grads)
            before_push = perf_counter_ns()
            client.push()
            after_push = perf_counter_ns()
            pull_ns[step] = after_pull - before_pull
            push_ns[step] = after_push - before_push
            tally += (1.0, loss)
            if tally[0] == REPORT_EVERY or step == steps - 1:
                self._board.push(tally)
                tally[:] = 0.0
        return Timings(pull_ns, push_ns, perf_counter_ns() - begin)

"""One training run under one setting of consistency, for a given time, with a straggler among the workers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import ray

from fastps import SGD, LocalSGD, ParameterServer
from fastps.programs.demo import network
from fastps.programs.demo.curve import Curve
from fastps.programs.demo.data import Digits
from fastps.programs.demo.policies import Policy
from fastps.programs.demo.slowed import SlowedWorker, Tally

# Seconds that every step sleeps, in place of a larger model's computation: real ones would compete for the cores.
COMPUTATION = 0.003
SAMPLE_SECONDS = 0.05


@dataclass(frozen=True)
class Settings:
    """What all runs have in common.

    Attributes
    ----------
    workers, shards : how many
    straggler : how many times as long as another the last worker sleeps in each step; 1: there is none
    seconds : of training
    seed : of everything random: split, initial weights, batches
    """

    workers: int
    shards: int
    straggler: float
    seconds: float
    seed: int


@dataclass(frozen=True)
class Finish:
    """What a run came to.

    Attributes
    ----------
    curve : the loss over time
    accuracy : on the test images, from 0 to 1
    steps_per_second : of a worker that is not slowed down, in the mean
    straggler_steps, straggler_counted : made by the slowed worker, and those that changed the parameters
    dropped : gradients of all workers that came when their round had closed
    problem : what is wrong with the numbers; None: nothing
    """

    curve: Curve
    accuracy: float
    steps_per_second: float
    straggler_steps: int
    straggler_counted: int
    dropped: int
    problem: str | None


class Watcher(Protocol):
    """Shows a run while it goes on."""

    def update(self, seconds: float, loss: float) -> None:
        """Time since the workers began, and the loss then."""


@contextmanager
def crew(digits: Digits, settings: Settings) -> Iterator[list[Any]]:
    """The workers, in processes of their own, for the duration of the block. The last one is the straggler."""
    images, labels = ray.put(digits.train_x), ray.put(digits.train_y)
    sleeps = [COMPUTATION] * (settings.workers - 1) + [COMPUTATION * settings.straggler]
    workers = [
        SlowedWorker.remote(rank, images, labels, settings.seed, sleep)  # type: ignore[attr-defined]  # by the decorator
        for rank, sleep in enumerate(sleeps)
    ]
    try:
        yield workers
    finally:
        for worker in workers:
            ray.kill(worker)


def race(policy: Policy, digits: Digits, settings: Settings, workers: list[Any], watcher: Watcher) -> Finish:
    """Trains with all workers at once. This process is none of them: it looks, and nobody waits for it.

    Raises
    ------
    FastPSError
        Of this process or of a worker.
    """
    with ParameterServer(
        network.named(network.initial(settings.seed)),
        rule=SGD(policy.lr(settings.workers)),
        num_shards=settings.shards,
        consistency=policy.make(settings.workers),
    ) as server:
        _answers([worker.join.remote(server) for worker in workers])
        curve, params, tallies = _train(workers, server, digits, settings.seconds, watcher)
        reached = network.accuracy(params, digits.test_x, digits.test_y)
        return _finish(policy, curve, reached, tallies, server)


def _answers(calls: list[Any]) -> list[Any]:
    """Of Ray calls. An error is the worker's own, without Ray's page around it."""
    try:
        answers: list[Any] = ray.get(calls)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    return answers


def _train(
    workers: list[Any], server: ParameterServer, digits: Digits, seconds: float, watcher: Watcher
) -> tuple[Curve, network.Named, list[Tally]]:
    """Lets the workers train, and looks at the parameters all the while; answers those of the last look."""
    curve, params = Curve(), network.named(np.zeros(network.SIZE, np.float32))

    def sample(now: float) -> None:
        curve.add(now, network.loss(server.pull(out=params), digits.train_x, digits.train_y))
        watcher.update(now, curve.losses[-1])

    sample(0.0)
    runs = [worker.train.remote(seconds) for worker in workers]
    begin = time.perf_counter()
    while (now := time.perf_counter() - begin) < seconds:
        ended, _ = ray.wait(runs, timeout=min(SAMPLE_SECONDS, seconds - now))
        if ended:
            _answers(ended)  # raises what ended it, or the time is as good as over
            time.sleep(0.01)
        sample(min(time.perf_counter() - begin, seconds))
    return curve, params, _answers(runs)


def _finish(policy: Policy, curve: Curve, accuracy: float, tallies: list[Tally], server: ParameterServer) -> Finish:
    *fast, slow = tallies
    consistency = policy.make(len(tallies))
    # The steps of a round that did not end are no part of any average.
    lost = slow.steps % consistency.steps if isinstance(consistency, LocalSGD) else 0
    dropped = server.stats().total["dropped"]
    return Finish(
        curve,
        accuracy,
        sum(tally.steps / tally.seconds for tally in fast) / len(fast),
        slow.steps,
        slow.counted - lost,
        dropped,
        _problem(curve, tallies, server.versions, dropped, consistency.rounds),
    )


def _problem(curve: Curve, tallies: list[Tally], versions: tuple[int, ...], dropped: int, rounds: bool) -> str | None:
    """Holds what the workers say against what the server counted."""
    made, counted = sum(tally.steps for tally in tallies), sum(tally.counted for tally in tallies)
    if made - counted != dropped:
        return f"the workers were told of {made - counted} dropped gradients, and the server counted {dropped}"
    if len(set(versions)) > 1 or (not rounds and versions[0] != made):
        return f"the shards are at versions {versions} after {made} pushes"
    if not np.isfinite(curve.losses).all():
        return "the loss is not finite"
    return None

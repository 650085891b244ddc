"""One training run under one setting of consistency, for a given time, with a straggler among the workers."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray

from fastps import SGD, LocalSGD, ParameterServer
from fastps.programs.crew import crew, results_of
from fastps.programs.demo import network
from fastps.programs.demo.consistency.curve import Curve
from fastps.programs.demo.consistency.policies import Policy
from fastps.programs.demo.consistency.settings import Settings
from fastps.programs.demo.consistency.worker import SlowedWorker, Tally
from fastps.programs.demo.digits import Digits

# Seconds that every step sleeps, in place of a larger model's computation: real ones would compete for the cores.
COMPUTATION = 0.003
SAMPLE_SECONDS = 0.05


@dataclass(frozen=True)
class Finish:
    """The result of a run.

    Attributes
    ----------
    policy : the setting
    curve : the loss over time
    accuracy : on the test images, from 0 to 1
    steps_per_second : the mean of the workers that are not slowed down
    straggler_steps, straggler_counted : steps of the slowed worker, and those of them that changed the parameters
    dropped : gradients of all workers that came after their round had closed
    problem : what is wrong with the numbers; None: nothing
    """

    policy: Policy
    curve: Curve
    accuracy: float
    steps_per_second: float
    straggler_steps: int
    straggler_counted: int
    dropped: int
    problem: str | None


def racers(digits: Digits, settings: Settings) -> AbstractContextManager[list[Any]]:
    """The workers, in processes of their own, for the duration of the block. The last one is the straggler."""
    images, labels = ray.put(digits.train_x), ray.put(digits.train_y)
    sleeps = [COMPUTATION] * (settings.workers - 1) + [COMPUTATION * settings.straggler]
    return crew(
        [
            SlowedWorker.remote(  # type: ignore[attr-defined]  # Ray's decorator adds it
                rank, images, labels, settings.seed, sleep
            )
            for rank, sleep in enumerate(sleeps)
        ]
    )


def race(
    policy: Policy, digits: Digits, settings: Settings, workers: list[Any], show: Callable[[float, float], None]
) -> Finish:
    """Trains with all workers at once. This process is not one of them: it observes, and no worker waits for it.

    It calls `show` with the seconds since the workers began, and the loss then.

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
        results_of([worker.join.remote(server) for worker in workers])
        curve, params, tallies = _train(workers, server, digits, settings.seconds, show)
        reached = network.accuracy(params, digits.test_x, digits.test_y)
        return _finish(policy, curve, reached, tallies, server)


def _train(
    workers: list[Any], server: ParameterServer, digits: Digits, seconds: float, show: Callable[[float, float], None]
) -> tuple[Curve, network.Named, list[Tally]]:
    """Lets the workers train, and samples the loss meanwhile; returns the parameters of the last sample as well."""
    curve, params = Curve(), network.named(np.zeros(network.SIZE, np.float32))

    def sample(now: float) -> None:
        curve.add(now, network.loss(server.pull(out=params), digits.train_x, digits.train_y))
        show(now, curve.losses[-1])

    sample(0.0)
    runs = [worker.train.remote(seconds) for worker in workers]
    begin = time.perf_counter()
    while (now := time.perf_counter() - begin) < seconds:
        ended, _ = ray.wait(runs, timeout=min(SAMPLE_SECONDS, seconds - now))
        if ended:
            results_of(ended)  # raises the error that ended it; without one, the time is nearly over
            time.sleep(0.01)
        sample(min(time.perf_counter() - begin, seconds))
    return curve, params, results_of(runs)


def _finish(policy: Policy, curve: Curve, accuracy: float, tallies: list[Tally], server: ParameterServer) -> Finish:
    *fast, slow = tallies
    consistency = policy.make(len(tallies))
    # The steps of a round that did not end are part of no average.
    lost = slow.steps % consistency.steps if isinstance(consistency, LocalSGD) else 0
    dropped = server.stats().total["dropped"]
    return Finish(
        policy,
        curve,
        accuracy,
        sum(tally.steps / tally.seconds for tally in fast) / len(fast),
        slow.steps,
        slow.counted - lost,
        dropped,
        _problem(curve, tallies, server.versions, dropped, consistency.rounds),
    )


def _problem(curve: Curve, tallies: list[Tally], versions: tuple[int, ...], dropped: int, rounds: bool) -> str | None:
    """Compares what the workers report with what the server counted."""
    made, counted = sum(tally.steps for tally in tallies), sum(tally.counted for tally in tallies)
    if made - counted != dropped:
        return f"{made - counted} gradients were dropped according to the workers, {dropped} according to the server"
    if len(set(versions)) > 1 or (not rounds and versions[0] != made):
        return f"the shards are at versions {versions} after {made} pushes"
    if not np.isfinite(curve.losses).all():
        return "the loss is not finite"
    return None

"""The same promises with workers and shards on three nodes."""

from __future__ import annotations

import time

import numpy as np
import pytest
import ray

import fastps
from tests.conformance.test_consistency import WORKERS, check, histories
from tests.support import workers
from tests.support.extent import short_or_long
from tests.support.waiting import GUARD_SECONDS, wait_until


@pytest.mark.parametrize(
    ("bound", "shards_on"),
    short_or_long([(0, (0, 1)), (1, (2,)), (4, (0, 1))], [(0, (0, 1, 2)), (0, (2,)), (1, (2,)), (4, (0, 1, 2))]),
)
def test_no_pull_is_staler_than_the_bound_on_three_nodes(cluster3, rng, bound, shards_on):
    placement = [cluster3.ids[i] for i in shards_on]
    with fastps.ParameterServer(
        np.zeros(6, np.float32),
        num_shards=len(shards_on),
        placement=placement,
        consistency=fastps.SSP(bound, workers=WORKERS),
    ) as ps:
        check(histories(ps, cluster3.ids, int(rng.integers(2**31)), count=40), bound, ps)


LEASE = 2.0  # seconds: so long no thread is kept from the processor, however busy the machine


def hold(ps, seconds):
    with ps.worker() as w:
        w.pull()
        time.sleep(seconds)
        return w.clock


def join_and_stay(ps):
    ps.kept = ps.worker()
    ps.kept.pull()
    return ps.kept.rank


@pytest.fixture(scope="module")
def away(cluster3):
    """A worker on another node, for tests that leave it alive."""
    worker = workers.Worker.options(resources={"node1": 0.001}).remote()
    yield worker
    ray.kill(worker)


def test_a_worker_elsewhere_that_computes_for_long_keeps_its_lease(away):
    with fastps.ParameterServer(np.zeros(6), consistency=fastps.SSP(0, workers=2, lease=LEASE)) as ps:
        ray.get(away.take.remote(ps))
        with ps.worker(1) as w:
            holding = away.do.remote(hold, 2 * LEASE)
            w.pull()
            w.push(np.ones(6))
            w.pull(timeout=GUARD_SECONDS)  # waits until the other one leaves
            assert ray.get(holding) == 0
            assert ps.stats().shards[0].expelled == 0


def wait_for_the_other(ps):
    with ps.worker(1) as w:
        w.push(np.ones(6))
        w.pull(timeout=GUARD_SECONDS)


def test_a_call_that_is_parked_outlasts_the_words_that_keep_its_lease(away):
    """The word that it sends three times in a lease has a deadline of its own, of one second."""
    with fastps.ParameterServer(np.zeros(6), consistency=fastps.SSP(0, workers=2, lease=LEASE)) as ps:
        ray.get(away.take.remote(ps))
        ray.get(away.versions.remote())  # it has its connection
        with ps.worker(0) as w:
            waiting = away.do.remote(wait_for_the_other)
            wait_until(lambda: ps.versions == (1,), 60, "the push of the worker that waits then")
            time.sleep(1.5 * LEASE)
            assert ray.wait([waiting], timeout=0) == ([], [waiting])
            w.push(np.ones(6))
            ray.get(waiting)
            assert ps.stats().shards[0].expelled == 0


def drop(ps):
    ps.kept = None


def test_a_worker_elsewhere_that_is_dropped_keeps_no_lease(away):
    with fastps.ParameterServer(np.zeros(6), consistency=fastps.SSP(0, workers=2, lease=0.6)) as ps:
        ray.get(away.take.remote(ps))
        with ps.worker(1) as w:
            ray.get(away.do.remote(join_and_stay))
            w.push(np.ones(6))
            ray.get(away.do.remote(drop))
            w.pull(timeout=GUARD_SECONDS)


def test_a_killed_worker_elsewhere_is_waited_for_no_longer_than_its_lease(cluster3):
    with fastps.ParameterServer(np.zeros(6), consistency=fastps.SSP(0, workers=2, lease=3.0)) as ps:
        away = workers.Worker.options(resources={"node1": 0.001}).remote(ps)
        with ps.worker(1) as w:
            assert ray.get(away.do.remote(join_and_stay)) == 0
            w.pull()
            w.push(np.ones(6))
            with pytest.raises(fastps.WaitTimeoutError, match="rank 0"):
                w.pull(timeout=0.2)
            ray.kill(away)
            w.pull(timeout=GUARD_SECONDS)
            assert w.reply.staleness == 0
            with ps.worker(0) as next_one:
                assert next_one.clock == w.clock

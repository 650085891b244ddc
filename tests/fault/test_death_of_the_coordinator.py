"""The process that speaks for workers of other nodes is killed: the next one of its calls starts another."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

import fastps
from tests.support.leftovers import started_here
from tests.support.waiting import GUARD_SECONDS, wait_until


def coordinators():
    """The processes of coordinators, by what they were called with."""
    return [pid for pid, command in started_here(shared=True).items() if command.startswith("ray::Coordinator")]


def kill_the_coordinator():
    (pid,) = coordinators()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: pid not in started_here(shared=True), 30, "the coordinator's end")


@pytest.fixture
def away(cluster3):
    """Where a server's shard is, for a worker of this process to be elsewhere."""
    return {"placement": [cluster3.ids[1]], "timeout": GUARD_SECONDS}


def test_a_worker_elsewhere_goes_on_when_the_coordinator_was_killed(away):
    with fastps.ParameterServer(np.zeros(6), consistency=fastps.SSP(1), **away) as ps, ps.worker() as w:
        w.push(np.ones(6))
        kill_the_coordinator()
        for _ in range(3):
            w.push(np.ones(6))
        assert ps.pull().tolist() == [4] * 6
        assert (w.rank, w.clock, w.returns) == (0, 4, 0)
        with ps.worker() as other:  # a new one comes through the new coordinator
            other.push(np.ones(6))
            assert other.rank == 1
        assert len(coordinators()) == 1


def test_a_worker_elsewhere_opens_a_session_after_the_coordinator_was_killed(away):
    with fastps.ParameterServer(np.zeros(6), consistency=fastps.SSP(1), **away) as ps:
        ps.worker().close()
        kill_the_coordinator()
        with ps.worker() as w:
            w.push(np.ones(6))
        assert ps.pull().tolist() == [1] * 6


def test_two_workers_elsewhere_find_one_new_coordinator_and_keep_their_ranks(away):
    with (
        fastps.ParameterServer(np.zeros(6), consistency=fastps.SSP(3), **away) as ps,
        ps.worker(3) as one,
        ps.worker(5) as two,
    ):
        kill_the_coordinator()
        one.push(np.ones(6))
        two.push(np.ones(6))
        assert (one.rank, two.rank, one.returns, two.returns) == (3, 5, 0, 0)
        assert len(coordinators()) == 1


def test_a_worker_of_rounds_elsewhere_goes_on_when_the_coordinator_was_killed(away):
    with fastps.ParameterServer(np.zeros(6), consistency=fastps.BSP(), **away) as ps, ps.worker() as w:
        assert w.push(np.ones(6)).counted
        assert w.pull().tolist() == [1] * 6
        kill_the_coordinator()
        assert w.pull().tolist() == [1] * 6
        assert w.push(np.ones(6)).counted
        assert w.pull().tolist() == [2] * 6
        assert w.returns == 0


def test_when_the_shard_has_died_too_that_is_what_a_worker_is_told(away):
    with fastps.ParameterServer(np.zeros(6), consistency=fastps.SSP(1), **away) as ps, ps.worker() as w:
        kill_the_coordinator()
        os.kill(ps.attachment.spec.addresses[0].pid, signal.SIGKILL)
        with pytest.raises(fastps.ShardDiedError, match="on node"):
            w.push(np.ones(6))

"""Workers' sessions on one node: joining, leaving, errors that say what to do."""

from __future__ import annotations

import os
import pickle
import threading

import numpy as np
import pytest

import fastps
from fastps.testing.history import Recorder, check_ssp
from tests.support.waiting import GUARD_SECONDS

pytestmark = pytest.mark.usefixtures("ray_local")

ONES = np.ones(4)


@pytest.fixture(scope="module")
def lockstep(ray_local):
    with fastps.ParameterServer(np.zeros(4), consistency=fastps.SSP(0), max_workers=3) as ps:
        yield ps


def test_ranks_are_given_in_order_and_again_after_leaving(lockstep):
    with lockstep.worker() as a, lockstep.worker() as b:
        assert (a.rank, b.rank) == (0, 1)
        a.close()
        a.close()
        with lockstep.worker() as c:
            assert c.rank == 0


def test_a_rank_that_is_taken_is_refused_and_says_by_whom(lockstep):
    with lockstep.worker(2) as w:
        with pytest.raises(fastps.RankError, match=f"rank 2 is taken by process {os.getpid()}"):
            lockstep.worker(2)
        with lockstep.worker(), lockstep.worker(), pytest.raises(fastps.RankError, match="all 3 ranks"):
            lockstep.worker()
        assert w.rank == 2


@pytest.mark.parametrize("rank", [-1, 3, 1.0, True, "0"])
def test_a_rank_that_there_is_not_is_refused(lockstep, rank):
    with pytest.raises(fastps.RankError, match="worker: expected a rank"):
        lockstep.worker(rank)


def test_a_push_without_a_session_is_refused_and_applies_nothing(lockstep):
    before = lockstep.pull()
    for call in (lockstep.push, lockstep.push_pull, lockstep.push_async):
        with pytest.raises(fastps.WorkerRequiredError, match=r"with ps.worker\(\) as w"):
            call(ONES)
    assert (lockstep.pull() == before).all()


def test_an_operation_after_leaving_is_refused(lockstep):
    with lockstep.worker() as w:
        pass
    for call in (w.pull, lambda: w.push(ONES), w.view, w.end_step):
        with pytest.raises(fastps.ClosedError, match="it has left"):
            call()


def test_a_session_does_not_travel(lockstep):
    with lockstep.worker() as w, pytest.raises(TypeError, match="open a worker where it runs"):
        pickle.dumps(w)


def test_waiting_for_a_worker_ends_at_the_deadline_and_names_it(lockstep):
    with lockstep.worker() as slow, lockstep.worker() as fast:
        fast.push(ONES)
        with pytest.raises(fastps.WaitTimeoutError, match=f"rank {slow.rank}, process {os.getpid()}"):
            fast.pull(timeout=0.05)
        slow.push(ONES)
        fast.pull(timeout=0)
        assert fast.reply.staleness == 0


def test_nobody_is_ahead_before_the_quorum_is_there():
    with fastps.ParameterServer(np.zeros(4), consistency=fastps.SSP(1, workers=2)) as ps, ps.worker() as early:
        early.push(ONES)
        early.push(ONES)
        with pytest.raises(fastps.WaitTimeoutError, match="2 workers to join"):
            early.pull(timeout=0.05)
        with ps.worker() as late:
            assert late.clock == 0
            late.push(ONES)
            early.pull(timeout=0)


def test_who_comes_later_begins_where_the_slowest_is(lockstep):
    with lockstep.worker() as first:
        for _ in range(5):
            first.push(ONES)
        with lockstep.worker() as second:
            assert second.clock == first.clock
            second.push(ONES)
            first.push(ONES)
            second.pull(timeout=0)


def test_leaving_lets_the_others_go_on(lockstep):
    with lockstep.worker() as stays:
        leaves = lockstep.worker()
        stays.push(ONES)
        threading.Timer(0.1, leaves.close).start()
        stays.pull(timeout=GUARD_SECONDS)


def test_a_session_that_is_dropped_leaves(lockstep):
    with lockstep.worker() as stays:
        lockstep.worker()
        stays.push(ONES)
        stays.pull(timeout=0)


def test_a_push_that_ends_no_step_and_a_step_without_a_push(lockstep):
    with lockstep.worker() as w:
        clock = w.clock
        assert w.push(ONES, step=False).clock == clock
        assert w.clock == clock
        w.end_step()
        assert w.clock == clock + 1


def test_a_refused_push_ends_no_step(lockstep):
    with lockstep.worker() as w:
        clock = w.clock
        with pytest.raises(fastps.ShapeError):
            w.push(np.ones(5))
        assert w.clock == clock


@pytest.mark.parametrize("verb", ["push", "push_pull"])
@pytest.mark.parametrize("policy", [fastps.SSP, fastps.BSP, fastps.LocalSGD])
def test_every_error_that_leaves_a_push_before_it_begins_says_that_nothing_was_done(policy, verb):
    consistency = policy(workers=2) if policy is fastps.BSP else policy(1, workers=2)
    with fastps.ParameterServer(np.zeros(4), consistency=consistency) as ps, ps.worker() as w:
        for _ in range(consistency.bound + 1):
            w.push(ONES)
        attempts = [
            (fastps.WaitTimeoutError, {"timeout": 0.05}),  # for the second worker
            (fastps.OptionError, {"timeout": -1}),
            *([] if policy is fastps.SSP else [(fastps.OptionError, {"pulled": ONES})]),
            (fastps.ClosedError, {}),
        ]
        clock = w.clock
        for expected, options in attempts:
            if expected is fastps.ClosedError:
                w.close()
            with pytest.raises(expected) as caught:
                getattr(w, verb)(ONES, **options)
            outcome = fastps.outcome_of(caught.value)
            assert (outcome.applied, outcome.partial, outcome.unknown) == ((), (), ())
            assert outcome.counts is (None if policy is fastps.SSP else False)
            assert w.clock == clock
            if policy is not fastps.SSP:
                assert "nothing was done" in " ".join([str(caught.value), *getattr(caught.value, "__notes__", ())])


def test_replies_tell_versions_and_whether_a_push_counted():
    with fastps.ParameterServer(np.zeros(4), num_shards=2, nonfinite="skip") as ps, ps.worker() as w:
        assert w.push(ONES).versions == (1, 1)
        assert not w.push(np.full(4, np.nan)).counted
        assert w.push(ONES).counted
        w.pull()
        assert w.reply.versions == (2, 2)
        w.push_pull(ONES)
        assert w.reply.versions == (3, 3)
        assert w.clock == 4


def test_a_fork_of_a_worker_is_not_that_worker(lockstep):
    with lockstep.worker() as w:
        clock = w.clock
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                w.push(ONES)
            except fastps.ClosedError as error:
                code = 0 if "parent" in str(error) else 2
            finally:
                w.close()
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
        w.push(ONES)
        assert w.clock == clock + 1


@pytest.mark.parametrize(
    "options",
    [
        {"staleness": -1},
        {"staleness": 1.5},
        {"staleness": True},
        {"staleness": 1, "workers": 0},
        {"staleness": 1, "straggler_timeout": 0},
        {"staleness": 1, "lease": None},
        {"staleness": 1, "lease": -1},
    ],
)
def test_settings_that_cannot_be_are_refused(options):
    with pytest.raises(fastps.OptionError, match="expected"):
        fastps.SSP(**options)


@pytest.mark.parametrize("options", [{"consistency": "ssp"}, {"max_workers": 0}, {"max_workers": 257},
                                     {"consistency": fastps.SSP(0, workers=5), "max_workers": 4}])  # fmt: skip
def test_a_server_refuses_a_consistency_that_is_none(options):
    with pytest.raises(fastps.OptionError, match="expected"):
        fastps.ParameterServer(4, **options)


def test_threads_of_one_process_are_workers_of_their_own():
    with fastps.ParameterServer(np.zeros(4), consistency=fastps.SSP(1, workers=3)) as ps:
        recorders, errors = [], []

        def steps(rank):
            try:
                with Recorder(ps.worker(rank)) as w:
                    recorders.append(w)
                    for _ in range(200):
                        w.pull()
                        w.push(ONES)
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=steps, args=(rank,)) for rank in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert check_ssp([e for r in recorders for e in r.events], 1) == []
        assert (ps.pull() == 600).all()

"""A process that is stopped while it holds a lock, Ctrl-C, too few sessions: what waits says so, and can go on.

Most tests share servers: each begins with what the one before has left.
"""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pytest
import ray

import fastps
from tests.support import workers
from tests.support.local_server import Holder
from tests.support.waiting import GUARD_SECONDS

pytestmark = pytest.mark.usefixtures("ray_local")

N = 600_000


def holder_of(ps, shard=0, stripe=0):
    address = ps.attachment.spec.addresses[shard]
    return Holder(address.pid, address.fd, stripe)


ARRAY, MAPPING = np.ones(N), {"a": np.ones(N - 5), "b": np.ones(5)}


@pytest.fixture(scope="module")
def small(ray_local):
    """A server of ten numbers."""
    with fastps.ParameterServer(np.zeros(10)) as ps:
        yield ps


@pytest.fixture(scope="module")
def array_of_three(ray_local):
    """An array of several stripes on each of three shards."""
    with fastps.ParameterServer(0 * ARRAY, num_shards=3) as ps:
        yield ps


@pytest.fixture(scope="module")
def mapping_of_three(ray_local):
    with fastps.ParameterServer({name: 0 * array for name, array in MAPPING.items()}, num_shards=3) as ps:
        yield ps


def increased(before, after):
    """By how much all elements have grown."""
    pairs = [(before[name], after[name]) for name in before] if isinstance(before, dict) else [(before, after)]
    (by,) = {float(by) for old, new in pairs for by in np.unique(new - old)}
    return by


@pytest.mark.parametrize(
    ("grads", "shard", "stripe", "shards"),
    [
        (ARRAY, 0, 0, ((1, 2), (), (0,))),
        (ARRAY, 2, 2, ((0, 1), (2,), ())),
        (MAPPING, 1, 0, ((0, 2), (), (1,))),
        (MAPPING, 1, 3, ((0, 2), (1,), ())),
    ],
    ids=["array, first stripe", "array, third stripe", "mapping, first stripe", "mapping, fourth stripe"],
)
def test_a_stopped_holder_is_named_at_the_timeout_and_the_push_resumes_to_exactly_once(
    grads, shard, stripe, shards, array_of_three, mapping_of_three
):
    ps = array_of_three if grads is ARRAY else mapping_of_three
    before, versions = ps.pull(), ps.versions
    ps.push(grads)
    with holder_of(ps, shard, stripe) as holder:
        os.kill(holder.pid, signal.SIGSTOP)
        with pytest.raises(fastps.WaitTimeoutError) as caught:
            ps.push(grads, timeout=0.2)
        error = caught.value
        assert f"process {holder.pid} " in str(error)
        assert f"shard {shard} of 3" in str(error)
        assert isinstance(error, TimeoutError)
        # Which shard comes first differs from lane to lane: the others may be done, or may not be reached yet.
        stuck = (error.partial, error.pending)[shards[1] == ()]
        assert shard in stuck
        assert {*error.applied, *error.partial, *error.pending} == {0, 1, 2}
        assert error.partial == shards[1]
        with pytest.raises(fastps.WaitTimeoutError) as again:
            ps.push(grads, resume=error.resume, timeout=0.1)
        assert {*again.value.applied, *again.value.partial, *again.value.pending} == {0, 1, 2}
        assert again.value.partial == shards[1]
        assert shard not in again.value.applied
        os.kill(holder.pid, signal.SIGCONT)
        holder.let_go()
    ps.push(grads, resume=again.value.resume)
    assert increased(before, ps.pull()) == 2
    assert ps.versions == tuple(version + 2 for version in versions)
    for used in (error.resume, again.value.resume):
        with pytest.raises(fastps.FastPSError):
            ps.push(grads, resume=used)
    assert ps.versions == tuple(version + 2 for version in versions)


def test_a_push_pull_that_timed_out_is_resumed_too(array_of_three):
    ps, before, out = array_of_three, array_of_three.pull(), np.empty(N)
    with holder_of(ps, 1, 1) as holder:
        with pytest.raises(fastps.WaitTimeoutError) as caught:
            ps.push_pull(np.ones(N), out=out, timeout=0.1)
        holder.let_go()
    ps.push(np.ones(N), resume=caught.value.resume)
    assert increased(before, ps.pull()) == 1


def test_a_pull_that_waits_for_a_lock_times_out_and_has_no_effect(array_of_three):
    ps, before, sleeps = array_of_three, array_of_three.pull(), array_of_three.stats().shards[0].lock_sleeps
    with holder_of(ps, 0, 2) as holder:
        with pytest.raises(fastps.WaitTimeoutError, match=f"process {holder.pid} ") as caught:
            ps.pull(timeout=0.1)
        assert caught.value.resume is None
        holder.let_go()
    assert increased(before, ps.pull()) == 0
    assert ps.stats().shards[0].lock_sleeps > sleeps


def test_a_resume_of_another_server_is_refused(small):
    with fastps.ParameterServer(np.zeros(10)) as two:
        with holder_of(small) as holder:
            with pytest.raises(fastps.WaitTimeoutError) as caught:
                small.push(np.ones(10), timeout=0.1)
            holder.let_go()
        for wrong in (caught.value.resume, "a push", 3):
            with pytest.raises(fastps.OptionError, match="resume"):
                two.push(np.ones(10), resume=wrong)
        assert two.versions == (0,)


def test_the_timeout_of_the_server_holds_where_a_call_gives_none():
    with fastps.ParameterServer(np.zeros(10), timeout=GUARD_SECONDS) as ps:
        with holder_of(ps) as holder:
            timer = threading.Timer(0.3, holder.let_go)
            timer.start()
            ps.push(np.ones(10))  # waits for the holder, which lets go in time
            timer.join()
        assert ps.pull().tolist() == [1] * 10


def test_a_push_waits_without_end_when_told_so(small):
    before = small.pull()
    with holder_of(small) as holder:
        timer = threading.Timer(0.3, holder.let_go)
        timer.start()
        small.push(np.ones(10), timeout=float("inf"))
        timer.join()
    assert increased(before, small.pull()) == 1


@pytest.mark.parametrize("operation", [workers.push, workers.push_pull])
def test_ctrl_c_ends_a_push_that_waits(operation, small):
    before, versions = small.pull(), small.versions
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with holder_of(small) as holder:
            timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                operation(small, np.ones(10), 50.0)
            timer.join()
            holder.let_go()
        assert small.versions == versions
        small.push(np.ones(10))
        assert increased(before, small.pull()) == 1
    finally:
        signal.signal(signal.SIGINT, previous)


def test_more_processes_than_sessions_raise_sessions_exhausted_error_and_change_nothing():
    with fastps.ParameterServer(np.zeros(10), num_shards=2, max_sessions=1) as ps:
        ps.push(np.ones(10))
        worker = workers.Worker.remote(ps)
        for function, *args in [(workers.push, np.ones(10)), (workers.pull,)]:
            error, text, _, _ = ray.get(worker.error_of.remote(function, *args))
            assert error is fastps.SessionsExhaustedError
            assert "max_sessions" in text
        ps.push(np.ones(10))
        assert ps.pull().tolist() == [2] * 10
        ray.kill(worker)


def test_a_session_of_a_process_that_ended_can_be_taken_by_another():
    with fastps.ParameterServer(np.zeros(10), max_sessions=1) as ps:
        for count in range(1, 4):
            worker = workers.Worker.remote(ps)
            pid = ray.get(worker.pid.remote())
            ray.get(worker.push.remote(np.ones(10)))
            assert ps.versions == (count,)
            os.kill(pid, signal.SIGKILL)
            while os.path.exists(f"/proc/{pid}"):
                pass
        assert ps.pull().tolist() == [3] * 10


def test_a_push_pull_that_resumes_answers_all_of_the_parameters(array_of_three):
    ps, before, versions = array_of_three, array_of_three.pull(), array_of_three.versions
    with holder_of(ps, 2, 0) as holder:
        with pytest.raises(fastps.WaitTimeoutError) as caught:
            ps.push_pull(np.ones(N), timeout=0.2)
        holder.let_go()
    out = np.full(N, -1.0)
    assert ps.push_pull(np.ones(N), out=out, resume=caught.value.resume) is out
    assert increased(before, out) == 1
    assert ps.versions == tuple(version + 1 for version in versions)


def test_gradients_that_are_replaced_in_their_dict_during_a_push_stay_alive_until_it_ends(mapping_of_three):
    grads = {name: array.copy() for name, array in MAPPING.items()}
    ps, before = mapping_of_three, mapping_of_three.pull()
    with holder_of(ps, 0, 0) as holder:
        pushing = threading.Thread(target=ps.push, args=(grads,))
        pushing.start()
        time.sleep(0.2)  # it waits for the holder now
        assert pushing.is_alive()
        for name, array in list(grads.items()):
            grads[name] = np.full_like(array, 1000.0)
        other = [np.full(N - 5, 77.0) for _ in range(8)]  # would take the memory of what was let go
        holder.let_go()
        pushing.join(GUARD_SECONDS)
    assert not pushing.is_alive()
    assert len(other) == 8
    assert increased(before, ps.pull()) == 1

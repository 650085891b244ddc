"""Asynchronous operations: futures, their order, their errors."""

import asyncio
import os
import pickle

import numpy as np
import pytest

import fastps
from tests.support.waiting import GUARD_SECONDS


@pytest.fixture(scope="module")
def server(ray_local):
    with fastps.ParameterServer(np.zeros(1000), num_shards=2) as server:
        yield server


@pytest.fixture
def ps(server):
    """A handle of its own, and so a queue, on a server that all tests share."""
    with pickle.loads(pickle.dumps(server)) as ps:
        yield ps


def test_asynchronous_operations_happen_in_order(ps):
    first, pulls = ps.pull()[7], []
    for _ in range(20):
        ps.push_async(np.ones(1000))
        pulls.append(ps.pull_async())
    assert [float(pull.result(GUARD_SECONDS)[7]) for pull in pulls] == [first + n for n in range(1, 21)]
    assert all(pull.done() for pull in pulls)


def test_flush_waits_for_all_of_them(ps):
    before = ps.pull()
    for _ in range(50):
        ps.push_async(np.ones(1000))
    ps.flush(timeout=GUARD_SECONDS)
    assert np.array_equal(ps.pull(), before + 50)


def test_a_future_can_be_awaited_and_pulls_into_out(ps):
    before, out = ps.pull(), np.empty(1000)

    async def train():
        await ps.push_async(np.ones(1000))
        return await ps.pull_async(out=out)

    assert asyncio.run(train()) is out
    assert np.array_equal(out, before + 1)


def test_an_error_comes_out_of_the_future_and_changes_nothing(ps):
    before, versions = ps.pull(), ps.versions
    future = ps.push_async(np.ones(999))
    with pytest.raises(fastps.ShapeError):
        future.result(GUARD_SECONDS)
    assert future.done()
    assert ps.versions == versions
    assert np.array_equal(ps.pull(), before)


def test_flush_raises_what_an_operation_under_way_raised(ps):
    import concurrent.futures

    gate, before = concurrent.futures.Future(), ps.pull()
    ps.push_async(gate)
    ps.push_async(np.ones(3))
    with pytest.raises(fastps.WaitTimeoutError):
        ps.flush(timeout=0.05)
    gate.set_result(np.ones(1000))
    with pytest.raises(fastps.ShapeError):
        ps.flush(timeout=GUARD_SECONDS)
    assert np.array_equal(ps.pull(), before + 1)


def test_a_pushed_future_is_waited_for(ps):
    before, versions = ps.pull(), ps.versions
    ps.push(ps.pull_async())
    assert np.array_equal(ps.pull(), 2 * before)
    assert ps.versions == tuple(version + 1 for version in versions)


def test_a_forked_child_has_a_queue_of_its_own(ps):
    before = ps.pull()
    ps.push_async(np.ones(1000)).result(GUARD_SECONDS)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            ps.push_async(np.ones(1000)).result(GUARD_SECONDS)
            ps.flush(timeout=GUARD_SECONDS)
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    ps.push_async(np.ones(1000)).result(GUARD_SECONDS)
    assert np.array_equal(ps.pull(), before + 3)


def test_a_push_pull_is_started_like_a_pull_and_a_push(ps):
    before, out = ps.pull(), np.empty(1000)
    future = ps.push_pull_async(np.ones(1000), out=out, timeout=GUARD_SECONDS)
    assert future.result(GUARD_SECONDS) is out
    assert np.array_equal(out, before + 1)
    names = [repr(start) for start in (ps.pull_async(), ps.push_async(out), ps.push_pull_async(out))]
    assert [name.split()[2] for name in names] == ["pull_async", "push_async", "push_pull_async"]
    ps.flush(timeout=GUARD_SECONDS)


def test_of_pushes_that_wait_for_cancels_those_count_that_had_begun(ps):
    import concurrent.futures

    gate, before, versions = concurrent.futures.Future(), ps.pull(), ps.versions

    async def main():
        pushes = [ps.push_async(gate), *(ps.push_async(np.ones(1000)) for _ in range(3))]
        errors = await asyncio.gather(*(asyncio.wait_for(push, 0.1) for push in pushes), return_exceptions=True)
        gate.set_result(np.ones(1000))
        await asyncio.to_thread(ps.flush, timeout=GUARD_SECONDS)
        return pushes, errors

    pushes, errors = asyncio.run(main())
    assert [type(error) for error in errors] == [TimeoutError] * 4
    counted = [push for push in pushes if not push.cancelled()]
    assert counted == pushes[:1]
    assert np.array_equal(ps.pull(), before + len(counted))
    assert ps.versions == tuple(version + len(counted) for version in versions)


def test_a_cancelled_future_as_gradient_is_a_parameter_error_and_flush_raises_no_bare_cancellation(ps):
    import concurrent.futures

    given, versions = concurrent.futures.Future(), ps.versions
    given.cancel()
    with pytest.raises(fastps.ParameterError, match="cancelled"):
        ps.push(given)
    ps.push_async(given)
    with pytest.raises(fastps.ParameterError, match="cancelled"):
        ps.flush(timeout=GUARD_SECONDS)
    assert ps.versions == versions


def test_a_future_as_gradient_that_timed_out_itself_raises_its_own_error(ps):
    import concurrent.futures

    given, versions = concurrent.futures.Future(), ps.versions
    given.set_exception(fastps.WaitTimeoutError("the operation before", applied=(1,)))
    with pytest.raises(fastps.WaitTimeoutError, match="the operation before") as caught:
        ps.push(given)
    assert caught.value.applied == (1,)
    assert ps.versions == versions

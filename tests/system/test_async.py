"""Asynchronous operations: futures, their order, their errors."""

import asyncio
import os

import numpy as np
import pytest

import fastps


@pytest.fixture
def ps(ray_local):
    with fastps.ParameterServer(np.zeros(1000), num_shards=2) as ps:
        yield ps


def test_asynchronous_operations_happen_in_order(ps):
    pulls = []
    for _ in range(20):
        ps.push_async(np.ones(1000))
        pulls.append(ps.pull_async())
    assert [float(pull.result(30)[7]) for pull in pulls] == list(range(1, 21))
    assert all(pull.done() for pull in pulls)


def test_flush_waits_for_all_of_them(ps):
    for _ in range(50):
        ps.push_async(np.ones(1000))
    ps.flush(timeout=30)
    assert (ps.pull() == 50).all()


def test_a_future_can_be_awaited_and_pulls_into_out(ps):
    out = np.empty(1000)

    async def train():
        await ps.push_async(np.ones(1000))
        return await ps.pull_async(out=out)

    assert asyncio.run(train()) is out
    assert (out == 1).all()


def test_an_error_comes_out_of_the_future_and_changes_nothing(ps):
    future = ps.push_async(np.ones(999))
    with pytest.raises(fastps.ShapeError):
        future.result(30)
    assert future.done()
    assert ps.versions == (0, 0)


def test_flush_raises_what_an_operation_under_way_raised(ps):
    import concurrent.futures

    gate = concurrent.futures.Future()
    ps.push_async(gate)
    ps.push_async(np.ones(3))
    with pytest.raises(fastps.WaitTimeoutError):
        ps.flush(timeout=0.05)
    gate.set_result(np.ones(1000))
    with pytest.raises(fastps.ShapeError):
        ps.flush(timeout=30)
    assert (ps.pull() == 1).all()


def test_a_pushed_future_is_waited_for(ps):
    ps.push(ps.pull_async())
    assert ps.versions == (1, 1)


def test_a_forked_child_has_a_queue_of_its_own(ps):
    ps.push_async(np.ones(1000)).result(30)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            ps.push_async(np.ones(1000)).result(30)
            ps.flush(timeout=30)
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    ps.push_async(np.ones(1000)).result(30)
    assert (ps.pull() == 3).all()

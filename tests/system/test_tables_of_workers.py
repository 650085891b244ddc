"""Asynchronous operations of tables, and what a worker's session has by name."""

import asyncio

import numpy as np
import pytest

import fastps

pytestmark = pytest.mark.usefixtures("ray_local")


@pytest.fixture
def ps():
    params = {"w": np.zeros(3, np.float32), "t": fastps.Table(2, rule=fastps.SGD(-1.0), init=fastps.init.Constant(0.5))}
    with fastps.ParameterServer(params, num_shards=2) as server:
        yield server


ONES = np.ones((3, 2), np.float32)


def test_table_operations_happen_in_the_order_in_which_they_were_started(ps):
    keys, out = np.arange(3), np.empty((3, 2), np.float32)
    before = ps["t"].pull_async(keys)
    pushed = ps["t"].push_async(keys, ONES)
    both = ps["t"].push_pull_async(keys, ONES, out=out)
    after = ps["t"].pull_async(keys)
    assert (before.result() == 0.5).all()
    assert pushed.result() is None
    assert both.result() is out
    assert (out == 2.5).all()
    assert (after.result() == 2.5).all()


def test_flush_waits_for_operations_of_tables_and_arrays_and_raises_what_failed(ps):
    ps["t"].push_async([1], ONES[:1])
    ps.push_async({"w": np.ones(3, np.float32)})
    ps.flush()
    assert ps["t"].pull([1]).tolist() == [[1.5, 1.5]]
    ps["t"].push_async([1], np.ones((1, 3), np.float32))
    with pytest.raises(fastps.ShapeError, match="a row for each key"):
        ps.flush()
    assert ps["t"].pull([1]).tolist() == [[1.5, 1.5]]


def test_a_peek_of_a_table_can_be_awaited(ps):
    async def main():
        return await ps["t"].peek_async([7])

    assert asyncio.run(main()).tolist() == [[0.5, 0.5]]
    assert len(ps["t"]) == 0


def test_a_worker_has_tables_and_arrays_by_name_until_it_leaves(ps):
    with ps.worker() as w:
        w["t"].push([5], ONES[:1])
        assert w["t"].pull([5]).tolist() == [[1.5, 1.5]]
        assert w.clock == 0  # a push to a table ends no step
        w.push({"w": np.ones(3, np.float32)})
        assert w["w"].pull().tolist() == [1, 1, 1]
        assert w.clock == 1
        with pytest.raises(fastps.NamesError, match="'t'"):
            w["users"]
    with pytest.raises(fastps.ClosedError, match="it has left"):
        w["t"]

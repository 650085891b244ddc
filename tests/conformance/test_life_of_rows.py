"""Admission, time to live, eviction: for workers on the shards' node and on another one."""

import time

import numpy as np
import pyarrow as pa
import pytest
import ray

import fastps
from tests.support.extent import short_or_long
from tests.support.waiting import wait_until

ONES = np.ones((1, 2), np.float32)


@pytest.fixture(params=short_or_long(["both"], ["shards here", "shards elsewhere", "both"]))
def there(request, cluster3):
    """Options for where two shards are; the test itself is on node 0."""
    nodes = {"shards here": [0, 0], "shards elsewhere": [1, 1], "both": [0, 1]}[request.param]
    return {"placement": [cluster3.ids[i] for i in nodes], "num_shards": 2}


@pytest.fixture
def here(cluster3):
    return {"placement": [cluster3.ids[0]]}


def told(directory):
    """A callback that writes down what it gets: it runs in the process of the shard."""

    def on_evict(keys, rows, slots):
        np.savez(directory / f"{time.monotonic_ns()}.npz", keys=keys, rows=rows, **slots)

    return on_evict


def heard(directory):
    return [np.load(path) for path in sorted(directory.glob("*.npz"))]


def test_lru_evicts_those_not_asked_for_and_hands_them_over_with_their_slots(tmp_path, here):
    table = fastps.Table(2, capacity=160, evict="lru", on_evict=told(tmp_path), rule=fastps.Adagrad(lr=0.5))
    with fastps.ParameterServer(table, **here) as ps:
        ps.table.push(np.arange(160), np.ones((160, 2), np.float32))
        time.sleep(0.2)  # rows count time in sixteenths of a second
        ps.table.pull(np.arange(40, 160))
        ps.table.pull([1000])
        (gone,) = heard(tmp_path)
        assert len(gone["keys"]) == 10
        assert gone["keys"].max() < 40
        assert np.array_equal(gone["rows"], ps.table.initial(gone["keys"]) - np.float32(0.5))
        assert (gone["sum"] == 1).all()
        assert ps.table.contains(np.arange(40, 160)).all()
        assert 1000 in ps.table
        assert not ps.table.contains(gone["keys"]).any()
        again = gone["keys"][:1]
        assert np.array_equal(ps.table.pull(again), ps.table.initial(again))  # begins anew


def test_lfu_evicts_the_rarest_into_an_arrow_stream(tmp_path, here):
    tables = {"a": {"b": fastps.Table(2, capacity=160, evict="lfu", on_evict=tmp_path)}}
    with fastps.ParameterServer(tables, **here) as ps:
        table = ps["a/b"]
        table.pull(np.arange(160))
        table.pull(np.repeat(np.arange(50, 160), 3))
        table.push(np.arange(1000, 1020), np.ones((20, 2), np.float32))
        (path,) = tmp_path.glob("a%2Fb-0-*.arrows")
        rows = pa.ipc.open_stream(path).read_all()
        assert rows.num_rows == 20
        assert max(rows["key"].to_pylist()) < 50
        assert len(table) == 160


def test_rows_of_the_batch_that_needs_room_stay(here):
    with fastps.ParameterServer(fastps.Table(1, capacity=32, evict="lru", rule=fastps.Add(), init=0.0), **here) as ps:
        ps.table.push(np.arange(32), np.ones((32, 1), np.float32))
        time.sleep(0.2)
        ps.table.push(np.arange(8, 40), np.ones((32, 1), np.float32))
        assert ps.table.pull(np.arange(8, 40))[:, 0].tolist() == [2.0] * 24 + [1.0] * 8


def test_more_keys_at_once_than_there_may_be_rows_are_refused(here):
    with fastps.ParameterServer(fastps.Table(2, capacity=10, evict="lru"), **here) as ps:
        ps.table.pull([1, 2, 3])
        with pytest.raises(fastps.TableFullError, match="3 rows of 10"):
            ps.table.push(np.arange(100, 111), np.ones((11, 2), np.float32))
        assert len(ps.table) == 3


def test_a_callback_that_raises_stops_nobody(here):
    def fails(keys, rows, slots):
        raise RuntimeError("no")

    with fastps.ParameterServer(fastps.Table(2, capacity=8, evict="lru", on_evict=fails), **here) as ps:
        for key in range(50):
            ps.table.push([key], ONES)
        assert 49 in ps.table
        assert len(ps.table) <= 8


def test_workers_that_fill_a_table_at_once_lose_no_push_of_a_row_that_stays(there):
    @ray.remote
    def work(ps, first):
        for key in range(first, first + 400, 2):
            ps.table.push([0, 1000 + key], np.ones((2, 1), np.float32))

    table = fastps.Table(1, capacity=80, evict="lfu", rule=fastps.Add(), init=0.0)
    with fastps.ParameterServer(table, **there) as ps:
        ps.table.pull([0])
        ray.get([work.remote(ps, first) for first in (0, 1)])
        assert ps.table.pull([0])[0, 0] == 400
        assert len(ps.table) <= sum(shard.capacity for shard in ps.table.stats())


def test_rows_that_nobody_asks_for_expire_and_others_do_not(tmp_path, there):
    with fastps.ParameterServer(fastps.Table(2, ttl=3.0, on_evict=told(tmp_path)), **there) as ps:
        ps.table.pull(np.arange(20))

        def only_two_are_left():
            ps.table.pull([3])
            ps.table.push([4], ONES)
            return len(ps.table) == 2

        wait_until(only_two_are_left, 30, "rows expire")
        assert ps.table.contains([3, 4]).all()
        gone = np.concatenate([some["keys"] for some in heard(tmp_path)])
        assert sorted(gone.tolist()) == [key for key in range(20) if key not in (3, 4)]
        wait_until(lambda: len(ps.table) == 0, 30, "the last rows expire")


def test_a_read_that_creates_no_row_keeps_nothing_alive(there):
    with fastps.ParameterServer(fastps.Table(2, track=True), **there) as ps:
        ps.table.pull([1])
        ps.table.pull([1], create=False)
        ps.table.push([1], ONES)
        ages, counts = ps.table.activity([1, 2])
        assert counts.tolist() == [2, 0]
        assert 0 <= ages[0] < 60
        assert np.isnan(ages[1])


def test_activity_of_a_table_that_keeps_no_account_is_refused(here):
    with fastps.ParameterServer(fastps.Table(2), **here) as ps, pytest.raises(fastps.OptionError, match="track=True"):
        ps.table.activity([1])


def test_a_row_is_born_at_its_nth_pull(there):
    table = fastps.Table(2, admit=3, init=1.0, rule=fastps.SGD(1.0))
    with fastps.ParameterServer({"t": table, "w": np.zeros(3)}, **there) as ps:
        table = ps["t"]
        assert (table.pull([7, 8]) == 1).all()
        table.push([7], ONES)  # dropped
        assert (table.pull([7]) == 1).all()
        assert len(table) == 0
        assert (table.pull([7, 9]) == 1).all()  # the third time
        assert table.contains([7, 8, 9]).tolist() == [True, False, False]
        table.push([7, 8], np.ones((2, 2), np.float32))
        assert table.pull([7, 8]).tolist() == [[0, 0], [1, 1]]
        assert (table.pull([10, 10, 10], create=False) == 1).all()  # no sighting
        assert table.push_pull([7, 10], np.ones((2, 2), np.float32)).tolist() == [[-1, -1], [1, 1]]
        assert table.pull([11, 11, 11]).tolist() == [[1, 1]] * 3  # each place is one
        assert len(table) == 2
        assert list(ps.hyper) == ["*", "t"]
        with pytest.raises(fastps.NamesError):
            ps["t/(sightings)"]
        table.evict([7])
        table.pull([7])
        assert 7 not in table  # sightings begin anew, too


def test_evictions_in_the_middle_of_pushes_apply_nothing_twice(tmp_path, here):
    """A push whose rows another one's eviction takes away, when it has begun, goes on where it stopped."""

    @ray.remote
    def work(ps, seed):
        rng, pushed = np.random.default_rng(seed), 0
        for _ in range(300):
            keys = rng.choice(1000, 150, replace=False)
            ps.table.push(keys, np.ones((150, 1), np.float32))
            pushed += 150
        return pushed

    table = fastps.Table(1, capacity=320, evict="lru", rule=fastps.Add(), init=0.0, on_evict=told(tmp_path))
    with fastps.ParameterServer(table, **here) as ps:
        pushed = sum(ray.get([work.remote(ps, seed) for seed in (1, 2)]))
        stayed = sum(float(rows.sum()) for _, rows in ps.table.items())
        assert stayed + sum(float(some["rows"].sum()) for some in heard(tmp_path)) == pushed

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


@pytest.fixture(scope="module", params=short_or_long(["both"], ["shards here", "shards elsewhere", "both"]))
def where(request, cluster3):
    """Options for where two shards are; the test itself is on node 0."""
    nodes = {"shards here": [0, 0], "shards elsewhere": [1, 1], "both": [0, 1]}[request.param]
    return {"placement": [cluster3.ids[i] for i in nodes], "num_shards": 2}


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    """By table, where its callback writes what it gets, or where its stream is."""
    found = {}

    def directory(name):
        if name not in found:
            found[name] = tmp_path_factory.mktemp(name)
        return found[name]

    return directory


@pytest.fixture(scope="module")
def here(cluster3, directories):
    """A server with one shard, next to the test, that has a table for each test."""
    tables = {
        "lru": fastps.Table(
            2, capacity=160, evict="lru", on_evict=told(directories("lru")), rule=fastps.Adagrad(lr=0.5)
        ),
        "lfu": {"a": fastps.Table(2, capacity=160, evict="lfu", on_evict=directories("lfu"))},
        "batch": fastps.Table(1, capacity=32, evict="lru", rule=fastps.Add(), init=0.0),
        "small": fastps.Table(2, capacity=10, evict="lru"),
        "fails": fastps.Table(2, capacity=8, evict="lru", on_evict=fails),
        "untracked": fastps.Table(2),
        "busy": fastps.Table(
            1, capacity=320, evict="lru", rule=fastps.Add(), init=0.0, on_evict=told(directories("busy"))
        ),
    }
    with fastps.ParameterServer(tables, placement=[cluster3.ids[0]]) as ps:
        yield ps


@pytest.fixture(scope="module")
def expired(where, tmp_path_factory):
    """The directory of the rows that have expired on the server `there`."""
    return tmp_path_factory.mktemp("expired")


@pytest.fixture(scope="module")
def there(where, expired):
    """Another one, with two shards."""
    tables = {
        "filled": fastps.Table(1, capacity=80, evict="lfu", rule=fastps.Add(), init=0.0),
        "expiring": fastps.Table(2, ttl=3.0, on_evict=told(expired)),
        "tracked": fastps.Table(2, track=True),
        "admitting": fastps.Table(2, admit=3, init=1.0, rule=fastps.SGD(1.0)),
    }
    with fastps.ParameterServer(tables, **where) as ps:
        yield ps


def fails(keys, rows, slots):
    raise RuntimeError("no")


def told(directory):
    """A callback that writes down what it gets: it runs in the process of the shard."""

    def on_evict(keys, rows, slots):
        np.savez(directory / f"{time.monotonic_ns()}.npz", keys=keys, rows=rows, **slots)

    return on_evict


def heard(directory):
    return [np.load(path) for path in sorted(directory.glob("*.npz"))]


def test_lru_evicts_those_not_asked_for_and_hands_them_over_with_their_slots(here, directories):
    table = here["lru"]
    table.push(np.arange(160), np.ones((160, 2), np.float32))
    time.sleep(0.2)  # rows count time in sixteenths of a second
    table.pull(np.arange(40, 160))
    table.pull([1000])
    (gone,) = heard(directories("lru"))
    assert len(gone["keys"]) == 10
    assert gone["keys"].max() < 40
    assert np.array_equal(gone["rows"], table.initial(gone["keys"]) - np.float32(0.5))
    assert (gone["sum"] == 1).all()
    assert table.contains(np.arange(40, 160)).all()
    assert 1000 in table
    assert not table.contains(gone["keys"]).any()
    again = gone["keys"][:1]
    assert np.array_equal(table.pull(again), table.initial(again))  # begins anew


def test_lfu_evicts_the_rarest_into_an_arrow_stream(here, directories):
    table = here["lfu/a"]
    table.pull(np.arange(160))
    table.pull(np.repeat(np.arange(50, 160), 3))
    table.push(np.arange(1000, 1020), np.ones((20, 2), np.float32))
    (path,) = directories("lfu").glob("lfu%2Fa-0-*.arrows")
    rows = pa.ipc.open_stream(path).read_all()
    assert rows.num_rows == 20
    assert max(rows["key"].to_pylist()) < 50
    assert len(table) == 160


def test_rows_of_the_batch_that_needs_room_stay(here):
    table = here["batch"]
    table.push(np.arange(32), np.ones((32, 1), np.float32))
    time.sleep(0.2)
    table.push(np.arange(8, 40), np.ones((32, 1), np.float32))
    assert table.pull(np.arange(8, 40))[:, 0].tolist() == [2.0] * 24 + [1.0] * 8


def test_more_keys_at_once_than_there_may_be_rows_are_refused(here):
    table = here["small"]
    table.pull([1, 2, 3])
    with pytest.raises(fastps.TableFullError, match="3 rows of 10"):
        table.push(np.arange(100, 111), np.ones((11, 2), np.float32))
    assert len(table) == 3


def test_a_callback_that_raises_stops_nobody(here):
    table = here["fails"]
    for key in range(50):
        table.push([key], ONES)
    assert 49 in table
    assert len(table) <= 8


def test_workers_that_fill_a_table_at_once_lose_no_push_of_a_row_that_stays(there):
    @ray.remote
    def work(ps, first):
        for key in range(first, first + 400, 2):
            ps["filled"].push([0, 1000 + key], np.ones((2, 1), np.float32))

    table = there["filled"]
    table.pull([0])
    ray.get([work.remote(there, first) for first in (0, 1)])
    assert table.pull([0])[0, 0] == 400
    assert len(table) <= sum(shard.capacity for shard in table.stats())


def test_rows_that_nobody_asks_for_expire_and_others_do_not(there, expired):
    table = there["expiring"]
    table.pull(np.arange(20))

    def only_two_are_left():
        table.pull([3])
        table.push([4], ONES)
        return len(table) == 2

    wait_until(only_two_are_left, 30, "rows expire")
    assert table.contains([3, 4]).all()
    gone = np.concatenate([some["keys"] for some in heard(expired)])
    assert sorted(gone.tolist()) == [key for key in range(20) if key not in (3, 4)]
    wait_until(lambda: len(table) == 0, 30, "the last rows expire")


def test_a_read_that_creates_no_row_keeps_nothing_alive(there):
    table = there["tracked"]
    table.pull([1])
    table.peek([1])
    table.peek_async([1, 2]).result(60)
    table.push([1], ONES)
    ages, counts = table.activity([1, 2])
    assert counts.tolist() == [2, 0]
    assert 0 <= ages[0] < 60
    assert np.isnan(ages[1])


def test_activity_of_a_table_that_keeps_no_account_is_refused(here):
    with pytest.raises(fastps.OptionError, match="track=True"):
        here["untracked"].activity([1])


def test_a_row_is_born_at_its_nth_pull(there):
    table = there["admitting"]
    assert (table.pull([7, 8]) == 1).all()
    table.push([7], ONES)  # dropped
    assert (table.pull([7]) == 1).all()
    assert len(table) == 0
    assert (table.pull([7, 9]) == 1).all()  # the third time
    assert table.contains([7, 8, 9]).tolist() == [True, False, False]
    table.push([7, 8], np.ones((2, 2), np.float32))
    assert table.pull([7, 8]).tolist() == [[0, 0], [1, 1]]
    assert (table.peek([10, 10, 10]) == 1).all()  # no sighting
    assert table.push_pull([7, 10], np.ones((2, 2), np.float32)).tolist() == [[-1, -1], [1, 1]]
    assert table.pull([11, 11, 11]).tolist() == [[1, 1]] * 3  # each place is one
    assert len(table) == 2
    table.evict([7])
    table.pull([7])
    assert 7 not in table  # sightings begin anew, too


def test_the_table_of_sightings_has_no_name(cluster3):
    params = {"t": fastps.Table(2, admit=3, init=1.0, rule=fastps.SGD(1.0)), "w": np.zeros(3)}
    with fastps.ParameterServer(params, placement=[cluster3.ids[0]]) as ps:
        assert list(ps.hyper) == ["*", "t"]
        with pytest.raises(fastps.NamesError):
            ps["t/(sightings)"]


def test_evictions_in_the_middle_of_pushes_apply_nothing_twice(here, directories):
    """A push whose rows another one's eviction takes away, when it has begun, goes on where it stopped."""

    @ray.remote
    def work(ps, seed):
        rng, pushed = np.random.default_rng(seed), 0
        for _ in range(300):
            keys = rng.choice(1000, 150, replace=False)
            ps["busy"].push(keys, np.ones((150, 1), np.float32))
            pushed += 150
        return pushed

    pushed = sum(ray.get([work.remote(here, seed) for seed in (1, 2)]))
    stayed = sum(float(rows.sum()) for _, rows in here["busy"].items())
    assert stayed + sum(float(some["rows"].sum()) for some in heard(directories("busy"))) == pushed

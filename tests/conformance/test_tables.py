"""What a table promises, once for every way from a worker to its shards, against a dict of rows.

The driver is on node 0; a reach is where the shards are and where the worker is. Each reach has one server with a
table, or a few, for each test.
"""

from __future__ import annotations

import gc
import math
import os
import pickle
import signal
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

import fastps
from fastps._core import hash_of, shards_of
from fastps.init import Array, Normal, Uniform
from fastps.spec.table import capacity_of_shard
from tests.support import row_workers, workers
from tests.support.leftovers import own_arenas
from tests.support.naive_table import NaiveTable
from tests.support.row_rules import drifting
from tests.support.run import SEED
from tests.support.table_worker import Workers
from tests.support.waiting import wait_until

# Nodes of the shards, the worker's node, and how many shards.
REACHES = {
    "shm, 1 shard": ((1,), 1, 1),
    "shm, 3 shards": ((1,), 1, 3),
    "ray, 2 shards": ((1,), 2, 2),
    "mixed, 5 shards": ((0, 1, 2), 1, 5),
}
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
GIVEN_KEYS = [10, -3, 7]
GIVEN_ROWS = np.arange(12.0).reshape(3, 4)


def by_rule(dim=5):
    """A table for each kind of rule."""
    wide = {"dtype": "float64", "seed": 4}
    return {
        "add": fastps.Table(dim, rule=fastps.Add(), init=Uniform(-1, 1)),
        "sgd": fastps.Table(dim, rule=fastps.SGD(0.5, weight_decay=0.25), init=Normal(1.0, 0.5), seed=3),
        "sgd64": fastps.Table(dim, rule=fastps.SGD(0.1, weight_decay=0.01), **wide),
        "adagrad": fastps.Table(dim, rule=fastps.Adagrad(0.1, initial_accumulator_value=0.5)),
        "adam": fastps.Table(dim, rule=fastps.Adam(0.01)),
        "adam64": fastps.Table(dim, rule=fastps.Adam(0.01), **wide),
        "ftrl": fastps.Table(dim, rule=fastps.FTRL(0.5, l1=0.05)),
        "row": fastps.Table(dim, rule=fastps.RowAdagrad(0.1)),
        "own": fastps.Table(dim, rule=drifting(0.5)),
    }


RULES = by_rule(11)  # more than a vector, and not a multiple of one
EXACT = ("add", "sgd", "sgd64")  # of additions and multiplications alone
BITS = {name: by_rule()[name] for name in ("sgd", "sgd64", "ftrl", "adam", "adam64", "row", "own")}
MOVED = {name: by_rule()[name] for name in ("add", "adam64", "row", "own")}


def adding(dim=3, **options):
    return fastps.Table(dim, **{"rule": fastps.Add(), "init": 0.0, **options})


def served():
    """The parameters of the server of a reach."""
    return {
        "rules": RULES,
        "bits": BITS,
        "order": fastps.Table(3),
        "missing": fastps.Table(3, init=Normal(5.0, 1.0)),
        "set": fastps.Table(4, rule=fastps.RowAdagrad(0.5, initial_accumulator_value=1.0), init=2.0),
        "again": fastps.Table(3, rule=fastps.Adagrad(0.5), init=Uniform(0, 1)),
        "empty": fastps.Table(3, rule=fastps.Adam()),
        "many": adding(8, init=1.0),
        "created": fastps.Table(6, seed=77),
        "created64": fastps.Table(6, seed=77, dtype="float64", init=Normal(0, 2)),
        "moved": MOVED,
        "words": adding(2, keys="bytes"),
        "unsigned": adding(2, keys="uint64"),
        "alike": adding(2, keys="uint64", capacity=3),
        "given": fastps.Table(4, init=Array(GIVEN_ROWS, GIVEN_KEYS, Normal(9.0, 0.1)), rule=fastps.SGD(0.5)),
        "numbered": fastps.Table(4, init=GIVEN_ROWS, dtype="float64", rule=fastps.SGD(0.5)),
        "wrong": fastps.Table(4, rule=fastps.Adagrad()),
        "near": adding(4),
        "full": adding(4, init=7.0, capacity=20),
        "pulled": adding(4, capacity=20),
        "hyper": fastps.Table(2, rule=fastps.SGD(0.5), init=0.0),
        "counted": adding(),
        "seen": adding(),
        "threads": adding(16),
        "calls": adding(),
        "twice": adding(),
        "wide": adding(65536, dtype="float64"),
        "beside": {"table": adding(), "bias": np.zeros(7)},
        "weights": np.ones((3, 5), np.float32),
    }


class Reach:
    """A worker on its node, and a server with shards where the reach wants them."""

    def __init__(self, cluster, shard_nodes, worker_node, num_shards):
        nodes = [cluster.ids[shard_nodes[i % len(shard_nodes)]] for i in range(num_shards)]
        self.params, self.num_shards = served(), num_shards
        self.ps = fastps.ParameterServer(self.params, num_shards=num_shards, placement=nodes)
        self.worker = workers.Worker.options(resources={f"node{worker_node}": 0.001}).remote(self.ps)
        self.remote_nodes = len({*shard_nodes} - {worker_node})
        self.node_of = [shard_nodes[i % len(shard_nodes)] for i in range(num_shards)]

    def do(self, function, *args):
        return ray.get(self.worker.do.remote(function, *args))

    def table(self, name):
        return FarTable(self, name)

    def naive(self, name):
        """An oracle that begins as the table does, for keys that it has not seen."""
        table = self.params
        for part in name.split("/"):
            table = table[part]
        handle = self.ps[name]
        version = self.table(name).stats()[0].version
        return NaiveTable(table.rule, table.dim, table.dtype, lambda key: handle.initial([key])[0], version)

    def shards(self, keys):
        return shards_of(np.asarray(keys).astype(np.int64).view(np.uint64), self.num_shards)


class FarTable:
    """A table as the worker has it: what is called here happens there, and its errors come back."""

    def __init__(self, reach, name):
        self._reach, self._name = reach, name

    def __getattr__(self, verb):
        return lambda *args, **named: self._ask(verb, args, named)

    def _ask(self, verb, args, named):
        error, answer = self._reach.do(row_workers.ask, self._name, verb, args, named)
        if error is not None:
            raise error
        return answer

    def __len__(self):
        return self._ask("__len__", (), {})

    def __contains__(self, key):
        return self._ask("__contains__", (key,), {})

    @property
    def hyper(self):
        return self._ask("hyper", (), {})


@pytest.fixture(scope="module", params=REACHES)
def reach(request, cluster3):
    reach = Reach(cluster3, *REACHES[request.param])
    yield reach
    ray.kill(reach.worker)
    reach.ps.close()


@pytest.fixture(scope="module")
def elsewhere(cluster3):
    """Another server, of two shards next to the driver."""
    params = {"moved": MOVED, "words": adding(2, keys="bytes"), "unsigned": adding(2, keys="uint64")}
    with fastps.ParameterServer(params, num_shards=2, placement=[cluster3.ids[0]] * 2) as ps:
        yield ps


def integers(rng, *shape, dtype="float32"):
    """Numbers whose sums are exact in any order."""
    return rng.integers(-8, 9, shape).astype(dtype)


def everything(table):
    """All rows: (keys in order, rows, slots by name)."""
    parts = list(table.items(slots=True))
    keys = np.concatenate([keys for keys, _, _ in parts])
    order = np.argsort(keys)
    slots = {name: np.concatenate([slots[name] for _, _, slots in parts])[order] for name in parts[0][2]}
    return keys[order], np.concatenate([rows for _, rows, _ in parts])[order], slots


def assert_same(a, b):
    assert a[0].dtype == b[0].dtype
    assert np.array_equal(a[0], b[0])
    assert (a[1].dtype, a[1].tobytes()) == (b[1].dtype, b[1].tobytes())
    assert a[2].keys() == b[2].keys()
    assert all(np.array_equal(a[2][name], b[2][name]) for name in a[2])


# Rows by key


def test_a_pull_answers_the_row_of_each_key_in_the_order_of_keys_however_often_one_comes(reach, rng):
    table = reach.table("order")
    keys = rng.choice(10_000, 300, replace=False) - 5000
    rows = rng.normal(size=(300, 3)).astype(np.float32)
    table.set(keys, rows)
    places = rng.integers(0, 300, 2000)
    found = table.pull(keys[places])
    assert (found.dtype, found.shape) == (np.float32, (2000, 3))
    assert np.array_equal(found, rows[places])
    for kind in (list, tuple, pa.array):
        assert np.array_equal(table.pull(kind(keys[::-1].tolist())), rows[::-1])
    assert table.pull([int(keys[5])] * 4).tolist() == [rows[5].tolist()] * 4
    assert len(table) == 300
    assert keys[7] in table
    assert 9999 not in table


def test_keys_at_the_ends_of_their_range_have_rows_of_their_own(reach):
    table, ends = reach.table("order"), [-(2**63), 2**63 - 1, -1, 0, 1]
    rows = np.arange(15, dtype=np.float32).reshape(5, 3)
    table.set(ends, rows)
    assert np.array_equal(table.pull(ends), rows)
    assert {*ends} <= {int(key) for keys in table.keys() for key in keys}  # noqa: SIM118  # a method, not a dict
    assert table.evict(ends) == 5
    unsigned, ends = reach.table("unsigned"), [2**64 - 1, 2**63, 2**63 - 1]
    unsigned.set(ends, np.arange(6, dtype=np.float32).reshape(3, 2))
    assert unsigned.pull(ends)[:, 0].tolist() == [0, 2, 4]
    assert 2**64 - 1 in unsigned
    assert {*ends} <= {int(key) for keys in unsigned.keys() for key in keys}  # noqa: SIM118


@pytest.mark.parametrize("name", RULES)
def test_a_push_applies_the_rule_once_to_each_row_with_the_sum_of_its_gradients(reach, name, rng):
    table, naive = reach.table(f"rules/{name}"), reach.naive(f"rules/{name}")
    dtype, every = RULES[name].dtype, np.arange(-9, 9)
    for i in range(7):
        keys = rng.integers(-8, 8, 25)
        grads = rng.normal(size=(25, 11)).astype(dtype)
        kept = grads.copy()
        if i % 3 == 2:
            check(table.push_pull(keys, grads), naive.push_pull(keys.tolist(), grads), name, dtype)
        else:
            table.push(keys, grads)
            naive.push(keys.tolist(), grads)
        assert np.array_equal(grads, kept)
    check(table.pull(every), naive.pull(every.tolist()), name, dtype)
    keys, rows, slots = everything(table)
    assert keys.tolist() == sorted(naive.rows) == every.tolist()
    check(rows, naive.pull(every.tolist()), name, dtype)
    assert list(slots) == list(RULES[name].rule.slots)
    for slot, values in slots.items():
        check(values, np.array([naive.rows[int(key)][slot] for key in keys]), name, dtype)
    assert {shard.version for shard in table.stats()} == {naive.version}


def check(found, expected, name, dtype):
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    if name in EXACT:
        assert found.tobytes() == expected.tobytes()
    else:
        np.testing.assert_allclose(found, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_gradients_of_one_key_are_added_in_their_order(reach):
    """In float32 this order gives another sum than any other."""
    table, key = reach.table("counted"), [4321]
    column = np.float32([1e8, 1, -1e8, 1, 3e-8])
    grads = np.repeat(column[:, None], 3, axis=1)
    other = np.arange(5) + 100
    total = np.float32(0)
    for value in column:
        total += value
    table.push(key * 5, grads)
    assert (table.pull(key) == total).all()
    mixed = np.stack([np.full(5, key[0]), other], axis=1).ravel()
    table.push(mixed, np.repeat(grads, 2, axis=0))
    assert (table.pull(key) == total + total).all()


def test_a_push_pull_answers_rows_as_the_push_left_them_and_may_write_over_its_gradients(reach, rng):
    keys = rng.integers(0, 50, 200) + 2000
    grads = integers(rng, 200, 3)
    naive = reach.naive("counted")
    expected = naive.push_pull(keys.tolist(), grads)
    in_place, found = reach.do(row_workers.push_pull_in_place, "counted", keys, grads)
    assert in_place
    assert np.array_equal(found, expected)
    assert np.array_equal(reach.table("counted").push_pull(keys, grads), naive.push_pull(keys.tolist(), grads))


def test_out_is_written_in_place_and_refused_where_it_cannot_be(reach):
    keys = [5, 6, 5]
    expected = reach.table("order").pull(keys)
    answered, found = reach.do(row_workers.pull_into, "order", keys, "fine")
    assert answered
    assert np.array_equal(found, expected)
    before = len(reach.table("order"))
    for kind, error in [
        ("read-only", fastps.OutputError), ("strided", fastps.OutputError), ("dtype", fastps.DtypeError),
        ("shape", fastps.ShapeError), ("list", fastps.DtypeError),
    ]:  # fmt: skip
        found = ray.get(reach.worker.error_of.remote(row_workers.pull_into, "order", [70_000, 1, 2], kind))
        assert found[0] is error, kind
        assert "order" in found[1]
    assert len(reach.table("order")) == before


def test_a_peek_answers_first_values_and_makes_no_row(reach):
    table = reach.table("missing")
    table.set([1, 2], np.ones((2, 3), np.float32))
    keys = [2, 77, 1, 78, 77]
    found = table.peek(keys)
    assert found.dtype == np.float32
    assert np.array_equal(found[[0, 2]], np.ones((2, 3)))
    assert np.array_equal(found[[1, 3, 4]], table.initial([77, 78, 77]))
    assert table.contains(keys).tolist() == [True, False, True, False, False]
    assert len(table) == 2
    wrong = {"read-only": fastps.OutputError, "dtype": fastps.DtypeError, "shape": fastps.ShapeError}
    for kind, error in wrong.items():
        assert ray.get(reach.worker.error_of.remote(row_workers.pull_into, "missing", keys, kind, "peek"))[0] is error
    is_out, out = reach.do(row_workers.pull_into, "missing", keys, "fine", "peek")
    assert is_out
    assert np.array_equal(out, found)
    assert len(table) == 2
    assert np.array_equal(table.pull(keys), found)
    assert len(table) == 4


def test_rows_and_slots_are_set_as_given_and_the_rule_goes_on_from_there(reach, rng):
    table, naive = reach.table("set"), reach.naive("set")
    keys, twice = [3, 1, 4, 1, 5], [1, 1, 3, 9, 9]
    rows, sums = integers(rng, 5, 4), np.abs(integers(rng, 5, 1)) + 1
    steps = [
        (keys, {"row": rows}), (keys[:1], {"row": rows[:1], "sum": sums[:1]}), (twice, {"sum": sums}),
        ([7, 8], {"sum": sums[:2]}), (twice, {"row": rows[::-1].copy(), "sum": sums[::-1].copy()}),
    ]  # fmt: skip
    for given, streams in steps:
        table.set(given, streams.get("row"), **{name: values for name, values in streams.items() if name != "row"})
        naive.set(given, **streams)
        found, values, slots = everything(table)
        assert found.tolist() == sorted(naive.rows)
        assert np.array_equal(values, naive.pull(found.tolist()))
        assert slots["sum"].ravel().tolist() == [naive.rows[int(key)]["sum"][0] for key in found]
    assert {shard.version for shard in table.stats()} == {0}  # not a push
    grads = rng.normal(size=(5, 4)).astype(np.float32)
    table.push(twice, grads)
    naive.push(twice, grads)
    check(table.pull([1, 3, 9]), naive.pull([1, 3, 9]), "row", "float32")


def test_an_evicted_row_is_gone_and_born_again_as_at_first(reach, rng):
    table = reach.table("again")
    keys = np.arange(40)
    first = table.pull(keys)
    for _ in range(3):
        table.push(keys, rng.normal(size=(40, 3)).astype(np.float32))
        assert (table.pull(keys) != first).all()
        assert table.evict([*keys[:20], *keys[:5], 1000]) == 20
        assert len(table) == 20
        assert table.contains(keys).tolist() == [False] * 20 + [True] * 20
        assert table.evict(keys[:20]) == 0
        assert np.array_equal(table.pull(keys[:20]), first[:20])
        _, _, slots = everything(table)
        assert not slots["sum"][:20].any()
        assert slots["sum"][20:].all()
    stats = table.stats()
    assert sum(shard.evicted for shard in stats) == 60
    assert sum(shard.created for shard in stats) == 100
    assert sum(shard.rows for shard in stats) == len(table) == 40


def test_rows_come_and_go_for_ever_within_the_memory_of_those_that_live(reach):
    table = reach.table("again")
    table.pull(np.arange(50_000) + 100_000)
    table.evict(np.arange(50_000) + 100_000)
    before = sum(shard.bytes for shard in table.stats())
    for i in range(6):
        keys = np.arange(40_000) + (i + 3) * 100_000
        assert np.array_equal(table.pull(keys[:9]), table.initial(keys[:9]))
        table.pull(keys)
        assert table.evict(keys) == 40_000
    assert sum(shard.bytes for shard in table.stats()) <= 1.5 * before


def test_operations_on_no_keys_do_nothing_but_count_a_push(reach):
    table = reach.table("empty")
    none = np.empty((0, 3), np.float32)
    for keys in ([], np.empty(0, np.int64)):
        assert table.pull(keys).shape == (0, 3)
        assert table.peek(keys).shape == (0, 3)
        assert table.push_pull(keys, none).shape == (0, 3)
        assert table.push(keys, none) is None
        assert table.set(keys, none, m=none) is None
        assert table.evict(keys) == 0
        assert table.contains(keys).shape == (0,)
        assert table.initial(keys).shape == (0, 3)
    assert {shard.version for shard in table.stats()} == {4}
    assert len(table) == 0
    assert list(table.keys()) == list(table.items()) == []
    assert table.to_arrow().num_rows == 0
    assert table.from_arrow(table.to_arrow(slots=True)) == 0
    assert [found.tolist() for found in table.nearest(np.ones(3))] == [[], []]


def test_a_push_with_keys_of_one_shard_alone_is_counted_on_every_shard(reach):
    table, every = reach.table("twice"), np.arange(1000, 1100)
    before = [shard.version for shard in table.stats()]
    for shard in range(reach.num_shards):
        keys = every[reach.shards(every) == shard]
        table.push(keys, np.ones((len(keys), 3), np.float32))
        assert (table.push_pull(keys, np.ones((len(keys), 3), np.float32)) == 2).all()
        assert (table.pull(keys) == 2).all()
    assert [shard.version for shard in table.stats()] == [v + 2 * reach.num_shards for v in before]


def test_a_hundred_thousand_keys_at_once(reach, rng):
    table = reach.table("many")
    keys = rng.permutation(100_000) * 7919
    ones = np.ones((100_000, 8), np.float32)
    assert (table.pull(keys) == 1).all()
    for _ in range(2):
        table.push(keys, ones)
    grads = integers(rng, 100_000, 8)
    assert np.array_equal(table.push_pull(keys, grads), 3 + grads)
    twice = np.concatenate([keys, keys[::-1]])
    assert np.array_equal(table.pull(twice), 3 + np.concatenate([grads, grads[::-1]]))
    assert len(table) == 100_000
    assert table.contains(keys).all()
    assert not table.contains(keys + 1).any()
    assert np.array_equal(np.sort(np.concatenate(list(table.keys()))), np.sort(keys))
    batches = table.items(30_000)
    assert all(len(some) <= 30_000 for some, _ in batches)
    order = np.argsort(np.concatenate([some for some, _ in batches]))
    assert np.array_equal(np.concatenate([rows for _, rows in batches])[order], (3 + grads)[np.argsort(keys)])
    assert table.evict(keys[::2]) == 50_000
    assert np.array_equal(table.contains(keys), np.arange(100_000) % 2 == 1)
    assert np.array_equal(table.peek(keys[1::2]), (3 + grads)[1::2])
    assert (table.peek(keys[::2]) == 1).all()


@pytest.mark.parametrize("n", [1, 8, 30])
def test_payloads_of_every_size_arrive_whole(reach, n, rng):
    """Of rows of half a MiB: they travel as one message, as many, and through Ray's object store."""
    table, keys = reach.table("wide"), np.arange(n) + 1000 * n
    rows = rng.normal(size=(n, 65536))
    table.push(keys, rows)
    assert np.array_equal(table.pull(keys), rows)
    assert np.array_equal(table.push_pull(keys[::-1], rows[::-1]), (rows + rows)[::-1])
    table.set(keys, rows)
    assert np.array_equal(table.peek(keys), rows)
    assert table.evict(keys) == n


def test_all_rows_are_read_in_batches_however_long_they_are(reach):
    table = reach.table("wide")
    table.set([1, 2], np.ones((2, 65536)))
    assert sum(len(keys) for keys, _ in table.items()) == len(table)
    assert table.to_arrow().num_rows == len(table)


# The same everywhere

BIT_KEYS = np.arange(-60, 60)


def rows_after_pushes(table, dtype):
    """One sequence of pushes, the same in every reach."""
    rng = np.random.default_rng(SEED)
    for i in range(12):
        keys = rng.integers(-60, 60, 50)
        grads = rng.normal(size=(50, 5)).astype(dtype)
        if i == 5:
            table.evict(keys[:10])
        if i % 4 == 1:
            table.push_pull(keys, grads)
        else:
            table.push(keys, grads)
    table.pull(BIT_KEYS)
    return everything(table)


@pytest.fixture(scope="module")
def bits():
    """Per table the rows that the first reach came to."""
    return {}


@pytest.mark.parametrize("name", BITS)
def test_one_sequence_of_pushes_gives_the_same_bits_on_any_number_of_shards_and_over_any_transport(reach, bits, name):
    found = rows_after_pushes(reach.table(f"bits/{name}"), BITS[name].dtype)
    assert np.array_equal(found[0], BIT_KEYS)
    assert_same(found, bits.setdefault(name, found))


@pytest.mark.parametrize("name", ["created", "created64"])
def test_rows_are_born_the_same_whoever_comes_first_and_however(reach, name, rng):
    table, other = reach.table(name), reach.ps[name]  # the worker's and the driver's
    keys = rng.permutation(600) - 300
    expected = table.initial(keys)
    assert np.array_equal(other.initial(keys), expected)
    assert np.array_equal(table.pull(keys[:100]), expected[:100])
    assert np.array_equal(other.pull(keys[:200]), expected[:200])
    grads = np.zeros((100, 6), expected.dtype)
    other.push(keys[200:300], grads)
    table.push(keys[300:400][::-1], grads)
    assert np.array_equal(table.push_pull(keys[400:500], grads), expected[400:500])
    assert np.array_equal(table.pull(keys), expected)
    assert np.array_equal(other.peek(keys), expected)


# Out and in again


def test_the_columns_of_arrow_data(reach, rng):
    table = reach.table("moved/own")
    table.push(np.arange(30), rng.normal(size=(30, 5)).astype(np.float32))
    found = table.to_arrow(slots=True)
    assert found.schema.names == ["key", "row", "drift", "seen"]
    assert [field.type for field in found.schema] == [
        pa.int64(), pa.list_(pa.float32(), 5), pa.list_(pa.float32(), 5), pa.float32(),
    ]  # fmt: skip
    assert table.to_arrow().schema.names == ["key", "row"]
    rows = dict(zip(found["key"].to_pylist(), found["row"].to_pylist(), strict=True))
    assert np.array_equal(np.float32([rows[key] for key in range(30)]), table.pull(range(30)))
    assert reach.table("unsigned").to_arrow().schema.field("key").type == pa.uint64()
    assert reach.table("moved/adam64").to_arrow().schema.field("row").type == pa.list_(pa.float64(), 5)


@pytest.mark.parametrize("name", MOVED)
def test_rows_and_slots_survive_the_way_through_arrow_and_files_to_other_shards_and_back(
    reach, elsewhere, name, rng, tmp_path
):
    here, there = reach.table(f"moved/{name}"), elsewhere[f"moved/{name}"]
    dtype = MOVED[name].dtype
    keys = np.concatenate([rng.integers(-(2**62), 2**62, 400), np.arange(30)])
    here.push(keys, rng.normal(size=(430, 5)).astype(dtype))
    kept = everything(here)
    n = len(kept[0])

    clear(there)
    assert there.from_arrow(here.to_arrow(slots=True)) == n
    assert_same(everything(there), kept)
    assert here.export(tmp_path / "rows.parquet", slots=True) == n
    clear(there)
    assert there.load(tmp_path / "rows.parquet") == n
    assert_same(everything(there), kept)

    assert there.export(tmp_path / "back.parquet", slots=True) == n
    clear(here)
    assert here.load(str(tmp_path / "back.parquet")) == n
    assert_same(everything(here), kept)
    clear(here)
    assert here.from_arrow(there.to_arrow()) == n  # without slots, which begin as at first
    found = everything(here)
    assert np.array_equal(found[1], kept[1])
    for slot, values in found[2].items():
        assert (values == MOVED[name].rule.slots[slot]).all()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["back.parquet", "rows.parquet"]
    if name in ("row", "add"):  # nothing of these depends on the number of pushes
        here.load(tmp_path / "back.parquet")
        grads = rng.normal(size=(430, 5)).astype(dtype)
        here.push(keys, grads)
        there.push(keys, grads)
        assert_same(everything(here), everything(there))


def clear(table):
    for keys in list(table.keys()):
        table.evict(keys)
    assert len(table) == 0


def test_a_file_is_replaced_when_the_new_one_is_whole_and_stays_when_there_is_none(reach, tmp_path):
    table, path = reach.ps["words"], tmp_path / "rows.parquet"
    table.set(["a", "b"], np.ones((2, 2), np.float32))
    table.export(path)
    first = pq.read_table(path)
    with pytest.raises(fastps.NamesError, match="no array or table"):
        reach.ps["no such"].export(path)
    with pytest.raises(FileNotFoundError):
        table.export(tmp_path / "nowhere" / "rows.parquet")
    assert pq.read_table(path).equals(first)
    table.set(["c"], np.ones((1, 2), np.float32))
    table.export(path)
    assert pq.read_table(path).num_rows == first.num_rows + 1
    assert list(tmp_path.iterdir()) == [path]
    table.evict(["a", "b", "c"])


def batches_of(table, counts, start=0):
    """RecordBatches of so many rows each; every element of a row is its key."""
    at = start
    for count in counts:
        keys = np.arange(at, at + count)
        flat = pa.array(np.repeat(keys, table.dim).astype(table.dtype))
        yield pa.record_batch([pa.array(keys), pa.FixedSizeListArray.from_arrays(flat, table.dim)], ["key", "row"])
        at += count


def test_a_stream_is_taken_batch_by_batch_and_one_that_is_refused_leaves_those_before_it(reach):
    table = reach.ps["counted"]  # a reader does not travel: the driver's handle
    start = 500_000
    schema = next(batches_of(table, [1])).schema
    counts = [1000, 0, 1, 2500, 3]
    for data in (
        pa.RecordBatchReader.from_batches(schema, batches_of(table, counts, start)),
        pa.Table.from_batches(batches_of(table, counts, start)),
        next(batches_of(table, [3504], start)),
        pa.Table.from_batches(batches_of(table, counts, start)).slice(0, 3504),
    ):
        assert table.from_arrow(data) == 3504
        keys = np.arange(start, start + 3504)
        assert (table.peek(keys) == keys[:, None]).all()
        assert table.evict(keys) == 3504
    sliced = pa.Table.from_batches(batches_of(table, [100], start)).slice(40, 25)
    assert table.from_arrow(sliced) == 25
    assert table.contains(np.arange(start, start + 100)).tolist() == [40 <= i < 65 for i in range(100)]
    assert (table.peek([start + 40]) == start + 40).all()
    table.evict(np.arange(start, start + 100))

    def spoilt():
        yield from batches_of(table, [10, 10], start)
        row = pa.array([[1.0, None, 1.0]], pa.list_(pa.float32(), 3))
        yield pa.record_batch([pa.array([start + 20]), row], ["key", "row"])
        yield from batches_of(table, [10], start + 21)

    with pytest.raises(fastps.DtypeError, match="nulls"):
        table.from_arrow(pa.RecordBatchReader.from_batches(schema, spoilt()))
    assert table.contains(np.arange(start, start + 40)).tolist() == [True] * 20 + [False] * 20
    table.evict(np.arange(start, start + 40))


def arrow_of(key, row, kind=None, **more):
    kind = pa.list_(pa.float32(), 4) if kind is None else kind
    return pa.table({"key": key, "row": pa.array(row, kind), **more})


BAD_ARROW = {
    "no key": (pa.table({"row": pa.array([[1.0] * 4], pa.list_(pa.float32(), 4))}), fastps.NamesError),
    "keys alone": (pa.table({"key": [1]}), fastps.NamesError),
    "another column": (arrow_of([1], [[1.0] * 4], name=["x"]), fastps.NamesError),
    "float keys": (arrow_of([1.5], [[1.0] * 4]), fastps.DtypeError),
    "null keys": (arrow_of([1, None], [[1.0] * 4] * 2), fastps.DtypeError),
    "text keys": (arrow_of(["1"], [[1.0] * 4]), fastps.DtypeError),
    "keys out of range": (arrow_of(pa.array([2**63], pa.uint64()), [[1.0] * 4]), fastps.KeysError),
    "null rows": (arrow_of([1, 2], [[1.0] * 4, None]), fastps.DtypeError),
    "longer rows": (arrow_of([1], [[1.0] * 5], pa.list_(pa.float32(), 5)), fastps.ShapeError),
    "rows of any length": (arrow_of([1, 2], [[1.0] * 4, [1.0] * 3], pa.list_(pa.float32())), fastps.ShapeError),
    "float64 rows": (arrow_of([1], [[1.0] * 4], pa.list_(pa.float64(), 4)), fastps.DtypeError),
    "whole numbers": (arrow_of([1], [[1] * 4], pa.list_(pa.int32(), 4)), fastps.DtypeError),
    "numbers as rows": (pa.table({"key": [1], "row": pa.array([1.0], pa.float32())}), fastps.ShapeError),
    "slots of another length": (
        arrow_of([1], [[1.0] * 4], sum=pa.array([[1.0] * 3], pa.list_(pa.float32(), 3))), fastps.ShapeError,
    ),
    "slots with nulls": (
        arrow_of([1, 2], [[1.0] * 4] * 2, sum=pa.array([[1.0] * 4, None], pa.list_(pa.float32(), 4))),
        fastps.DtypeError,
    ),
    "no Arrow data": ({"key": [1], "row": [[1.0] * 4]}, fastps.DtypeError),
    "numpy": (np.ones((1, 4), np.float32), fastps.DtypeError),
}  # fmt: skip


def test_arrow_data_that_does_not_fit_raises_and_sets_nothing(reach):
    table = reach.table("wrong")
    before = everything_if_any(table)
    for what, (data, error) in BAD_ARROW.items():
        with pytest.raises(error) as caught:
            table.from_arrow(data)
        assert "from_arrow `wrong`" in str(caught.value), what
    assert_same(everything_if_any(table), before)


def everything_if_any(table):
    table.pull([-1])
    return everything(table)


# Kinds of keys and of beginnings


def test_text_is_a_key_and_keys_answer_its_hashes(reach, elsewhere):
    table, words = reach.table("words"), ["user:1", "user:2", "é", ""]
    ones = np.ones((4, 2), np.float32)
    table.push(words, ones)
    table.push(np.array(words), ones)
    table.push([word.encode() for word in words], ones)
    table.push(pa.array(words[:2]), ones[:2])
    assert table.pull(words)[:, 0].tolist() == [4, 4, 3, 3]
    assert "user:1" in table
    assert b"user:1" in table
    assert "user:3" not in table
    hashes = {hash_of(word.encode()) for word in words}
    assert {int(key) for keys in table.keys() for key in keys} == hashes  # noqa: SIM118
    assert table.to_arrow().schema.field("key").type == pa.uint64()
    assert table.nearest(np.ones(2, np.float32), 1, metric="dot")[0][0] in hashes
    other = elsewhere["words"]
    other.from_arrow(table.to_arrow())
    assert other.peek(words)[:, 0].tolist() == [4, 4, 3, 3]
    other.from_arrow(pa.table({"key": ["new"], "row": pa.array([[5.0, 5.0]], pa.list_(pa.float32(), 2))}))
    assert other.peek(["new"]).tolist() == [[5, 5]]
    clear_words(other, [*words, "new"])
    for wrong in ([1], "user:1", [None], [["user:1"]]):
        with pytest.raises(fastps.DtypeError, match="words"):
            table.pull(wrong)
    assert table.evict(words) == 4


def clear_words(table, words):
    table.evict(words)
    assert len(table) == 0


def test_rows_that_are_given_are_there_from_the_beginning(reach):
    table = reach.table("given")
    assert sorted(key for keys in table.keys() for key in keys) == sorted(GIVEN_KEYS)  # noqa: SIM118
    assert np.array_equal(table.pull(GIVEN_KEYS), GIVEN_ROWS)
    others = table.pull([11, 12])
    assert (abs(others - 9) < 1).all()
    assert np.array_equal(others, table.initial([11, 12]))
    table.push(GIVEN_KEYS, np.ones((3, 4), np.float32))
    assert np.array_equal(table.pull(GIVEN_KEYS), GIVEN_ROWS - 0.5)
    numbered = reach.table("numbered")
    assert np.array_equal(numbered.pull([2, 0, 1]), GIVEN_ROWS[[2, 0, 1]])
    assert numbered.pull([0]).dtype == np.float64
    assert not numbered.pull([3]).any()
    assert {shard.version for shard in numbered.stats()} == {0}


def mixed_back(hash):
    """The key of a hash: csrc/hash.h backwards."""
    mask = 2**64 - 1
    hash = (hash ^ hash >> 31 ^ hash >> 62) * pow(0x94D049BB133111EB, -1, 2**64) & mask
    hash = (hash ^ hash >> 27 ^ hash >> 54) * pow(0xBF58476D1CE4E5B9, -1, 2**64) & mask
    return hash ^ hash >> 30 ^ hash >> 60


def alike(count, tag=0xABCDEF01):
    """Keys that an index cannot tell apart without a look at their rows, all of shard 0."""
    return np.array([mixed_back(tag << 32 | i) for i in range(count)], np.uint64)


def test_keys_that_meet_in_the_index_have_rows_of_their_own(reach):
    table, keys = reach.table("unsigned"), alike(40)
    assert not table.peek(keys).any()
    rows = np.arange(40, dtype=np.float32).repeat(2).reshape(40, 2)
    table.push(keys[:25], rows[:25])
    assert table.contains(keys).tolist() == [True] * 25 + [False] * 15
    assert np.array_equal(table.peek(keys)[:25], rows[:25])
    assert not table.peek(keys)[25:].any()
    assert table.evict(keys[5:15]) == 10
    table.push(keys, rows)
    found = table.pull(keys)
    assert np.array_equal(found[:5], 2 * rows[:5])
    assert np.array_equal(found[5:15], rows[5:15])
    assert np.array_equal(found[15:25], 2 * rows[15:25])
    assert np.array_equal(found[25:], rows[25:])
    assert table.evict(keys) == 40


# Errors


def wrong_calls():
    ones = np.ones((2, 4), np.float32)
    keys = {
        "float keys": ([1.0, 2.0], fastps.DtypeError), "text keys": (["a", "b"], fastps.DtypeError),
        "nested keys": (np.ones((2, 1), int), fastps.ShapeError), "a bool": ([True, False], fastps.DtypeError),
        "keys out of range": ([1, 2**63], fastps.KeysError), "no keys": (None, fastps.DtypeError),
    }  # fmt: skip
    for what, (wrong, error) in keys.items():
        for verb, more in [("pull", ()), ("push", (ones,)), ("push_pull", (ones,)), ("set", (ones,))]:
            yield f"{verb}: {what}", verb, (wrong, *more), {}, error
        for verb in ("evict", "contains", "initial"):
            yield f"{verb}: {what}", verb, (wrong,), {}, error
    grads = {
        "float64": (np.ones((2, 4)), fastps.DtypeError), "whole numbers": (np.ones((2, 4), int), fastps.DtypeError),
        "too few rows": (ones[:1], fastps.ShapeError), "too many": (np.ones((3, 4), np.float32), fastps.ShapeError),
        "shorter rows": (ones[:, :3].copy(), fastps.ShapeError), "one row": (ones[0], fastps.ShapeError),
        "another dimension": (ones[None], fastps.ShapeError), "a list": ([[1.0] * 4] * 2, fastps.DtypeError),
        "nothing": (None, fastps.ParameterError), "a number": (1.0, fastps.ParameterError),
        "another byte order": (ones.astype(">f4"), fastps.DtypeError),
    }  # fmt: skip
    for what, (wrong, error) in grads.items():
        for verb in ("push", "push_pull"):
            yield f"{verb}: {what}", verb, ([1, 2], wrong), {}, error
        if wrong is not None:
            yield f"set: {what}", "set", ([1, 2], wrong), {}, error
            yield f"set a slot: {what}", "set", ([1, 2],), {"sum": wrong}, error
    yield "an unknown slot", "set", ([1, 2], ones), {"m": ones}, fastps.NamesError
    yield "nothing to set", "set", ([1, 2],), {}, fastps.OptionError
    yield "a slot of one value", "set", ([1, 2],), {"sum": ones[:, :1].copy()}, fastps.ShapeError
    for verb, more in [("pull", ()), ("push", (ones,)), ("set", (ones,)), ("evict", ()), ("contains", ())]:
        for timeout in (-1, "soon", math.nan):
            yield f"{verb}: timeout {timeout}", verb, ([1, 2], *more), {"timeout": timeout}, fastps.OptionError
    yield "no gradients", "push", (np.array([1, 2]), None), {}, fastps.DtypeError
    yield "no gradients for one key", "push", ([1], None), {}, fastps.DtypeError
    yield "something to resume", "push", ([1, 2], ones), {"resume": 3}, fastps.OptionError
    yield "an unknown hyper-parameter", "configure", (), {"rl": 1.0}, fastps.OptionError
    yield "NaN as a hyper-parameter", "configure", (), {"lr": math.nan}, fastps.OptionError
    yield "no schedule", "configure", (), {"lr": None}, fastps.OptionError
    yield "one of them wrong", "configure", (), {"lr": 3.0, "eps": "x"}, fastps.OptionError
    for batch in (0, -1, 2.0, True, 2**25):
        yield f"batches of {batch}", "items", (batch,), {}, fastps.OptionError
        yield f"keys in batches of {batch}", "keys", (batch,), {}, fastps.OptionError
    yield "a vector of another length", "nearest", (np.ones(3),), {}, fastps.ShapeError
    yield "vectors", "nearest", (np.ones((1, 4)),), {}, fastps.ShapeError
    yield "a word as a vector", "nearest", ("abc",), {}, fastps.DtypeError
    yield "an unknown metric", "nearest", (np.ones(4),), {"metric": "l2"}, fastps.OptionError
    for k in (0, -1, 2.5, True, None):
        yield f"{k} nearest", "nearest", (np.ones(4), k), {}, fastps.OptionError


def test_wrong_arguments_raise_and_change_nothing(reach):
    table = reach.table("wrong")
    table.pull([-1])
    before, stats, hyper = everything(table), table.stats(), table.hyper
    for what, verb, args, named, error in wrong_calls():
        with pytest.raises(fastps.FastPSError) as caught:
            getattr(table, verb)(*args, **named)
        assert isinstance(caught.value, error), what
    assert_same(everything(table), before)
    assert table.stats() == stats
    assert table.hyper == hyper


def test_a_full_table_takes_no_new_rows_and_of_such_a_push_applies_nothing(reach):
    table, most = reach.table("full"), capacity_of_shard(20, reach.num_shards)
    every = np.arange(3000)
    of_shard = [every[reach.shards(every) == shard] for shard in range(reach.num_shards)]
    inside = np.concatenate([keys[:most] for keys in of_shard])
    ones = np.ones((len(inside), 4), np.float32)
    table.push(inside[:-1], ones[:-1])
    last = of_shard[-1][most - 1]
    table.push([last, last], ones[:2])  # one row, and it still fits
    assert len(table) == most * reach.num_shards >= 20
    before, versions = everything(table), [shard.version for shard in table.stats()]
    shard = reach.num_shards - 1
    old, new = of_shard[shard][0], of_shard[shard][most]
    calls = [
        ("push", ([old, new, old], ones[:3])), ("push_pull", ([new, old], ones[:2])),
        ("set", ([old, new], ones[:2])), ("pull", ([old, new],)), ("push", ([old, *of_shard[shard]], None)),
    ]  # fmt: skip
    for verb, (keys, *more) in calls:
        args = [np.ones((len(keys), 4), np.float32) if array is None else array for array in more]
        with pytest.raises(fastps.TableFullError) as caught:
            getattr(table, verb)(keys, *args)
        again = pickle.loads(pickle.dumps(caught.value))
        for error in (caught.value, again):
            assert isinstance(error, MemoryError)
            assert (error.table, error.capacity, error.shard) == ("full", most, shard)
            for word in ("`full`", f"{most} rows of {most}", f"shard {shard} of {reach.num_shards}", "capacity"):
                assert word in str(error)
        if verb != "pull":
            away = {s for s in range(reach.num_shards) if reach.node_of[s] != reach.node_of[shard]}
            assert set(caught.value.applied) == away
    assert_same(everything(table), before)
    pushes = [3 * (reach.node_of[s] != reach.node_of[shard]) for s in range(reach.num_shards)]
    assert [shard.version for shard in table.stats()] == [a + b for a, b in zip(versions, pushes, strict=True)]
    assert table.peek([old, new]).tolist() == [[8] * 4, [7] * 4]
    assert table.contains([old, new]).tolist() == [True, False]
    table.push([old, old], ones[:2])  # rows that are there are none the worse
    assert table.evict([old]) == 1
    table.push([new], ones[:1])
    assert table.pull([new]).tolist() == [[8] * 4]
    with pytest.raises(fastps.TableFullError):
        table.pull([old])


def test_a_pull_from_a_full_table_says_of_no_shard_that_something_was_applied(reach):
    """Whether the shards before the one that is full had keys or not."""
    table, most, last = reach.table("pulled"), capacity_of_shard(20, reach.num_shards), reach.num_shards - 1
    every = np.arange(10_000)
    others, keys = every[reach.shards(every) != last][:5], every[reach.shards(every) == last][: most + 1]
    for pulled in (keys, [*others, *keys]):
        with pytest.raises(fastps.TableFullError) as caught:
            table.pull(pulled)
        assert (caught.value.shard, caught.value.applied) == (last, ())


def test_a_full_table_is_not_misled_by_keys_that_meet_in_the_index(reach):
    table, most = reach.table("alike"), capacity_of_shard(3, reach.num_shards)
    keys = alike(most + 2)
    ones = np.ones((len(keys), 2), np.float32)
    table.push(keys[:most], ones[:most])
    before = everything(table)
    for pushed in (keys[[0, most]], keys[[0, 1, most, most + 1]], keys[[most]]):
        with pytest.raises(fastps.TableFullError):
            table.push(pushed, ones[: len(pushed)])
        assert_same(everything(table), before)
        assert table.stats()[0].version == 1
        with pytest.raises(fastps.TableFullError):
            table.pull(pushed)
    table.push(keys[:most], ones[:most])
    assert (table.pull(keys[:most]) == 2).all()


# The rest of the server


def test_tables_and_arrays_of_one_server_do_not_touch_each_other(reach):
    ps, table = reach.ps, reach.table("beside/table")
    ones = {"beside": {"bias": np.ones(7)}, "weights": np.ones((3, 5), np.float32)}
    reach.do(workers.push, ones)
    table.push([1, 2], np.ones((2, 3), np.float32))
    reach.do(workers.push, ones)
    found = reach.do(workers.pull)
    assert found["beside"]["bias"].tolist() == [2] * 7
    assert found["weights"].tolist() == [[3] * 5] * 3
    assert list(found) == list(ones)
    assert ps.versions == (2,) * reach.num_shards
    assert {shard.version for shard in table.stats()} == {1}
    assert (table.pull([1, 2, 3])[:, 0] == [1, 1, 0]).all()
    for wrong in ({**ones, "order": np.ones(3)}, {"weights": ones["weights"]}, None):
        with pytest.raises(fastps.ParameterError):
            ps.push(wrong)
    names = ["order", "full", "beside/table", "rules/adam"]
    assert [ps[name].name for name in names] == names
    assert "beside/table" in repr(ps["beside/table"])
    for name in ("beside", "weights/bias", "table", ""):
        assert name not in ps
        with pytest.raises(fastps.NamesError, match="no array or table"):
            ps[name]
    for name, expected in (("weights", found["weights"]), ("beside/bias", found["beside"]["bias"])):
        assert name in ps
        assert (ps[name].name, ps[name].shape, ps[name].dtype) == (name, expected.shape, str(expected.dtype))
        assert (ps[name].pull() == expected).all()
    assert {"weights", "beside/bias", "beside/table", "order"} <= set(ps)
    with pytest.raises(fastps.NamesError, match="one table"):
        _ = ps.table
    assert "beside/bias: float64[7]" in repr(ps)
    assert " more" in repr(ps)
    assert len(repr(ps)) < 1000


def test_hyper_parameters_of_a_table_change_for_the_next_push_on_all_shards(reach):
    table, keys = reach.table("hyper"), np.arange(20)
    ones = np.ones((20, 2), np.float32)
    assert table.hyper == {"lr": 0.5, "weight_decay": 0.0}
    table.push(keys, ones)
    table.configure(lr=2.0)
    table.push(keys, ones)
    assert (table.pull(keys) == -2.5).all()
    reach.ps.configure("hyper", lr=0.25)
    assert reach.table("bits/sgd").hyper == {"lr": 0.5, "weight_decay": 0.25}
    table.push(keys, ones)
    assert (table.pull(keys) == -2.75).all()
    assert table.hyper == reach.ps["hyper"].hyper == reach.ps.hyper["hyper"] == {"lr": 0.25, "weight_decay": 0.0}
    for wrong in ({"rl": 1.0}, {"lr": 1.0, "rl": 1.0}, {"lr": 1.0, "eps": 1.0}, {"lr": math.inf}):
        with pytest.raises(fastps.OptionError):
            reach.ps.configure("hyper", **wrong)
        with pytest.raises(fastps.OptionError):
            table.configure(**wrong)
    with pytest.raises(fastps.OptionError, match="no rule has the pattern"):
        reach.ps.configure("no such", lr=1.0)
    assert table.hyper == {"lr": 0.25, "weight_decay": 0.0}


def test_a_hyper_parameter_that_no_rule_has_is_refused_whatever_comes_with_it(reach):
    before = reach.ps.hyper
    for wrong in ({"no_such": 1.0}, {"lr": 9.0, "no_such": 1.0}):
        with pytest.raises(fastps.OptionError, match="no_such"):
            reach.ps.configure(**wrong)
        assert reach.ps.hyper == before


def test_stats_count_what_happened_wherever_they_are_asked(reach):
    table, keys = reach.table("seen"), np.arange(300)
    ones = np.ones((300, 3), np.float32)
    table.push(keys, ones)
    table.push(keys[:1], ones[:1])
    table.set(keys, ones)
    table.pull(np.arange(400))
    table.evict(np.arange(100))
    stats = table.stats()
    assert [shard.shard for shard in stats] == list(range(reach.num_shards))
    assert {shard.version for shard in stats} == {2}
    by_shard = np.bincount(reach.shards(np.arange(400)), minlength=reach.num_shards)
    gone = np.bincount(reach.shards(np.arange(100)), minlength=reach.num_shards)
    assert [shard.created for shard in stats] == by_shard.tolist()
    assert [shard.evicted for shard in stats] == gone.tolist()
    assert [shard.rows for shard in stats] == (by_shard - gone).tolist()
    for shard in stats:
        assert shard.rebuilt >= 1
        assert shard.capacity > 300
        assert shard.rows * 12 <= shard.bytes < 1 << 24
    assert reach.ps["seen"].stats() == stats
    assert reach.ps["full"].stats()[0].capacity == capacity_of_shard(20, reach.num_shards)
    assert pickle.loads(pickle.dumps(stats)) == stats


def test_threads_of_one_worker_lose_no_push_and_tear_no_row(reach):
    keys = np.concatenate([np.arange(200), np.arange(50)])
    assert reach.do(row_workers.push_from_threads, "threads", keys, 4, 25) == []
    found = reach.table("threads").pull(np.arange(200))
    assert (found[:50] == 200).all()
    assert (found[50:] == 100).all()
    assert {shard.version for shard in reach.table("threads").stats()} == {100}


def test_every_other_node_costs_one_call_however_many_shards_and_rows_it_has(reach):
    keys, ones = np.arange(200), np.ones((200, 3), np.float32)
    for verb, *args in [
        ("pull", keys), ("push", keys, ones), ("push_pull", keys, ones), ("set", keys, ones), ("contains", keys),
        ("evict", keys), ("__len__",), ("stats",), ("configure",), ("initial", keys),
    ]:  # fmt: skip
        calls = reach.do(row_workers.calls_of, "calls", verb, *args)
        assert len(calls) == (0 if verb == "initial" else reach.remote_nodes), verb


def test_a_push_that_arrives_twice_is_applied_once(reach):
    table, keys = reach.table("twice"), [5, 6, 5]
    before = [shard.version for shard in table.stats()]
    found, repeated = reach.do(row_workers.push_pull_twice_sent, "twice", keys, np.ones((3, 3), np.float32))
    assert repeated == reach.remote_nodes
    assert found[:, 0].tolist() == [2, 1, 2]
    assert table.pull([5, 6])[:, 0].tolist() == [2, 1]
    assert [shard.version for shard in table.stats()] == [version + 1 for version in before]


def test_a_push_that_timed_out_is_resumed_to_exactly_once(reach, tmp_path):
    """The row of key 0 is large, and its writer is stopped in the middle of it."""
    keys, mine, before = [5, 0, 6], 0, reach.table("wide").stats()[0].version
    with Workers(reach.ps, tmp_path) as others:
        job = others.start(table=reach.ps["wide"]._number)
        wait_until(lambda: others.finished(job) > 0, 30, "a push")
        os.kill(others.pid(job), signal.SIGSTOP)
        while (found := reach.do(row_workers.push_and_keep_the_error, "wide", keys, 0.3)) is None:
            mine += 1
            os.kill(others.pid(job), signal.SIGCONT)
            time.sleep(0.001)
            os.kill(others.pid(job), signal.SIGSTOP)
        text, applied, partial, pending = found
        assert "wide" in text
        assert "resume=error.resume" in text
        assert sorted([*applied, *partial, *pending]) == list(range(reach.num_shards))
        assert reach.shards([0])[0] not in applied
        others.stop(job)
        os.kill(others.pid(job), signal.SIGCONT)
        reach.do(row_workers.resume_kept, "wide", keys)
        wait_until(lambda: not others.lives(job), 30, "the end of the other")
        rows = reach.table("wide").pull(keys)
        assert (rows == rows[:, :1]).all()
        assert rows[:, 0].tolist() == [mine + 1, mine + 1 + others.finished(job), mine + 1]
        versions = {shard.version for shard in reach.table("wide").stats()}
        assert versions == {before + mine + 1 + others.finished(job)}
        error, *_ = ray.get(reach.worker.error_of.remote(row_workers.resume_kept, "wide", keys))
        assert error is fastps.OptionError
        assert np.array_equal(reach.table("wide").pull(keys), rows)


def test_views_are_live_and_read_only_where_all_shards_are_at_hand(reach):
    keys, ones = [8001, 8002, 8001], np.ones((3, 3), np.float32)
    if reach.remote_nodes == 0:
        before, after, writable = reach.do(row_workers.views, "counted", keys, ones)
        assert np.array_equal(before, np.zeros((3, 3)))
        assert np.array_equal(after, [[2] * 3, [1] * 3, [2] * 3])
        assert writable == [False] * 3
    else:
        with pytest.raises(fastps.SplitError, match="use pull"):
            reach.table("counted").view(keys)


def test_a_view_that_is_refused_makes_no_row(reach):
    if reach.remote_nodes > 0:
        with pytest.raises(fastps.SplitError):
            reach.table("counted").view([8101, 8102])
    assert not reach.table("counted").contains([8101, 8102]).any()


def test_the_nearest_rows_are_found_on_all_shards(reach, rng):
    table = reach.table("near")
    keys = np.arange(1000, 1400)
    rows = rng.normal(size=(400, 4)).astype(np.float32)
    table.set(keys, rows)
    vector = rng.normal(size=4)
    for metric, scores in [
        ("dot", rows @ vector), ("euclidean", -np.linalg.norm(rows - vector, axis=1)),
        ("cosine", rows @ vector / np.linalg.norm(rows, axis=1) / np.linalg.norm(vector)),
    ]:  # fmt: skip
        found, values = table.nearest(vector, 7, metric=metric)
        assert found.tolist() == keys[np.argsort(-scores)[:7]].tolist()
        np.testing.assert_allclose(values, np.sort(scores)[::-1][:7], rtol=1e-4)


def test_handles_of_tables_travel_to_tasks_by_themselves_and_in_whatever_they_are_put(reach):
    handle, keys = reach.ps["counted"], [9001, 9002]
    task = ray.remote(num_cpus=0)(row_workers.use_handle)
    assert (ray.get(task.remote(handle, keys)) == 1).all()
    assert (ray.get(reach.worker.do.remote(use_nested, {"handle": [handle]}, keys)) == 2).all()
    again = pickle.loads(pickle.dumps(handle))
    assert (again.name, again.dim, again.dtype) == ("counted", 3, "float32")
    assert (again.push_pull(keys, np.ones((2, 3), np.float32)) == 3).all()
    assert (reach.table("counted").pull(keys) == 3).all()


def use_nested(ps, nested, keys):
    return row_workers.use_handle(nested["handle"][0], keys)


def test_two_servers_at_once_do_not_touch_each_other(reach, elsewhere):
    here, there = reach.table("unsigned"), elsewhere["unsigned"]
    ones = np.ones((1, 2), np.float32)
    here.push([123], ones)
    for count in (1, 2):
        there.push([123], ones)
        assert there.pull([123]).tolist() == [[count] * 2]
        assert here.pull([123]).tolist() == [[1] * 2]
    assert there.evict([123]) == 1
    assert 123 in here
    here.evict([123])


# Servers of their own


def place(cluster, transport, num_shards=1):
    """Next to the driver, or on another node."""
    return {"num_shards": num_shards, "placement": [cluster.ids[0 if transport == "shm" else 1]] * num_shards}


@pytest.mark.parametrize("transport", ["shm", "ray"])
def test_operations_on_tables_of_a_closed_server_raise_closed_error(cluster3, transport):
    ps = fastps.ParameterServer({"t": adding(), "w": np.zeros(2)}, **place(cluster3, transport))
    table, other = ps["t"], pickle.loads(pickle.dumps(ps["t"]))
    ones = np.ones((1, 3), np.float32)
    other.push([1], ones)
    table.push([1], ones)
    ps.close()
    ps.close()
    for handle in (table, other, ps["t"]):
        for ask in [
            lambda h: h.pull([1]), lambda h: h.push([1], ones), lambda h: h.push_pull([1], ones), lambda h: 1 in h,
            lambda h: h.set([1], ones), lambda h: h.evict([1]), lambda h: h.contains([1]), lambda h: list(h.items()),
            lambda h: h.to_arrow(), lambda h: h.nearest(np.ones(3)), lambda h: list(h.keys()),
            lambda h: h.peek([1]), lambda h: h.pull([2]),
            *([lambda h: h.view([1])] if transport == "shm" else []),
        ]:  # fmt: skip
            with pytest.raises(fastps.ClosedError):
                ask(handle)


@pytest.mark.parametrize(("transport", "nonfinite"), [("shm", "raise"), ("ray", "skip")])
def test_gradients_are_clipped_and_those_that_are_not_finite_refused_or_skipped(cluster3, transport, nonfinite, rng):
    table, most, cut = fastps.Table(5, rule=fastps.SGD(0.5, weight_decay=0.25), init=1.0), 4.0, 0.5
    keys = [4, 1, 4, 2, 4, 9, 1]
    grads = rng.normal(size=(7, 5)).astype(np.float32)
    norm = float(np.sqrt((grads.astype(np.float64) ** 2).sum()))
    options = {"nonfinite": nonfinite, "clip_norm": most, "clip_value": cut}
    with fastps.ParameterServer(table, **options, **place(cluster3, transport, 2)) as ps:
        naive = NaiveTable(table.rule, 5, "float32", lambda key: np.ones(5))
        for factor in (1.0, 10.0, 1e-3):
            given = grads * np.float32(factor)
            scale = min(1.0, most / (norm * factor + 1e-6))
            ps.table.push(keys, given)
            naive.push(keys, given, scale, cut)  # a sum is clipped, not each part of it
            np.testing.assert_allclose(ps.table.pull(keys), naive.pull(keys), rtol=1e-6)
        before, with_another = ps.table.pull(keys), [*keys[:-1], 77]
        for bad, push in [(np.nan, ps.table.push), (-np.inf, ps.table.push_pull)]:
            spoilt = grads.copy()
            spoilt[3, 2] = bad
            if nonfinite == "raise":
                with pytest.raises(fastps.NonfiniteError, match=r"`table`.*\[3, 2\]"):
                    push(with_another, spoilt)
            else:
                push(keys, spoilt)
        assert 77 not in ps.table
        assert np.array_equal(ps.table.pull(keys), before)
        assert {shard.version for shard in ps.table.stats()} == {3}
        assert [shard.skipped for shard in ps.stats().shards] == [2, 2]


def test_a_server_of_one_table_alone(cluster3):
    with fastps.ParameterServer(adding(), placement=[cluster3.ids[0]], name="alone") as ps:
        ps.table.push([1], np.ones((1, 3), np.float32))
        other = fastps.get("alone")
        assert (other.table.pull([1]) == 1).all()
        assert ps["table"].name == ps.table.name == "table"
        assert ps.versions == (0,)
        assert other.hyper == {}
        assert "Table(3, float32, int64)" in repr(ps)
        assert ps.push({}) is None
        assert ps.pull() == {}  # what is left of the parameters without the table


@pytest.mark.usefixtures("cluster3")
@pytest.mark.parametrize("policy", [fastps.SSP(0), fastps.SSP(3), fastps.BSP(), fastps.LocalSGD(4)], ids=str)
def test_a_consistency_other_than_async_is_refused_and_nothing_is_created(policy):
    before = own_arenas()
    for params in (adding(), {"t": adding(), "w": np.zeros(3)}):
        with pytest.raises(fastps.OptionError, match="Async"):
            fastps.ParameterServer(params, consistency=policy).close()
    assert set(own_arenas()) <= set(before)


def refuse(params, error):
    with pytest.raises(error):
        fastps.ParameterServer(params, name="refused").close()


@pytest.mark.usefixtures("cluster3")
@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({1: adding()}, fastps.NamesError),
        ({"a": {2: adding()}}, fastps.NamesError),
        ({"a/b": adding(), "a": {"b": adding()}}, fastps.NamesError),
        ({str(i): adding() for i in range(65)}, fastps.OptionError),
        ([adding()], fastps.DtypeError),
        ({"t": adding(), "w": np.zeros(0)}, fastps.ShapeError),
        (adding(capacity=2**50), fastps.ArenaMemoryError),
        (adding(1, capacity=2, init=np.ones((3, 1))), fastps.TableFullError),
    ],
    ids=[
        "a name that is a number", "a nested one", "one name twice", "65 tables", "a list of tables", "an empty array",
        "more memory than there is", "more rows than the capacity",
    ],
)  # fmt: skip
def test_parameters_that_cannot_be_are_refused_and_nothing_is_left(params, error):
    before = own_arenas()
    refuse(params, error)
    gc.collect()  # what the frames of the error refer to
    assert set(own_arenas()) <= set(before)
    with pytest.raises(fastps.ServerNotFoundError):
        fastps.get("refused")


@pytest.mark.usefixtures("cluster3")
def test_a_rule_for_rows_is_refused_for_arrays():
    with pytest.raises(fastps.OptionError, match="Table"):
        fastps.ParameterServer(np.zeros(3), rule=fastps.RowAdagrad()).close()

"""What a table is, before there is a server: its arguments, and what a handle will know of it."""

import pickle

import numpy as np
import pytest

import fastps
from fastps._core import shards_of
from fastps.errors import FastPSError, OptionError, ShapeError
from fastps.init import UNIFORM, Array, Constant, Glorot, Uniform
from fastps.spec.table import MAX_DIM, MAX_ROWS, Life, TableInfo, capacity_of_shard, infos_of, with_sightings
from tests.support.row_rules import drifting


def test_a_table_without_options_is_float32_with_the_rule_of_the_server_and_small_random_rows():
    table = fastps.Table(16)
    assert (table.dim, table.dtype, table.keys, table.capacity, table.seed) == (16, "float32", "int64", None, 0)
    assert table.rule is None
    assert table.with_rule(fastps.Add()).rule == fastps.Add()
    assert table.rule is None
    kind, low, high = table.init.numbers(16)
    assert kind == UNIFORM
    assert (low, high) == pytest.approx((-(3**0.5) / 4, 3**0.5 / 4))  # of standard deviation 1 / sqrt(16)


def test_options_come_out_as_they_went_in():
    table = fastps.Table(
        3, rule=fastps.Adam(0.1), init=Uniform(-1, 1), dtype="float64", keys="bytes", capacity=7, seed=2**64 - 1
    )
    assert (table.dim, table.dtype, table.keys, table.capacity, table.seed) == (3, "float64", "bytes", 7, 2**64 - 1)
    assert table.rule == fastps.Adam(0.1)
    assert table.init == Uniform(-1, 1)


@pytest.mark.parametrize("dtype", [np.float64, "float64", np.dtype("f8"), float, "f8", "double"], ids=str)
def test_a_dtype_may_be_given_as_numpy_takes_it(dtype):
    assert fastps.Table(1, dtype=dtype).dtype == "float64"


def test_numbers_may_be_those_of_numpy():
    table = fastps.Table(np.int64(3), capacity=np.uint8(9), seed=np.uint64(2**63), init=np.float32(0.5))
    assert (table.dim, table.capacity, table.seed, table.init) == (3, 9, 2**63, Constant(0.5))
    assert fastps.Table(MAX_DIM, capacity=1).dim == MAX_DIM


def test_a_rule_whose_hyper_parameters_all_have_defaults_may_come_without_them():
    assert fastps.Table(1, rule=fastps.Adam).rule == fastps.Adam()


def test_an_array_as_init_is_an_initializer_of_these_rows():
    rows = np.ones((4, 3))
    table = fastps.Table(3, init=rows)
    assert isinstance(table.init, Array)
    assert table.init.values is rows
    assert table.init.keys is None


WRONG = {
    "a dim of 0": {"dim": 0},
    "a negative dim": {"dim": -1},
    "a dim that is too large": {"dim": MAX_DIM + 1},
    "a dim that is no whole number": {"dim": 2.0},
    "a dim that is a bool": {"dim": True},
    "a dim that is text": {"dim": "2"},
    "no dim": {"dim": None},
    "a shape as dim": {"dim": (2,)},
    "a capacity of 0": {"capacity": 0},
    "a negative capacity": {"capacity": -5},
    "a capacity that is no whole number": {"capacity": 10.0},
    "a capacity that is a bool": {"capacity": True},
    "a capacity beyond all numbers": {"capacity": 2**70},
    "a negative seed": {"seed": -1},
    "a seed of more than 64 bits": {"seed": 2**64},
    "a seed that is no whole number": {"seed": 0.5},
    "no seed": {"seed": None},
    "float16": {"dtype": "float16"},
    "no dtype": {"dtype": None},
    "whole numbers as dtype": {"dtype": np.int64},
    "no dtype that there is": {"dtype": "float31"},
    "an object as dtype": {"dtype": object()},
    "an unknown kind of keys": {"keys": "str"},
    "int32 keys": {"keys": "int32"},
    "a type as kind of keys": {"keys": int},
    "no kind of keys": {"keys": None},
    "a rule by its name": {"rule": "sgd"},
    "a class of something else": {"rule": int},
    "rules by pattern": {"rule": {"*": fastps.SGD(0.1)}},
    "a rule that wants what the worker had": {"rule": fastps.DCASGD(0.1)},
    "an initializer by its name": {"init": "normal"},
    "an unknown initializer": {"init": object()},
    "the class of an initializer": {"init": Constant},
    "NaN as init": {"init": float("nan")},
    "infinity as init": {"init": np.inf},
    "numpy's NaN as init": {"init": np.float32("nan")},
    "a bool as init": {"init": True},
    "a complex number as init": {"init": 1j},
    "a list of rows as init": {"init": [[1.0, 2.0]]},
    "one row as init": {"init": np.ones(2)},
    "an array of three dimensions as init": {"init": np.ones((1, 2, 2))},
    "a function as init": {"init": lambda key: 0.0},
}


@pytest.mark.parametrize("options", WRONG.values(), ids=WRONG)
def test_arguments_that_cannot_be_raise_option_error_that_says_which(options):
    with pytest.raises(OptionError) as caught:
        fastps.Table(**{"dim": 2, **options})
    assert isinstance(caught.value, ValueError)
    assert next(iter(options)) in str(caught.value).lower() or "expected a finite value" in str(caught.value)


def test_a_rule_without_what_it_needs_raises_option_error_that_names_the_rule():
    with pytest.raises(OptionError, match="FTRL"):
        fastps.Table(2, rule=fastps.FTRL)


@pytest.mark.parametrize("rows", [np.ones((4, 2)), np.ones((4, 4)), np.ones((0, 2)), Array(np.ones((1, 1)))], ids=repr)
def test_rows_of_another_length_raise_shape_error(rows):
    with pytest.raises(ShapeError, match=r"expected values\[n, 3\]"):
        fastps.Table(3, init=rows)


def test_an_argument_that_there_is_not_raises_type_error():
    with pytest.raises(TypeError):
        fastps.Table(3, width=2)
    with pytest.raises(TypeError):
        fastps.Table()


def test_what_repr_says():
    text = repr(fastps.Table(3, rule=fastps.SGD(0.5), keys="bytes", init=2))
    for word in ("3", "SGD(0.5)", "Constant(value=2.0)", "float32", "bytes"):
        assert word in text


def test_a_table_survives_pickling():
    table = fastps.Table(3, rule=fastps.Adam(0.1), init=Glorot(10), keys="bytes", capacity=5, seed=4)
    again = pickle.loads(pickle.dumps(table))
    assert vars(again) == vars(table)


def test_what_a_handle_knows_of_a_table():
    table = fastps.Table(5, rule=drifting(0.5), init=Uniform(-1, 3), dtype="float64", keys="uint64", seed=9)
    info = TableInfo.of(("users", "weights"), table, 4)
    assert info.name == "users/weights"
    assert (info.dim, info.dtype, info.item_bytes, info.keys, info.seed) == (5, "float64", 8, "uint64", 9)
    assert info.streams == [("row", 5), ("drift", 5), ("seen", 1)]
    assert info.capacity is None
    assert info.rule.hyper == ("lr", "cap")
    assert "0.5" in info.rule.label
    assert str(info) == "Table(5, float64, uint64)"
    assert (info.empty(3).shape, info.empty(3).dtype) == ((3, 5), np.float64)
    assert info.empty(3, 2).shape == (3, 1)
    assert pickle.loads(pickle.dumps(info)) == info
    assert TableInfo.of((), table, 4).name == "table"


def test_streams_are_in_the_order_in_which_the_rule_takes_its_slots():
    info = TableInfo.of((), fastps.Table(2, rule=fastps.RowAdagrad(initial_accumulator_value=0.25)), 1)
    assert info.streams == [("row", 2), ("sum", 1)]
    assert info.rule.initial == (0.25,)
    assert TableInfo.of((), fastps.Table(2, rule=fastps.Adam()), 1).streams == [("row", 2), ("m", 2), ("v", 2)]
    assert TableInfo.of((), fastps.Table(2, rule=fastps.Add()), 1).streams == [("row", 2)]


@pytest.mark.parametrize("capacity", [1, 2, 1000, MAX_ROWS])
def test_one_shard_has_room_for_the_capacity_exactly(capacity):
    assert capacity_of_shard(capacity, 1) == capacity
    assert TableInfo.of((), fastps.Table(1, rule=fastps.Add(), capacity=capacity), 1).capacity == capacity


def test_no_shard_has_more_rows_than_there_can_be():
    assert capacity_of_shard(2**62, 1) == MAX_ROWS
    assert capacity_of_shard(2**62, 3) == MAX_ROWS
    assert capacity_of_shard(2**33, 4) == MAX_ROWS


@pytest.mark.parametrize("num_shards", [2, 3, 8, 100])
@pytest.mark.parametrize("capacity", [1, 7, 1000, 10**6, 10**9])
def test_shards_have_room_for_their_part_and_six_standard_deviations(capacity, num_shards):
    found, part = capacity_of_shard(capacity, num_shards), capacity / num_shards
    assert found >= part + 6 * np.sqrt(part) - 1e-6
    assert found <= part + 6 * np.sqrt(part) + 1
    assert isinstance(found, int)


@pytest.mark.parametrize("num_shards", [2, 3, 8])
def test_as_many_keys_as_the_capacity_fit_however_they_fall(num_shards, rng):
    for capacity in (10, 100, 1000, 10_000):
        most = capacity_of_shard(capacity, num_shards)
        for _ in range(20):
            keys = rng.choice(2**62, capacity, replace=False).astype(np.uint64)
            assert np.bincount(shards_of(keys, num_shards)).max() <= most


@pytest.mark.parametrize(
    "wrong",
    [
        {"ttl": 0}, {"ttl": -1.0}, {"ttl": float("nan")}, {"ttl": "soon"}, {"ttl": True}, {"admit": 0}, {"admit": 1.5},
        {"evict": "fifo", "capacity": 5}, {"evict": "lru"}, {"on_evict": print}, {"ttl": 1, "on_evict": 5},
        {"ttl": 1, "init": np.zeros((2, 3))}, {"capacity": 5, "max_bytes": 5}, {"max_bytes": 0},
    ],
    ids=str,
)  # fmt: skip
def test_settings_of_admission_and_eviction_that_cannot_be_are_refused(wrong):
    with pytest.raises(fastps.OptionError, match="Table"):
        fastps.Table(3, **wrong)


def test_rows_that_may_be_evicted_are_tracked_and_others_are_not():
    for table, tracked in (
        (fastps.Table(2, rule=fastps.Add()), False),
        (fastps.Table(2, rule=fastps.Add(), track=True), True),
        (fastps.Table(2, rule=fastps.Add(), ttl=1), True),
    ):
        assert TableInfo.of(("t",), table, 1).tracked == tracked
    assert not Life().ends


def test_a_budget_of_bytes_is_turned_into_one_of_rows():
    for budget, rows in ((1_000_000, 1_000_000 // (16 + 256 + 14)), (1, 1)):
        table = fastps.Table(64, rule=fastps.Add(), max_bytes=budget)
        assert TableInfo.of(("t",), table, 1).capacity == rows


def test_a_table_that_admits_late_has_a_table_of_sightings_behind_it():
    late, plain = fastps.Table(2, rule=fastps.Add(), admit=3), fastps.Table(2, rule=fastps.Add())
    infos = infos_of(with_sightings({("a",): late, ("b",): plain}), 1)
    assert [info.name for info in infos] == ["a", "b", "a/(sightings)"]
    assert [info.sightings for info in infos] == [2, None, None]
    assert [info.counts_for for info in infos] == [None, None, "a"]


def test_a_table_full_error_keeps_what_it_says_through_pickling():
    error = fastps.TableFullError("table `t`: it is full", "t", 12, shard=1, applied=(0, 2))
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is fastps.TableFullError
    assert vars(again) == {"table": "t", "capacity": 12, "shard": 1, "applied": (0, 2), "resume": None}
    assert str(again) == "table `t`: it is full"
    assert isinstance(again, MemoryError)
    assert isinstance(again, FastPSError)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_keys_error_survives_pickling(protocol):
    again = pickle.loads(pickle.dumps(fastps.KeysError("pull `t` keys: -1"), protocol))
    assert type(again) is fastps.KeysError
    assert str(again) == "pull `t` keys: -1"

"""The arguments of a server, checked without one."""

from __future__ import annotations

import dataclasses
import inspect

import numpy as np
import pytest

import fastps
from fastps.deadline import seconds
from fastps.init import Array
from fastps.server.options import MAX_SESSIONS, MAX_WORKERS, plan_server
from fastps.spec.partition import partition
from fastps.spec.placement import PlacementRequest
from fastps.spec.table import MAX_TABLES, SIGHTINGS

DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(fastps.ParameterServer).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
}


def planned(params, **options):
    return plan_server(params, **{**DEFAULTS, **options})


def test_the_defaults_plan_one_shard_that_adds_for_workers_that_never_wait():
    params = np.ones((2, 3), np.float32)
    plan = planned(params)
    assert np.shares_memory(plan.arrays[0], params)
    assert plan.shards == partition(plan.structure, 1)
    assert [repr(rule) for rule in plan.assignment.rules] == ["Add()"]
    assert (plan.tables, plan.first_rows) == ((), ())
    assert plan.consistency == fastps.Async()
    assert plan.isolated
    assert plan.placement == PlacementRequest()
    assert plan.name is None


def test_options_are_in_the_plan_as_plain_python_numbers():
    plan = planned(
        np.zeros(10), num_shards=np.int8(2), timeout=np.float32(30), max_sessions=np.uint16(3), max_workers=np.int64(4),
        isolation="none", name="mine", placement=["a", "b"], consistency=fastps.SSP(2), clip_norm=1, nonfinite="skip",
    )  # fmt: skip
    assert len(plan.shards) == 2
    assert [plan.timeout, plan.max_sessions, plan.max_workers] == [30.0, 3, 4]
    assert {type(plan.timeout), type(plan.max_sessions), type(plan.max_workers)} == {float, int}
    assert not plan.isolated
    assert plan.name == "mine"
    assert plan.placement.shards == ("a", "b")
    assert plan.consistency == fastps.SSP(2)
    assert (plan.gradients.clip_norm, plan.gradients.nonfinite) == (1.0, "skip")


def test_a_server_may_wait_without_a_limit_as_its_operations_may():
    assert planned(np.zeros(3), timeout=np.inf).timeout == seconds(np.inf) == np.inf


def test_a_plan_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        planned(np.zeros(3)).name = "other"


@pytest.mark.parametrize("length", [5, np.int32(5), np.prod((1, 5))])
def test_an_int_is_that_many_float64_zeros_that_nobody_has_to_write(length):
    plan = planned(length)
    assert str(plan.structure) == "float64[5]"
    assert plan.arrays is None


def test_arrays_and_tables_of_nested_mappings_are_told_apart():
    params = {"a": {"w": np.zeros(3), "t": fastps.Table(4)}, "only": {"t": fastps.Table(2, admit=3)}, "b": np.zeros(2)}
    plan = planned(params, num_shards=7)
    assert [leaf.name for leaf in plan.structure.leaves] == ["a/w", "b"]
    assert [table.info.name for table in plan.tables] == ["a/t", "only/t", f"only/t/{SIGHTINGS}"]
    assert [table.info.sightings for table in plan.tables] == [None, 2, None]


def test_a_table_alone_may_have_more_shards_than_a_server_has_elements():
    plan = planned(fastps.Table(4), num_shards=3)
    assert plan.arrays is None
    assert [table.info.name for table in plan.tables] == ["table"]
    assert [shard.params_bytes for shard in plan.shards] == [0, 0, 0]


def test_each_array_and_table_gets_the_rule_of_its_pattern_and_keeps_its_own():
    params = {"w": np.zeros(3), "b": np.zeros(2), "t": fastps.Table(4), "own": fastps.Table(4, rule=fastps.SGD(1.0))}
    plan = planned(params, rule={"b": fastps.Adam(), "t": fastps.RowAdagrad(0.5), "*": fastps.SGD(0.1)})
    assert plan.assignment.patterns == ("b", "*")
    assert plan.assignment.of_leaf == (1, 0)
    assert [repr(table.rule) for table in plan.tables] == ["RowAdagrad(0.5)", "SGD(1.0)"]
    assert [table.info.rule.label for table in plan.tables] == [repr(table.rule) for table in plan.tables]
    assert params["t"].rule is None  # the user's table may be used again


def test_first_rows_are_keys_and_values_as_the_core_takes_them():
    words = Array(np.ones((2, 3), np.float64), keys=["a", "b"])
    plan = planned({"none": fastps.Table(3), "t": fastps.Table(3, init=np.eye(3)), "w": fastps.Table(3, init=words,
                    keys="bytes")})  # fmt: skip
    one, two = plan.first_rows
    assert (one.table, two.table) == (1, 2)
    (one,), (two,) = one.batches, two.batches
    assert one.keys.tolist() == [0, 1, 2]
    assert {one.keys.dtype, two.keys.dtype} == {np.dtype(np.uint64)}
    assert {one.streams[0].dtype, two.streams[0].dtype} == {np.dtype(np.float32)}
    assert two.streams[0].flags.c_contiguous
    assert two.streams[0].tolist() == [[1] * 3] * 2


@pytest.mark.parametrize(
    ("keys", "kind", "error"),
    [
        (None, "bytes", fastps.DtypeError),
        (["a", "b"], "int64", fastps.DtypeError),
        ([-1, 1], "uint64", fastps.KeysError),
        ([[1], [2]], "int64", fastps.ParameterError),
    ],
)
def test_first_rows_whose_keys_do_not_suit_the_table_raise_before_anything_is_created(keys, kind, error):
    with pytest.raises(error, match="set `t` keys: expected"):
        planned({"t": fastps.Table(3, keys=kind, init=Array(np.ones((2, 3)), keys=keys))})


def test_first_rows_need_a_key_each_whatever_their_length_says():
    class Fewer(list):
        def __len__(self):
            return 2

        def __iter__(self):
            yield "a"

    with pytest.raises(fastps.OptionError, match="a key for each of 2 rows, got 1"):
        planned(fastps.Table(3, keys="bytes", init=Array(np.ones((2, 3)), keys=Fewer())))


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("num_shards", 0, fastps.OptionError),
        ("num_shards", 11, fastps.OptionError),
        ("num_shards", 1.5, fastps.OptionError),
        ("num_shards", None, fastps.OptionError),
        ("rule", "add", fastps.OptionError),
        ("rule", fastps.SGD, fastps.OptionError),
        ("rule", {}, fastps.RuleError),
        ("rule", {"a*": fastps.Add()}, fastps.RuleError),
        ("rule", {3: fastps.Add()}, fastps.RuleError),
        ("consistency", "bsp", fastps.OptionError),
        ("consistency", fastps.BSP, fastps.OptionError),
        ("isolation", "maybe", fastps.OptionError),
        ("isolation", None, fastps.OptionError),
        ("isolation", np.zeros(2), fastps.OptionError),
        ("clip_norm", 0, fastps.OptionError),
        ("clip_norm", "small", fastps.OptionError),
        ("clip_value", -1.0, fastps.OptionError),
        ("clip_value", float("nan"), fastps.OptionError),
        ("nonfinite", "ignore", fastps.OptionError),
        ("nonfinite", None, fastps.OptionError),
        ("placement", "ANYWHERE", fastps.PlacementError),
        ("placement", [], fastps.PlacementError),
        ("placement", ["a", "b"], fastps.PlacementError),
        ("placement", {"cpus": 1}, fastps.PlacementError),
        ("placement", {"num_cpus": "many"}, fastps.PlacementError),
        ("placement", [3], fastps.PlacementError),
        ("placement", 3, fastps.PlacementError),
        ("name", "", fastps.OptionError),
        ("name", 3, fastps.OptionError),
        ("name", b"mine", fastps.OptionError),
        ("timeout", 0, fastps.OptionError),
        ("timeout", -1.0, fastps.OptionError),
        ("timeout", float("nan"), fastps.OptionError),
        ("timeout", float("-inf"), fastps.OptionError),
        ("timeout", None, fastps.OptionError),
        ("timeout", "soon", fastps.OptionError),
        ("max_sessions", 0, fastps.OptionError),
        ("max_sessions", MAX_SESSIONS + 1, fastps.OptionError),
        ("max_sessions", None, fastps.OptionError),
        ("max_workers", 0, fastps.OptionError),
        ("max_workers", MAX_WORKERS + 1, fastps.OptionError),
        ("max_workers", "many", fastps.OptionError),
    ],
)
def test_an_argument_that_does_not_suit_raises_an_error_that_names_it(name, value, error):
    with pytest.raises(error) as caught:
        planned(np.zeros(10), **{name: value})
    assert str(caught.value).startswith((f"{name}:", f"{name} of"))


@pytest.mark.parametrize("params", [0, -3, np.zeros(0), {}, {"a": {}}, {"a": np.zeros((2, 0))}], ids=repr)
def test_empty_parameters_raise_shape_error(params):
    with pytest.raises(fastps.ShapeError):
        planned(params)


@pytest.mark.parametrize("params", [True, None, "w", [1, 2], object, {"a": 3}], ids=str)
def test_what_are_no_parameters_raises_a_parameter_error(params):
    with pytest.raises(fastps.ParameterError):
        planned(params)


@pytest.mark.parametrize("length", [1 << 44, 10**30])
def test_a_shard_larger_than_any_arena_raises_a_memory_error(length):
    said = r"[\d.e+]+ TiB in one shard, of which an arena holds at most 32 TiB; use more shards \(num_shards=\)$"
    with pytest.raises(fastps.ArenaMemoryError, match=said):
        planned(length)


@pytest.mark.parametrize(
    ("rules", "error", "words"),
    [
        (fastps.DCASGD(0.1), fastps.OptionError, ["table `t`", "rule of its own"]),
        ({"w": fastps.Add()}, fastps.RuleError, ["`t`", "no pattern"]),
        ({"*": fastps.Add(), "t": fastps.Add()}, fastps.RuleError, ["'t' fits none"]),
        (fastps.RowAdagrad(), fastps.OptionError, ["RowAdagrad", "row as a whole"]),
        ({"w": fastps.Adam(), "x*": fastps.Add(), "*": fastps.Add()}, fastps.RuleError, ["'x*' fits none"]),
    ],
)
def test_a_rule_that_does_not_suit_is_refused(rules, error, words):
    with pytest.raises(error) as caught:
        planned({"w": np.zeros(3), "t": fastps.Table(4)}, rule=rules)
    assert all(word in str(caught.value) for word in words)


def plain(p, g):
    return p - g


@pytest.mark.parametrize(
    ("rule", "hint"),
    [
        (fastps.SGD, "got the function SGD; call it: fastps.SGD(lr)"),
        (fastps.RMSprop, "got the function RMSprop; call it: fastps.RMSprop("),
        (plain, "got the function plain; make a rule of it with @fastps.rule"),
        ("sgd", "got str 'sgd'"),
    ],
    ids=["SGD", "RMSprop", "plain", "str"],
)
def test_what_is_not_yet_a_rule_is_told_how_it_becomes_one(rule, hint):
    for make in (lambda: planned(np.zeros(3), rule=rule), lambda: fastps.Table(4, rule=rule)):
        with pytest.raises(fastps.OptionError, match="expected a fastps rule") as caught:
            make()
        assert hint in str(caught.value)


@pytest.mark.parametrize("policy", [fastps.BSP(), fastps.LocalSGD(2)], ids=str)
def test_rounds_refuse_rules_for_stale_gradients_and_a_relaxed_isolation(policy):
    with pytest.raises(fastps.OptionError, match=r"rule: .*stale gradients"):
        planned(np.zeros(3), rule=fastps.DCASGD(0.1), consistency=policy)
    with pytest.raises(fastps.OptionError, match=r"isolation: .*omit it"):
        planned(np.zeros(3), isolation="none", consistency=policy)


@pytest.mark.parametrize("policy", [fastps.SSP(1), fastps.BSP(), fastps.LocalSGD(2)], ids=str)
def test_tables_are_refused_unless_nobody_waits(policy):
    with pytest.raises(fastps.OptionError, match="consistency: tables"):
        planned({"w": np.zeros(3), "t": fastps.Table(4)}, consistency=policy)


def test_there_is_room_for_the_workers_that_a_policy_expects():
    with pytest.raises(fastps.OptionError, match="max_workers: expected a whole number from 5 to 256, got 4"):
        planned(np.zeros(3), consistency=fastps.SSP(1, workers=5), max_workers=4)


def test_two_things_of_one_name_are_refused():
    with pytest.raises(fastps.NamesError, match="both called `a/b`"):
        planned({"a/b": np.zeros(3), "a": {"b": fastps.Table(4)}})
    with pytest.raises(fastps.NamesError, match="both called `a/b`"):
        planned({"a/b": np.zeros(3), "a": {"b": np.zeros(3)}})


@pytest.mark.parametrize("params", [{"": fastps.Table(4)}, {"a": {"": fastps.Table(4), "b": np.zeros(3)}}])
def test_a_table_without_a_name_in_a_mapping_is_refused(params):
    with pytest.raises(fastps.NamesError, match="non-empty"):
        planned(params)


def test_the_name_of_counts_is_not_for_tables():
    with pytest.raises(fastps.NamesError, match="rename it"):
        planned({"a": {SIGHTINGS: fastps.Table(4)}})


def test_tables_of_counts_are_among_those_that_there_may_be():
    most = {f"t{i}": fastps.Table(1) for i in range(MAX_TABLES)}
    assert len(planned(most).tables) == MAX_TABLES
    with pytest.raises(fastps.OptionError, match=f"at most {MAX_TABLES} tables.*got {MAX_TABLES + 1}"):
        planned({**most, "t0": fastps.Table(1, admit=2)})


def test_the_spec_of_a_server_is_what_was_planned():
    params = {"w": np.zeros(3), "t": fastps.Table(4)}
    plan = planned(params, rule=fastps.SGD(0.1), num_shards=2, name="mine", timeout=7, nonfinite="raise")
    spec = plan.spec("id", (), (), ("mine", "other"))
    assert (spec.server_id, spec.actors, spec.name, spec.timeout) == ("id", ("mine", "other"), "mine", 7.0)
    assert (spec.structure, spec.plans, spec.gradients) == (plan.structure, plan.shards, plan.gradients)
    assert list(spec.names) == ["w", "t"]
    assert [info.label for info in spec.rules] == ["SGD(0.1)"]

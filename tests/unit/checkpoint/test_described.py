"""A server as JSON, and back."""

import contextlib
import dataclasses
import json
import math
from collections import OrderedDict, namedtuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastps
from fastps import consistency, rules, schedules
from fastps.checkpoint import described
from fastps.checkpoint.described import (
    consistency_from,
    consistency_to,
    gradients_from,
    hyper_from,
    require_same_rules,
    rule_to,
    rules_from,
)
from fastps.checkpoint.structures import classes_of, names_of, structure_from, structure_to
from fastps.errors import CheckpointError, FastPSError, RuleError
from fastps.rules.assignment import assign
from fastps.spec.gradients import gradient_policy
from fastps.spec.initial import structure_of
from fastps.spec.rule import RuleInfo

Pair = namedtuple("Pair", "one other")


@dataclasses.dataclass
class Layer:
    w: object
    b: object
    kind: str = "plain"


def through_json(value):
    return json.loads(json.dumps(value, allow_nan=False))


WEIGHT = np.arange(6, dtype=np.float32)
STRUCTURES = [
    np.zeros(3),
    {"a": np.zeros((2, 3)), "b": [np.zeros(1), (np.ones(2), np.array(1.0))]},
    OrderedDict(x=WEIGHT, y=WEIGHT, z={"deep": WEIGHT}),
    [Pair(np.zeros(1), None), Layer(np.zeros(2), np.ones(1)), Layer(np.zeros(2), np.ones(1), "other")],
    {"w": np.zeros(2), "n": 3, "t": True, "s": "text", "b": b"\0\xff", "c": 1 - 2j, "none": None, "empty": {}},
    {"w": np.zeros(2), "i": np.arange(3), "u": np.zeros(2, np.uint16), "mask": np.array([True]), "z": np.zeros((0, 4))},
    {"w": np.zeros(2), "text": np.array(["ab", "c"]), "pair": np.zeros(2, [("x", "<i4"), ("y", "<f8", (2,))])},
]


@pytest.mark.parametrize("params", STRUCTURES, ids=range(len(STRUCTURES)))
def test_a_structure_comes_back(params):
    structure, _ = structure_of(params)
    assert structure_from(through_json(structure_to(structure))) == structure


def test_half_precision_comes_back():
    dtypes = pytest.importorskip("ml_dtypes")
    structure, _ = structure_of({"a": np.zeros(2, dtypes.bfloat16), "b": np.zeros(2, np.float16)})
    assert structure_from(through_json(structure_to(structure))) == structure


def test_a_class_that_is_not_there_is_an_error_that_names_it():
    written = structure_to(structure_of(Layer(np.zeros(2), np.ones(1)))[0])
    for name in (["no.such.module", "Layer"], [__name__, "NoSuch"], ["os", "system"], ["builtins", "int"]):
        written["tree"]["made_by"] = name
        with pytest.raises(CheckpointError, match=r"import|class|know"):
            structure_from(written)


def test_a_class_that_is_not_there_can_be_a_dict():
    structure = structure_of(STRUCTURES[3])[0]
    written = through_json(structure_to(structure))
    assert structure_from(written, True) == structure
    assert classes_of(written) == [f"{__name__}.Layer", f"{__name__}.Pair"]
    for child in written["tree"]["children"]:
        child["made_by"] = ["no.such.module", "Layer"]
    found = structure_from(written, True)
    assert [child.made_by for child in found.tree.children] == [dict] * 3
    assert list(found.tree.paths()) == list(structure.tree.paths())
    assert classes_of(written) == ["no.such.module.Layer"]


@pytest.mark.parametrize("child", [True, 0.0, "0", [], -1, 9])
def test_what_is_in_a_container_is_an_array_or_a_container(child):
    written = structure_to(structure_of([np.zeros(2), np.ones(1)])[0])
    written["tree"]["children"][1] = child
    with pytest.raises(CheckpointError, match="arrays that are not there"):
        structure_from(written)


def test_an_array_that_comes_twice_has_both_names():
    weight = np.zeros(2)
    assert names_of(structure_of({"a": [weight], "b": weight, "n": 3, "c": np.zeros(1)})[0]) == [("a/0", "b"), ("c",)]
    assert names_of(structure_of(weight)[0]) == [("params",)]


def family(name):
    found = getattr(rules, name)
    return found if name not in ("Rule", "RuleFamily", "rule") else None


def library():
    """Each rule of the library, with numbers and with schedules."""
    found = []
    for name in rules.__all__:
        if family(name) is None:
            continue
        for value in (0.125, schedules.warmup(schedules.cosine(0.5, steps=9, floor=0.1), steps=4)):
            try:
                found.append(family(name)(value))
            except FastPSError:  # it has no hyper-parameters
                found.append(family(name)())
    return [*found, fastps.SGD(0.1, momentum=0.5, nesterov=True), fastps.RMSprop(0.1, centered=True, momentum=0.5)]


@pytest.mark.parametrize("rule", library(), ids=repr)
def test_a_rule_of_the_library_comes_back(rule):
    info = RuleInfo.of("*", rule)
    values = [math.nan if isinstance(value, schedules.Schedule) else float(value) for value in rule.values]
    written = through_json([rule_to(info, values)])
    (found,) = rules_from(written).values()
    assert repr(found) == repr(rule)
    assert found.family == rule.family
    named = {name: value for name, value in zip(rule.hyper, values, strict=True) if not math.isnan(value)}
    assert hyper_from(written) == {"*": named}
    if not rule.family.for_rows:
        require_same_rules(written, assign(found, ["a"], [])[0])


def test_every_schedule_of_the_library_is_known():
    made = [name for name, value in vars(schedules).items() if getattr(value, "__module__", "") == schedules.__name__]
    assert sorted([*described.SCHEDULES, "Schedule"]) == sorted(made)


@fastps.rule
def halving(p, g, *, lr=0.5):
    return p - lr * g


def test_a_rule_of_the_user_must_be_passed_and_be_the_same():
    written = through_json([rule_to(RuleInfo.of("*", halving()), [0.5])])
    with pytest.raises(RuleError, match="pass rule="):
        rules_from(written)
    require_same_rules(written, assign(halving(0.25), ["a"], [])[0])

    @fastps.rule
    def other(p, g, *, lr=0.5):
        return p + lr * g

    for rule in (other(), fastps.Adam(0.5), {"a": halving(), "*": halving()}):
        with pytest.raises(RuleError):
            require_same_rules(written, assign(rule, ["a", "b"], [])[0])


def test_a_schedule_of_the_user_must_be_passed():
    info = RuleInfo.of("*", fastps.SGD(lambda version: 1.0))
    written = [rule_to(info, [math.nan] * len(info.hyper))]
    with pytest.raises(RuleError, match="pass rule="):
        rules_from(written)


@pytest.mark.parametrize(
    "label",
    ["__import__('os').system('true')", "Adam(*[1])", "Adam(**{'lr': 1})", "Rule(1, 2)", "rule(print)", "Adam", "1", "",
     "Adam(lr=open('x'))", "cosine(1.0, steps=2)", "Adam(" * 99, "Adam(0.1).family", "Schedule(print)"],
)  # fmt: skip
def test_text_that_is_no_rule_is_not_called(label):
    with pytest.raises(FastPSError):
        rules_from([{"pattern": "*", "rule": label, "source": None, "slots": [], "hyper": {}}])


POLICIES = [
    fastps.Async(workers=3), fastps.SSP(4, straggler_timeout=2.0), fastps.BSP(reduce="sum", backup=1, workers=4),
    fastps.LocalSGD(7), fastps.BSP(workers=2, deterministic=True),
]  # fmt: skip


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_a_policy_comes_back(policy):
    assert consistency_from(through_json(consistency_to(policy))) == policy


def test_every_policy_is_tested():
    known = {
        cls
        for cls in vars(consistency).values()
        if isinstance(cls, type) and issubclass(cls, consistency.Consistency) and cls is not consistency.Consistency
    }
    assert {type(policy) for policy in POLICIES} == known


@pytest.mark.parametrize("policy", [gradient_policy("skip", 1.5, None), gradient_policy("apply", None, 0.5)], ids=repr)
def test_the_treatment_of_gradients_comes_back(policy):
    written = {name: described._finite(value) for name, value in dataclasses.asdict(policy).items()}
    assert gradients_from(through_json(written)) == policy


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["leaves", "tree", "constants", "path", "shape", "stored", "dtype", "made_by", "names",
                         "children", "pattern", "rule", "source", "slots", "hyper", "policy", "clip_norm"]),
        inner, max_size=5,
    ),
    max_leaves=20,
)  # fmt: skip


@given(JSON)
def test_anything_else_is_a_typed_error(value):
    for read in (structure_from, rules_from, hyper_from, consistency_from, gradients_from):
        with contextlib.suppress(FastPSError):
            read(value)


@given(st.data())
def test_a_description_with_anything_in_the_place_of_a_part_is_a_typed_error_or_a_structure(data):
    structure, _ = structure_of(STRUCTURES[3])
    written = through_json(structure_to(structure))
    places = []

    def walk(value):
        for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            places.append((value, key))
            walk(value[key])

    walk(written)
    container, key = data.draw(st.sampled_from(range(len(places))).map(places.__getitem__))
    container[key] = data.draw(JSON)
    with contextlib.suppress(FastPSError):
        structure_from(written)

"""Containers of parameters."""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastps.errors import DtypeError, NamesError, OutputError, ShapeError
from fastps.spec.initial import structure_of
from fastps.spec.tree import leaves_by_path, taken_apart


class Pair(NamedTuple):
    first: Any
    second: Any


@dataclass(frozen=True)
class Layer:
    weight: Any
    bias: Any = None


NAMES = st.text("abc", min_size=1, max_size=2)
TREES = st.recursive(
    st.integers(0, 9).map(lambda n: np.full(2, float(n))),
    lambda inner: st.one_of(
        st.dictionaries(NAMES, inner, min_size=1, max_size=3),
        st.dictionaries(NAMES, inner, min_size=1, max_size=3).map(OrderedDict),
        st.lists(inner, min_size=1, max_size=3),
        st.lists(inner, min_size=1, max_size=3).map(tuple),
        st.tuples(inner, inner).map(lambda two: Pair(*two)),
        st.tuples(inner, inner).map(lambda two: Layer(*two)),
    ),
    max_leaves=8,
)


def same(a, b):
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[name], b[name]) for name in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return same([a.weight, a.bias], [b.weight, b.bias])


@given(TREES)
def test_what_is_taken_apart_is_put_together_again(value):
    tree, leaves = taken_apart(value, "create")
    values = [leaf for _, leaf in leaves]
    again = values[0] if isinstance(tree, int) else tree.build(values)
    assert same(again, value)
    assert leaves_by_path(value, "push") == dict(leaves)
    if not isinstance(tree, int):
        assert [path for path, _ in tree.paths()] == [path for path, _ in leaves]
        assert same(pickle.loads(pickle.dumps(tree)).build(values), value)


@given(TREES)
def test_a_structure_has_gradients_in_the_containers_of_the_parameters(value):
    structure, arrays = structure_of(value)
    assert same(structure.assemble(arrays), value)
    found = structure.grads(value, "push")
    assert all(np.array_equal(a, b) for a, b in zip(found, arrays, strict=True))


def test_other_mappings_come_out_as_a_dict():
    structure, arrays = structure_of(MappingProxyType({"a": np.zeros(2)}))
    assert type(structure.assemble(arrays)) is dict


def test_constants_and_arrays_that_no_rule_can_train_are_carried():
    params = {
        "w": np.ones(3), "count": np.array(7), "mask": np.array([True, False]), "none": np.zeros((0, 4), np.float32),
        "name": "x", "size": 5, "nothing": None, "flag": True, "words": np.array(["a", "bc"]),
    }  # fmt: skip
    structure, arrays = structure_of(params)
    assert [structure.leaves[i].name for i in structure.trained] == ["w"]
    assert [array.dtype.name for array in arrays] == ["float64", *["uint8"] * 4]
    outs = structure.empty()
    for out, array, leaf in zip(outs, arrays, structure.leaves, strict=True):
        out[...] = array.view(leaf.given).reshape(leaf.shape) if not leaf.trains else array
    found = structure.assemble(outs)
    assert list(found) == list(params)
    for name, value in params.items():
        assert np.array_equal(found[name], value), name
        assert type(found[name]) is type(value), name
    for grads in ({"w": np.ones(3)}, {**params, "count": None}, [np.ones(3)]):
        assert structure.grads(grads, "push")[0].tolist() == [1, 1, 1]
    with pytest.raises(NamesError, match=r"missing \['w'\]"):
        structure.grads({"count": np.array(7)}, "push")


def test_the_hint_of_an_output_for_what_is_carried_works():
    params = {"w": np.ones(3), "words": np.array(["a", "bc"]), "count": np.array(7)}
    structure, _ = structure_of(params)
    outs = {"w": np.ones(3), "words": np.zeros(2), "count": np.zeros(())}
    for name in ("words", "count"):
        with pytest.raises(DtypeError) as caught:
            structure.outs(outs, "pull")
        outs[name] = eval(re.search(r"pass (np\.empty\(.*\)), or", str(caught.value))[1], {"np": np})
    structure.outs(outs, "pull")


def test_the_same_memory_twice_is_one_leaf_and_comes_out_tied():
    weight = np.arange(6.0).reshape(2, 3)
    structure, arrays = structure_of({"embed": weight, "head": {"weight": weight, "bias": np.zeros(3)}})
    assert len(arrays) == len(structure.leaves) == 2
    found = structure.assemble(structure.empty())
    assert found["embed"] is found["head"]["weight"]
    one, two = np.ones((2, 3)), np.full((2, 3), 10.0)
    for embed, head, total in ((one, two, 11), (one, one, 1)):
        grads = {"embed": embed, "head": {"weight": head, "bias": np.zeros(3)}}
        assert (structure.grads(grads, "push")[0] == total).all()
    tied = {"embed": one, "head": {"weight": one, "bias": np.zeros(3)}}
    assert structure.outs(tied, "pull")[0] is one
    with pytest.raises(OutputError, match="comes twice"):
        structure.outs({"embed": one, "head": {"weight": two, "bias": np.zeros(3)}}, "pull")


def test_arrays_that_overlap_but_are_not_the_same_are_stored_apart():
    line = np.arange(6.0)
    structure, _ = structure_of({"a": line, "b": line[:3], "c": line.reshape(2, 3)})
    assert len(structure.leaves) == 3


def test_containers_of_nothing_are_refused():
    for params in ({"a": []}, [{}], ((), ()), []):
        with pytest.raises(ShapeError, match="at least one array, got an empty"):
            structure_of(params)


def test_what_is_missing_in_containers_is_named_by_its_path():
    structure, _ = structure_of([Layer(np.zeros(2), np.zeros(3)), Layer(np.zeros(2), np.zeros(3))])
    with pytest.raises(NamesError, match=r"missing \['1/bias'\]") as caught:
        structure.grads([Layer(np.zeros(2), np.zeros(3)), {"weight": np.zeros(2)}], "push")
    assert "unknown" not in str(caught.value)
    with pytest.raises(NamesError, match=r"missing \['1/weight', '1/bias'\]"):
        structure.grads([Layer(np.zeros(2), np.zeros(3))], "push")

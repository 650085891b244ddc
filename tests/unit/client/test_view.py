"""Views on arenas of this process."""

import gc

import numpy as np
import pyarrow as pa
import pytest

from fastps._core import Arena, Group
from fastps.client.view import View
from fastps.consistency import Async
from fastps.errors import ClosedError, NamesError, SplitError
from fastps.rules import Add
from fastps.rules.assignment import assign
from fastps.spec.gradients import GradientPolicy
from fastps.spec.initial import structure_of
from fastps.spec.partition import partition
from fastps.spec.rule import infos
from fastps.spec.server import ServerSpec
from fastps.transport.arenas import require_alive
from tests.support.leftovers import own_arenas


def rules_of(structure):
    """What a server with the rule Add has in its spec."""
    assignment, _ = assign(Add(), [leaf.name for leaf in structure.leaves], [])
    return infos(assignment), assignment.of_leaf


def view_of(params, num_shards=1):
    """A view on new arenas that hold `params`."""
    structure, arrays = structure_of(params)
    plans = partition(structure, num_shards)
    spec = ServerSpec("id", structure, plans, (), (), (), *rules_of(structure), GradientPolicy(), Async(), 1.0, None)
    arenas = {
        plan.index: Arena.create(bytes(16), f"shard {plan.index}", plan.index, num_shards, plan.params_bytes, 2, True)
        for plan in plans
    }
    leaves = structure.leaves
    spans = [
        [
            (r.position, r.count * leaves[r.leaf].item_bytes, r.leaf, r.start * leaves[r.leaf].item_bytes, 0,
             leaves[r.leaf].item_bytes, r.leaf)
            for r in plan.runs
        ]
        for plan in plans
    ]  # fmt: skip
    group = Group(list(arenas.values()), spans, [(1, 1, 0, 0)], len(leaves), 1.0)  # never runs a kernel
    group.run(arrays, None, streams=[[0]], initial=True)
    return View(
        spec, lambda shard, position, nbytes: arenas[shard].window(position, nbytes), lambda: require_alive(arenas)
    )


TREE = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": {"c": np.arange(5.0), "d": np.array(7.0)}}


def test_a_view_of_an_array_has_its_shape_and_lies_on_the_arena():
    values = np.arange(12.0).reshape(3, 4)
    with view_of(values) as view:
        assert np.array_equal(view.params, values)
        assert np.array_equal(np.asarray(view), values)
        assert np.array_equal(view["params"], values)
        assert np.array_equal(view[1], values[1])
        assert len(view) == 3
        assert not view.params.flags.writeable
        assert np.shares_memory(np.asarray(view), view.params)
        assert not np.shares_memory(np.array(view), view.params)
        assert np.asarray(view, np.float32).dtype == np.float32


def test_a_view_of_a_mapping_has_its_structure():
    with view_of(TREE) as view:
        assert list(view.params) == ["a", "b"]
        assert np.array_equal(view["a"], TREE["a"])
        assert np.array_equal(view["b"]["c"], TREE["b"]["c"])
        assert view["b"]["d"].shape == ()
        assert len(view) == 2
        with pytest.raises(TypeError, match="mapping"):
            np.asarray(view)


def test_pieces_are_everything_in_order():
    with view_of(TREE, 3) as view:
        pieces = view.pieces
        assert [piece.shard for piece in pieces] == sorted(piece.shard for piece in pieces)
        found = {"a": np.zeros(6, np.float32), "b/c": np.zeros(5), "b/d": np.zeros(1)}
        for piece in pieces:
            found[piece.name][piece.start : piece.start + piece.array.size] = piece.array
            assert not piece.array.flags.writeable
        assert np.array_equal(found["a"], TREE["a"].ravel())
        assert np.array_equal(found["b/c"], TREE["b"]["c"])
        assert found["b/d"] == 7
    del piece, pieces


def test_a_single_array_of_what_lies_on_several_shards_raises_split_error():
    with view_of(np.arange(10.0), 2) as view:
        for ask in (lambda: view.params, lambda: np.asarray(view), lambda: view[0], view.to_arrow):
            with pytest.raises(SplitError, match="several of the 2 shards"):
                ask()


def test_a_view_in_arrow_is_on_the_same_memory():
    with view_of(TREE) as view:
        tensors = view.to_arrow()
        assert isinstance(tensors["a"], pa.Tensor)
        assert tensors["a"].shape == (2, 3)
        assert np.shares_memory(tensors["a"].to_numpy(), view["a"])
    del tensors


def test_a_view_that_was_left_raises_closed_error_but_its_arrays_stay():
    with view_of(np.arange(10.0)) as view:
        kept = view.params
    for ask in (lambda: view.params, lambda: view.pieces, lambda: np.asarray(view), lambda: view[0], view.to_arrow):
        with pytest.raises(ClosedError, match="it was left"):
            ask()
    gc.collect()
    assert kept.tolist() == list(range(10))  # the array keeps its arena, which nothing else does
    assert own_arenas() != []
    del kept
    gc.collect()
    assert own_arenas() == []


def test_an_array_is_found_by_its_name_without_looking_at_the_others():
    with view_of(TREE) as view:
        windows = []
        window, view._window = view._window, lambda *of: windows.append(of) or window(*of)
        assert np.array_equal(view["a"], TREE["a"])
        assert len(windows) == 1
        assert {name: array.tolist() for name, array in view["b"].items()} == {"c": [0, 1, 2, 3, 4], "d": 7}
        assert len(windows) == 3
        assert len(view) == 2
        with pytest.raises(NamesError, match=r"no array is called 'x'; there are \['a', 'b'\]"):
            view["x"]
    with pytest.raises(ClosedError):
        len(view)


def test_an_array_on_one_shard_is_found_by_its_name_beside_one_that_is_split():
    with view_of({"a": np.arange(2.0), "b": np.arange(6.0)}, num_shards=2) as view:
        assert view["a"].tolist() == [0, 1]
        with pytest.raises(SplitError):
            view["b"]

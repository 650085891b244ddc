"""The order of arrays between nodes."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fastps.arrays.types import HALVES, numpy_dtype
from fastps.consistency import Async
from fastps.rules import Add
from fastps.rules.assignment import assign
from fastps.spec.arrays import Leaf, Structure
from fastps.spec.gradients import GradientPolicy
from fastps.spec.partition import partition
from fastps.spec.rule import infos
from fastps.spec.server import ServerSpec
from fastps.transport import layout as layouts
from fastps.transport.layout import layout_of


def rules_of(structure):
    """What a server with the rule Add has in its spec."""
    assignment, _ = assign(Add(), [leaf.name for leaf in structure.leaves], [])
    return infos(assignment), assignment.of_leaf, GradientPolicy()


@st.composite
def cases(draw):
    """A server of some leaves, its values, and some of its shards."""
    leaves = draw(
        st.lists(st.tuples(st.integers(1, 60), st.sampled_from(["float32", "float64"])), min_size=1, max_size=4)
    )
    structure = Structure(tuple(Leaf.of((f"leaf{i}",), (n,), dtype) for i, (n, dtype) in enumerate(leaves)))
    num_shards = draw(st.integers(1, min(structure.size, 5)))
    shards = draw(st.lists(st.integers(0, num_shards - 1), min_size=1, unique=True))
    spec = ServerSpec(
        "id", structure, partition(structure, num_shards), (), (), (), *rules_of(structure), Async(), 1.0, None
    )
    values = [np.arange(1, leaf.size + 1).astype(leaf.dtype) + 1000 * i for i, leaf in enumerate(structure.leaves)]
    return spec, shards, values


HALF = st.sampled_from([None, *HALVES])


def in_half(structure, values, half):
    """The values with those of float32 in half precision, if one is asked for."""
    leaves = zip(structure.leaves, values, strict=True)
    return [value.astype(numpy_dtype(half)) if half and leaf.dtype == "float32" else value for leaf, value in leaves]


@given(cases(), st.data())
def test_a_stream_of_some_arrays_has_the_bytes_of_all_of_them(case, data):
    """Slots, which only some arrays have."""
    spec, shards, values = case
    lacking = data.draw(st.sets(st.integers(0, len(values) - 1)))
    some = [np.empty(0, np.float32) if i in lacking else value for i, value in enumerate(values)]
    layout = layout_of(spec, shards)
    assert layout.gather(some).nbytes == layout.nbytes()


@given(cases(), HALF, st.sampled_from([lambda n: [], lambda n: [n // 2], lambda n: range(3, n, 5)]))
def test_what_is_gathered_is_scattered_to_the_same_places_and_nowhere_else(case, half, cuts):
    spec, shards, values = case
    layout, values = layout_of(spec, shards), in_half(spec.structure, values, half)
    half = layout.half_of(values)  # these shards may have no float32
    found = [np.zeros_like(value) for value in values]
    payload = layout.gather(values, half)
    assert payload.nbytes == layout.nbytes(half)
    edges = [0, *cuts(payload.nbytes), payload.nbytes]
    for start, stop in pairwise(edges):
        layout.scatter(start, payload[start:stop], found, half)
    for number, value in enumerate(values):
        owned = np.zeros(len(value), bool)
        for shard in shards:
            for run in spec.plans[shard].runs:
                if run.leaf == number:
                    owned[run.start : run.start + run.count] = True
        assert np.array_equal(found[number], np.where(owned, value, np.zeros_like(value)))


@given(cases(), HALF)
def test_the_buffers_hold_each_run_at_its_offset(case, half):
    spec, shards, values = case
    layout, values = layout_of(spec, shards), in_half(spec.structure, values, half)
    half = layout.half_of(values)
    buffers = layout.buffers(layout.gather(values, half), half)
    for place in layout.places:
        value = values[place.leaf]
        by = value.itemsize if place.buffer == layouts.WIDE else 4
        buffer = buffers[place.buffer].view(value.dtype)
        expected = value[place.start : place.start + place.count]
        assert np.array_equal(buffer[place.offset // by : place.offset // by + place.count], expected)


@given(cases())
def test_values_of_several_types_travel_as_they_are_stored(case):
    spec, shards, values = case
    layout, narrow = layout_of(spec, shards), in_half(spec.structure, values, "bfloat16")
    mixed = [value if i else narrow[0] for i, value in enumerate(values)]
    if layout.half_of(mixed) is None:
        widened = [one.astype(value.dtype) for one, value in zip(mixed, values, strict=True)]
        for mine, theirs in zip(*(layout.buffers(layout.gather(a), None) for a in (mixed, widened)), strict=True):
            assert mine.nbytes == theirs.nbytes
        found = [np.zeros_like(value) for value in values]
        layout.scatter(0, layout.gather(mixed), found)
        again = [np.zeros_like(value) for value in values]
        layout.scatter(0, layout.gather(widened), again)
        assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))


@given(cases())
def test_both_ends_agree_on_the_layout_whatever_the_order_of_the_shards(case):
    spec, shards, _ = case
    assert layout_of(spec, shards) == layout_of(spec, sorted(shards))


@given(cases())
def test_places_are_aligned_and_apart(case):
    spec, shards, _ = case
    layout = layout_of(spec, shards)
    for buffer in (layouts.NARROW, layouts.WIDE):
        end = 0
        for place in layout.places:
            if place.buffer == buffer:
                assert place.offset % layouts.ALIGNMENT == 0
                assert place.offset >= end
                end = place.offset + place.nbytes
        assert end <= layout.sizes[buffer] < end + layouts.ALIGNMENT
    for shard in shards:
        for number, run in enumerate(spec.plans[shard].runs):
            (place,) = [p for p in layout.places if (p.buffer, p.offset) == layout.offsets[shard, number]]
            assert (place.leaf, place.start, place.count) == (run.leaf, run.start, run.count)


def test_one_run_is_gathered_without_a_copy():
    structure = Structure((Leaf.of((), (4, 8), "float64"),))
    spec = ServerSpec("id", structure, partition(structure, 2), (), (), (), *rules_of(structure), Async(), 1.0, None)
    value = np.arange(32.0).reshape(4, 8)
    payload = layout_of(spec, [1]).gather([value])
    assert np.shares_memory(payload, value)
    assert payload.ctypes.data == value[2:].ctypes.data
    assert payload.nbytes == 128

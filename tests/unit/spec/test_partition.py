import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastps.errors import OptionError
from fastps.spec.arrays import Leaf, Structure
from fastps.spec.initial import structure_of
from fastps.spec.partition import LARGE_BYTES, LINE_BYTES, PAGE_BYTES, partition

leaves = st.lists(
    st.tuples(st.one_of(st.integers(1, 40), st.integers(8_000, 30_000)), st.sampled_from(["float32", "float64"])),
    min_size=1,
    max_size=5,
).map(lambda rows: Structure(tuple(Leaf.of((f"leaf{i}",), (n,), dtype) for i, (n, dtype) in enumerate(rows))))


@st.composite
def cases(draw):
    structure = draw(leaves)
    return structure, draw(st.integers(1, min(structure.size, 9)))


@given(cases())
def test_every_element_lies_on_exactly_one_shard(case):
    structure, num_shards = case
    owners = [np.zeros(leaf.size, int) for leaf in structure.leaves]
    for plan in partition(structure, num_shards):
        for run in plan.runs:
            assert run.count > 0
            assert 0 <= run.start <= run.start + run.count <= structure.leaves[run.leaf].size
            owners[run.leaf][run.start : run.start + run.count] += 1
    assert all((counts == 1).all() for counts in owners)


@given(cases())
def test_shards_differ_by_at_most_one_element(case):
    structure, num_shards = case
    sizes = [sum(run.count for run in plan.runs) for plan in partition(structure, num_shards)]
    assert len(sizes) == num_shards
    assert max(sizes) - min(sizes) <= 1


@given(cases())
def test_runs_are_sorted_apart_and_inside_of_the_shard(case):
    structure, num_shards = case
    for number, plan in enumerate(partition(structure, num_shards)):
        assert plan.index == number
        end = 0
        for run in plan.runs:
            assert run.position >= end
            end = run.position + run.count * structure.leaves[run.leaf].item_bytes
        assert plan.params_bytes == end


@given(cases())
def test_small_runs_begin_at_a_cache_line_and_large_ones_keep_their_place_in_a_page(case):
    structure, num_shards = case
    for plan in partition(structure, num_shards):
        for run in plan.runs:
            item = structure.leaves[run.leaf].item_bytes
            assert run.position % item == 0
            if run.count * item >= LARGE_BYTES:
                assert run.position % PAGE_BYTES == run.start * item % PAGE_BYTES
            else:
                assert run.position % LINE_BYTES == 0


@given(cases())
def test_padding_between_runs_stays_below_a_page(case):
    structure, num_shards = case
    for plan in partition(structure, num_shards):
        used = sum(run.count * structure.leaves[run.leaf].item_bytes for run in plan.runs)
        assert plan.params_bytes - used < PAGE_BYTES * len(plan.runs)


@pytest.mark.parametrize("num_shards", [0, -1, 1.0, True, "2", None])
def test_a_number_of_shards_that_is_no_positive_int_raises_option_error(num_shards):
    structure, _ = structure_of(np.zeros(10))
    with pytest.raises(OptionError, match="num_shards: expected a whole number from 1"):
        partition(structure, num_shards)


def test_more_shards_than_elements_raises_option_error_that_names_both():
    structure, _ = structure_of(np.zeros(3))
    assert [sum(run.count for run in plan.runs) for plan in partition(structure, 3)] == [1, 1, 1]
    with pytest.raises(OptionError, match="at most one per element, 3, got 4"):
        partition(structure, 4)

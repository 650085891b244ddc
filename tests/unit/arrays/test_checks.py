"""Shared memory, the global norm, and what is not finite."""

import math

import numpy as np
import pytest

from fastps._core import all_finite, global_norm
from fastps.arrays.checks import apart, first_nonfinite, norm_of, overlap


def test_overlap_names_two_arrays_that_share_memory_in_the_order_of_their_addresses():
    memory = np.zeros(100)
    assert overlap([memory[0:10], memory[10:20], np.zeros(3)]) is None
    assert overlap([memory[50:60], np.zeros(3), memory[41:51]]) == (2, 0)
    assert overlap([]) is None


def test_gradients_that_share_memory_with_the_outputs_are_copied_and_others_are_not():
    memory = np.zeros(100)
    outs = [memory[0:10], memory[50:60], np.zeros(3)]
    given = [memory[9:12], memory[10:50], memory[45:70], np.ones(3), memory[60:70], outs[2]]
    copies = apart(given, outs)
    assert [copy is array for copy, array in zip(copies, given, strict=True)] == [False, True, False, True, True, False]
    assert apart([np.zeros(0), memory[0:0]], outs)[1].size == 0


def test_the_norm_of_finite_gradients_is_finite_though_their_squares_are_not():
    assert norm_of([np.array([3e200]), np.array([[4e200]])]) == pytest.approx(5e200, rel=1e-12)
    assert norm_of([np.array([3.0], np.float32), np.array([4.0])]) == 5
    assert norm_of([np.full(100, 1.7e308)]) == np.finfo(float).max
    assert norm_of([np.array([1e200, np.inf])]) == math.inf
    assert math.isnan(norm_of([np.array([1e200, np.nan])]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 1000])
def test_norm_and_finiteness_are_those_of_numpy(dtype, n, rng):
    values = rng.normal(size=n).astype(dtype)
    assert global_norm([values, values]) == pytest.approx(np.sqrt(2 * (values.astype(float) ** 2).sum()), rel=1e-12)
    assert all_finite([values])
    for bad in (np.nan, np.inf, -np.inf):
        for at in range(0, n, max(1, n // 7)):
            spoilt = values.copy()
            spoilt[at] = bad
            assert not all_finite([values, spoilt])


def test_the_first_element_that_is_not_finite_is_found_by_array_and_index():
    clean, spoilt = np.zeros((2, 3)), np.zeros((2, 3), np.float32)
    spoilt[1, 2], spoilt[1, 1] = np.nan, -np.inf
    assert first_nonfinite([clean, spoilt, spoilt]) == (1, [1, 1])
    assert first_nonfinite([np.array(np.nan)]) == (0, [])
    assert first_nonfinite([clean]) is None

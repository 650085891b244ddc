"""Checks of arguments: arrays that share memory, the global norm, NaN and infinity.

Arrays are C-contiguous float32 or float64. They have no names here: results are indices into the list.
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_left
from itertools import pairwise

import numpy as np

from fastps._core import all_finite, global_norm
from fastps.arrays.types import Array, Arrays


def byte_bounds(array: Array) -> tuple[int, int]:
    """The first address of a C-contiguous array and the one after its last byte."""
    start: int = array.__array_interface__["data"][0]
    return start, start + array.nbytes


def overlap(arrays: Arrays) -> tuple[int, int] | None:
    """The indices of two arrays that share memory, the one with the lower address first; None if no two do.

    Cost: a sort of the addresses, not a comparison of every pair.
    """
    by_address = sorted((*byte_bounds(array), i) for i, array in enumerate(arrays) if array.size)
    for (_, end, one), (start, _, other) in pairwise(by_address):
        if end > start:
            return one, other
    return None


def apart(arrays: Arrays, outs: Arrays) -> Arrays:
    """`arrays`, with copies in place of those that share memory with one of `outs`. No two of `outs` overlap."""
    bounds = sorted(byte_bounds(out) for out in outs)
    starts = [start for start, _ in bounds]

    def shares(array: Array) -> bool:
        start, end = byte_bounds(array)
        last = bisect_left(starts, end)  # the outs before it begin before the array ends
        return last > 0 and bounds[last - 1][1] > start

    return [array.copy() if shares(array) else array for array in arrays]


def norm_of(arrays: Arrays) -> float:
    """The global norm over all arrays. NaN or infinite only if an element is.

    Cost: one pass; two more where squares of finite elements overflow float64.
    """
    norm = global_norm(arrays)
    if math.isinf(norm) and all_finite(arrays):
        most = max(float(np.abs(array).max()) for array in arrays if array.size)
        norm = min(most * global_norm([array / most for array in arrays]), sys.float_info.max)
    return norm


def first_nonfinite(arrays: Arrays) -> tuple[int, list[int]] | None:
    """The first NaN or infinity, as (index of the array, index of the element in it); None if there is none."""
    for i, array in enumerate(arrays):
        if not all_finite([array]):
            return i, np.argwhere(~np.isfinite(array))[0].tolist()
    return None

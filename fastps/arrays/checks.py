"""What is looked for in arrays before an operation: a norm, memory that overlaps."""

from __future__ import annotations

import sys
from bisect import bisect_left
from typing import Any

import numpy as np

from fastps._core import all_finite, global_norm

Array = np.ndarray[Any, np.dtype[Any]]


def norm_of(arrays: list[Array]) -> float:
    """The global norm; in a second pass where squares of finite elements are too large for float64."""
    norm = global_norm(arrays)
    if norm == float("inf") and all_finite(arrays):
        most = max(float(np.abs(array).max()) for array in arrays)
        norm = min(most * global_norm([array / most for array in arrays]), sys.float_info.max)
    return norm


def byte_bounds(array: Array) -> tuple[int, int]:
    """Where a C-contiguous array begins and ends."""
    start: int = array.__array_interface__["data"][0]
    return start, start + array.nbytes


def apart(arrays: list[Array], outs: list[Array]) -> list[Array]:
    """Copies of those arrays that share memory with one of `outs`, which do not share any with each other."""
    bounds = sorted(byte_bounds(out) for out in outs)
    starts = [start for start, _ in bounds]

    def shares(array: Array) -> bool:
        start, end = byte_bounds(array)
        last = bisect_left(starts, end)  # the outs before it begin before the array ends
        return last > 0 and bounds[last - 1][1] > start

    return [array.copy() if shares(array) else array for array in arrays]

"""Arrow arrays as numpy arrays, and numpy arrays as Arrow tensors, without a copy."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from fastps.arrays.types import Array
from fastps.errors import DtypeError


def to_numpy(value: Any, where: str, dtype: str = "float32") -> Array:
    """The memory of an Arrow array, or of a chunked array of one chunk, as a numpy array.

    `where` begins messages, which name the requested `dtype`. Raises DtypeError.
    """
    array = pa.chunked_array(value) if hasattr(value, "__arrow_c_stream__") else pa.array(value)
    if isinstance(array, pa.ChunkedArray):
        if array.num_chunks != 1:
            raise DtypeError(
                f"{where}: expected Arrow data in one chunk, got {array.num_chunks}; {_in_one(value, dtype)}"
            )
        array = array.chunk(0)
    is_list = pa.types.is_fixed_size_list(array.type)
    flat = array.flatten() if is_list else array
    if array.null_count or flat.null_count:
        raise DtypeError(
            f"{where}: expected Arrow data without nulls, got {array.null_count or flat.null_count}; "
            f"{_without_nulls(value, is_list)}"
        )
    if not any(fits(flat.type) for fits in (pa.types.is_floating, pa.types.is_integer, pa.types.is_dictionary)):
        raise DtypeError(
            f"{where}: expected Arrow data of numbers, got {array.type}; pass one column of numbers, as "
            f"np.asarray(value, np.{dtype})"
        )
    numbers: Array = flat.to_numpy(zero_copy_only=True)
    return numbers.reshape(len(array), array.type.list_size) if is_list else numbers


def _in_one(value: Any, dtype: str) -> str:
    combines = hasattr(value, "combine_chunks") and hasattr(value, "num_chunks")
    return "pass it as .combine_chunks()" if combines else f"pass np.asarray(value, np.{dtype})"


def _without_nulls(value: Any, is_list: bool) -> str:
    if is_list:
        return "fill missing values, and omit missing rows"
    call = next((name for name in ("fill_null", "fillna") if hasattr(value, name)), None)
    return f"fill them first: .{call}(0)" if call else "fill them first"


def tensor(array: Array) -> pa.Tensor:
    """An Arrow tensor on the memory of `array`."""
    return pa.Tensor.from_numpy(array)

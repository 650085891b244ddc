"""Arrow arrays in, Arrow tensors out, without a copy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from fastps.errors import DtypeError


def to_numpy(value: Any, where: str) -> np.ndarray[Any, np.dtype[Any]]:
    """The memory of an Arrow array (or of a chunked array of one chunk) as a numpy array."""
    try:
        array = pa.chunked_array(value) if hasattr(value, "__arrow_c_stream__") else pa.array(value)
        if isinstance(array, pa.ChunkedArray):
            if array.num_chunks != 1:
                raise pa.ArrowInvalid(f"{array.num_chunks} chunks")
            array = array.chunk(0)
        if pa.types.is_fixed_size_list(array.type):
            if array.null_count:
                raise pa.ArrowInvalid("null rows")
            flat: np.ndarray[Any, np.dtype[Any]] = array.flatten().to_numpy(zero_copy_only=True)
            return flat.reshape(len(array), array.type.list_size)
        whole: np.ndarray[Any, np.dtype[Any]] = array.to_numpy(zero_copy_only=True)
        return whole
    except (pa.ArrowException, ValueError) as error:
        raise DtypeError(
            f"{where}: this Arrow data cannot be read as one array ({error}); pass float32 or float64 without nulls, "
            f"in one chunk"
        ) from error


def tensor(array: np.ndarray[Any, np.dtype[Any]]) -> pa.Tensor:
    """An Arrow tensor on the memory of `array`."""
    return pa.Tensor.from_numpy(array)

"""Arrays of other libraries, without a copy: buffer protocol, __array_interface__, DLPack, Arrow's C interface."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastps.errors import DtypeError


def as_array(value: Any, where: str) -> np.ndarray[Any, np.dtype[Any]]:
    """`value` as a numpy array on the same memory. Raises DtypeError for what is no numeric array."""
    if isinstance(value, np.ndarray):
        array = value.view(np.ndarray) if type(value) is not np.ndarray else value
    elif hasattr(value, "__arrow_c_array__") or hasattr(value, "__arrow_c_stream__"):
        from fastps import arrow  # pyarrow is loaded only where Arrow is spoken

        array = arrow.to_numpy(value, where)
    elif hasattr(value, "__array_interface__"):
        array = np.asarray(value)
    elif hasattr(value, "__dlpack__"):
        array = _from_dlpack(value, where)
    else:
        try:
            array = np.asarray(memoryview(value))
        except TypeError:
            if not isinstance(value, (int, float)):
                raise DtypeError(
                    f"{where}: expected an array, got {type(value).__name__}; pass np.asarray(value, np.float32)"
                ) from None
            array = np.asarray(value)
    if array.dtype.hasobject:
        raise DtypeError(f"{where}: expected numbers, got {array.dtype}[{', '.join(map(str, array.shape))}]")
    return array


def _from_dlpack(value: Any, where: str) -> np.ndarray[Any, np.dtype[Any]]:
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError) as error:
        raise DtypeError(
            f"{where}: {type(value).__name__} does not give its memory to numpy ({error}); detach it and move it to "
            f"the CPU"
        ) from error

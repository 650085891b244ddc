"""The element types that are stored, their sizes, and how messages name the type of an array."""

from __future__ import annotations

from typing import Any

import numpy as np

DTYPES = ("float32", "float64")
FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
Array = np.ndarray[Any, np.dtype[Any]]
Arrays = list[Array]


def numpy_dtype(dtype: str) -> np.dtype[Any]:
    """The numpy dtype of one of `DTYPES`. np.empty takes it faster than the name, which numpy would parse."""
    return FLOAT32 if dtype == "float32" else FLOAT64


def item_bytes(dtype: str) -> int:
    """Bytes per element of one of `DTYPES`."""
    return numpy_dtype(dtype).itemsize


def type_name(dtype: Any, shape: tuple[int, ...]) -> str:
    """How messages write the type of an array: "float32[3, 4]"."""
    return f"{dtype}[{', '.join(map(str, shape))}]"


def describe(array: Array) -> str:
    """The type of an array as messages write it: "float32[3, 4]"."""
    return type_name(array.dtype, array.shape)

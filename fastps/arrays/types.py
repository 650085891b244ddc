"""The element types that are stored, those that are converted on the way, and how messages name an array's type."""

from __future__ import annotations

from typing import Any

import numpy as np

DTYPES = ("float32", "float64")  # what is stored
HALVES = ("bfloat16", "float16")  # converted from and to float32 on the way
FLOAT32, FLOAT64, FLOAT16 = np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16)
Array = np.ndarray[Any, np.dtype[Any]]
Arrays = list[Array]


def numpy_dtype(dtype: str) -> np.dtype[Any]:
    """The numpy dtype of one of `DTYPES` or `HALVES`. np.empty takes it faster than the name, which numpy would
    parse."""
    return FLOAT32 if dtype == "float32" else FLOAT64 if dtype == "float64" else _half(dtype)


def _half(dtype: str) -> np.dtype[Any]:
    if dtype == "float16":
        return FLOAT16
    import ml_dtypes  # numpy has no bfloat16 of its own

    found: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return found


def fits(dtype: Any, stored: str) -> bool:
    """Whether elements of the numpy dtype can be pushed to and pulled from elements that are stored as `stored`."""
    return bool(dtype == stored) or (stored == "float32" and dtype.isnative and dtype.name in HALVES)


def item_bytes(dtype: str) -> int:
    """Bytes per element of one of `DTYPES`."""
    return numpy_dtype(dtype).itemsize


def type_name(dtype: Any, shape: tuple[int, ...]) -> str:
    """How messages write the type of an array: "float32[3, 4]"."""
    return f"{dtype}[{', '.join(map(str, shape))}]"


def describe(array: Array) -> str:
    """The type of an array as messages write it: "float32[3, 4]"."""
    return type_name(array.dtype, array.shape)

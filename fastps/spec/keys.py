"""Keys as users write them, converted to the 64-bit numbers of the core, and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from fastps._core import hash_of
from fastps.arrays.interchange import as_array, conversion, is_torch, remedy
from fastps.arrays.types import Array
from fastps.errors import DtypeError, KeysError, ShapeError
from fastps.messages import brief
from fastps.scalars import is_masked

KINDS = ("int64", "uint64", "bytes")
RANGES = {"int64": range(-(2**63), 2**63), "uint64": range(2**64)}
TEXT = "pass integers, or create the table with keys='bytes'"
OFFERS = ("__array_interface__", "__arrow_c_array__", "__arrow_c_stream__", "__dlpack__")  # array interfaces
Keys = np.ndarray[Any, np.dtype[np.uint64]]


def as_keys(keys: Any, kind: str, where: str) -> Keys:
    """uint64[n] for an array, a sequence or an iterable of keys.

    Raises DtypeError for keys of another kind, KeysError for numbers out of range, ShapeError for nested ones.
    """
    return _hashes(keys, where) if kind == "bytes" else _numbers(keys, kind, where)


def from_keys(keys: Keys, kind: str) -> Array:
    """The keys that `as_keys` converted; for "bytes" the hashes."""
    return keys.view(np.int64) if kind == "int64" else keys


def _numbers(keys: Any, kind: str, where: str) -> Keys:
    array = keys if type(keys) is np.ndarray else _array_of_numbers(keys, kind, where)
    if array.dtype.kind not in "iu" or not array.dtype.isnative:
        text = array.dtype.kind in "USO"
        hint = TEXT if text else conversion(keys, kind)
        raise DtypeError(f"{where}: expected {kind}[n], got {array.dtype}{list(array.shape)}; {hint}")
    if array.ndim != 1:
        raise ShapeError(f"{where}: expected {kind}[n], got {array.ndim} dimensions, {list(array.shape)}; use .ravel()")
    if kind == "uint64" and array.dtype.kind == "i" and array.size and array.min() < 0:
        at = int(np.argmax(array < 0))
        raise KeysError(
            f"{where}: expected keys of 0 or more, got {array[at]} - at [{at}]; create the table with keys='int64'"
        )
    if kind == "int64" and array.dtype == np.uint64 and array.size and array.max() >= 2**63:
        at = int(np.argmax(array >= 2**63))
        raise KeysError(f"{where}: expected int64, got {array[at]} - at [{at}]; create the table with keys='uint64'")
    # A copy, because the core reads keys more than once, and without the GIL.
    return np.array(array, kind, order="C", copy=True).view(np.uint64)


def _refuse_mask(keys: Any, where: str) -> None:
    """Raises DtypeError for a masked array: a value in the place of a masked key would be another key."""
    if is_masked(keys):
        raise DtypeError(
            f"{where}: this is a masked array, and its mask would be lost; omit masked keys: .compressed()"
        )


def _array_of_numbers(keys: Any, kind: str, where: str) -> Array:
    _refuse_mask(keys, where)
    if isinstance(keys, (np.ndarray, memoryview)) or is_torch(keys):
        return as_array(keys, where, kind)
    if getattr(keys, "null_count", 0):  # of Arrow
        raise DtypeError(f"{where}: expected {kind}[n] without nulls, got {keys.null_count}; omit them: .drop_null()")
    if getattr(keys, "hasnans", False):  # of pandas
        raise DtypeError(f"{where}: expected {kind}[n], and some are missing; omit them: .dropna()")
    if hasattr(keys, "__array__"):
        try:
            return np.asarray(keys)  # copied where it has to be: keys may come in chunks
        except Exception as error:  # whatever the other library raises
            raise DtypeError(
                f"{where}: {type(keys).__name__} does not become an array ({error}); {remedy(keys, kind)}"
            ) from error
    if any(hasattr(keys, offer) for offer in OFFERS):
        return as_array(keys, where, kind)
    if isinstance(keys, (str, bytes)) or not isinstance(keys, Iterable):
        raise DtypeError(
            f"{where}: expected {kind}[n], got {type(keys).__name__} {brief(keys)}; pass a sequence of keys"
        )
    items = keys if isinstance(keys, (list, tuple, range)) else list(keys)
    if any(isinstance(key, (bool, np.bool_)) or not isinstance(key, (int, np.integer)) for key in items):
        wrong = next(k for k in items if isinstance(k, (bool, np.bool_)) or not isinstance(k, (int, np.integer)))
        hint = f"; {TEXT}" if isinstance(wrong, (str, bytes)) else ""
        raise DtypeError(f"{where}: expected {kind}[n], got {type(wrong).__name__} {brief(wrong)} among the keys{hint}")
    try:
        return np.array([int(key) for key in items], kind)
    except OverflowError:
        at = next(i for i, key in enumerate(items) if int(key) not in RANGES[kind])
        other = next((name for name, all_ in RANGES.items() if all(int(key) in all_ for key in items)), None)
        hint = f"create the table with keys={other!r}" if other else "pass them as text to a table with keys='bytes'"
        raise KeysError(f"{where}: expected {kind}, got {brief(items[at])} - at [{at}]; {hint}") from None


def _hashes(keys: Any, where: str) -> Keys:
    _refuse_mask(keys, where)
    if isinstance(keys, np.ndarray) and keys.ndim != 1 and (keys.ndim > 1 or keys.dtype.kind in "SU"):
        raise ShapeError(f"{where}: expected str or bytes[n], got {keys.ndim} dimensions")
    if getattr(keys, "ndim", 1) == 0 or isinstance(keys, (str, bytes)) or not isinstance(keys, Iterable):
        raise DtypeError(f"{where}: expected a sequence of str or bytes, got {type(keys).__name__}; pass [key]")
    items = keys.to_pylist() if hasattr(keys, "to_pylist") else keys  # of Arrow
    out = []
    for at, key in enumerate(items):
        if isinstance(key, str):
            try:
                out.append(hash_of(key.encode()))
            except UnicodeEncodeError as error:
                raise KeysError(f"{where}: {brief(key)} is not valid Unicode ({error.reason}) - at [{at}]") from None
        elif isinstance(key, bytes):
            out.append(hash_of(bytes(key)))
        else:
            raise DtypeError(f"{where}: expected str or bytes, got {type(key).__name__} {brief(key)} - at [{at}]")
    return np.array(out, np.uint64)

"""Arguments, results and errors of verbs as bytes, without pickle: JSON, followed by the memory of arrays.

A value is None, a bool, a number, text, bytes, an array, a `Decision`, an `Outcome`, or a list, tuple or dict of them.
Input is not trusted: malformed bytes raise ValueError, and nothing is executed.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np

from fastps import errors
from fastps._core import Decision, Outcome, outcome_from

ALIGNMENT = 8
LENGTHS = struct.Struct("<QQ")  # of the JSON, and in total


def pack(value: Any) -> bytes:
    buffers: list[Any] = []
    text = json.dumps(_plain(value, buffers), separators=(",", ":")).encode()
    parts, nbytes = [text + b" " * (-len(text) % ALIGNMENT)], 0
    nbytes = LENGTHS.size + len(parts[0])
    for buffer in buffers:
        parts += [buffer, bytes(-len(buffer) % ALIGNMENT)]
        nbytes += len(buffer) + len(parts[-1])
    return b"".join([LENGTHS.pack(len(parts[0]), nbytes), *parts])


def _plain(value: Any, buffers: list[Any]) -> Any:
    """The value as JSON. Types that JSON lacks become a dict of one key."""
    if value is None or isinstance(value, (bool, str, int, float)):
        return value
    if isinstance(value, list):
        return [_plain(item, buffers) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [_plain(item, buffers) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[_plain(key, buffers), _plain(item, buffers)] for key, item in value.items()]}
    if isinstance(value, bytes):
        buffers.append(value)
        return {"bytes": len(value)}
    if isinstance(value, np.ndarray):
        array = np.ascontiguousarray(value)
        buffers.append(array.reshape(-1).view(np.uint8).data if array.size else b"")
        return {"array": [array.dtype.str, list(value.shape)]}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Decision):
        return {"decision": _plain(value.pack(), buffers)}
    if isinstance(value, Outcome):
        return {"outcome": [list(value.applied), list(value.partial), list(value.unknown), value.counts]}
    raise TypeError(f"{type(value).__name__} does not travel between nodes")


class Reader:
    """Reads the buffers after the JSON, in order."""

    def __init__(self, data: memoryview, start: int) -> None:
        self._data, self._at = data, start

    def take(self, nbytes: int) -> memoryview:
        start, self._at = self._at, self._at + nbytes + -nbytes % ALIGNMENT
        if nbytes < 0 or start + nbytes > self._data.nbytes:
            raise ValueError("a value that is longer than its message")
        return self._data[start : start + nbytes]


def unpack(data: Any) -> Any:
    """The value that was packed. Arrays are read-only and refer to `data`. Raises ValueError for other bytes."""
    try:
        return _unpacked(data)
    except Exception as error:  # numpy and JSON raise many types for damaged bytes
        raise ValueError(f"a value that is damaged ({error})") from error


def _unpacked(data: Any) -> Any:
    view = memoryview(data).cast("B")
    if view.nbytes < LENGTHS.size:
        raise ValueError("a value without a head")
    length, nbytes = LENGTHS.unpack_from(view)
    if LENGTHS.size + length > view.nbytes or nbytes != view.nbytes:
        raise ValueError(f"a value of {nbytes} bytes in a message of {view.nbytes}")
    return _value(json.loads(bytes(view[LENGTHS.size : LENGTHS.size + length])), Reader(view, LENGTHS.size + length))


def _value(plain: Any, reader: Reader) -> Any:
    if isinstance(plain, list):
        return [_value(item, reader) for item in plain]
    if not isinstance(plain, dict):
        return plain
    ((kind, inner),) = plain.items()
    if kind == "tuple":
        return tuple([_value(item, reader) for item in inner])
    if kind == "dict":
        return {_value(key, reader): _value(item, reader) for key, item in inner}
    if kind == "bytes":
        return bytes(reader.take(inner))
    if kind == "array":
        return _array(inner[0], inner[1], reader)
    if kind == "decision":
        return Decision.unpack(_value(inner, reader))
    if kind == "outcome":
        return outcome_from(*inner)
    raise ValueError(f"a value of an unknown kind {kind!r}")


def _array(name: str, shape: list[int], reader: Reader) -> np.ndarray[Any, Any]:
    dtype, count = np.dtype(name), 1
    if dtype.hasobject or dtype.itemsize == 0:
        raise ValueError(f"an array of {name}")
    for extent in shape:
        if not isinstance(extent, int) or extent < 0:
            raise ValueError(f"an array of shape {shape}")
        count *= extent
    return np.frombuffer(reader.take(count * dtype.itemsize), dtype).reshape(shape)


def pack_error(error: BaseException, where: str) -> bytes:
    """A fastps error with its attributes and notes; of any other error, its message and where it was raised."""
    if not isinstance(error, errors.FastPSError):
        error = errors.FastPSError(f"{where}: {type(error).__name__}: {error}")
    cls, args, *rest = error.__reduce__()
    return pack((cls.__name__, tuple(args), rest[0] if rest else {}))


def unpack_error(data: Any) -> errors.FastPSError:
    name, args, state = unpack(data)
    cls = getattr(errors, name) if name in errors.__all__ else errors.FastPSError
    error: errors.FastPSError = cls(*args)
    error.__setstate__(state)
    return error

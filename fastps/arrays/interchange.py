"""Arrays of other libraries as numpy arrays, without a copy: buffer protocol, __array_interface__, DLPack, Arrow."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from fastps.arrays.types import Array, describe, numpy_dtype
from fastps.errors import DtypeError
from fastps.messages import brief
from fastps.scalars import is_masked

FILL = "fill it first: .filled(0), or .data where nothing is masked"


def as_array(value: Any, where: str, dtype: str = "float32", instead: Callable[[], str] | None = None) -> Array:
    """`value` as a numpy array on the same memory.

    `where` begins messages; `dtype` is the requested one: messages say how to convert to it, nothing is converted here.
    `instead` says what to pass in place of any value that cannot be used, where a converted copy would be of no use.
    Raises DtypeError for values that are not numeric arrays, and for arrays whose values differ from their memory
    (masked arrays, lazily negated tensors).
    """
    if type(value) is np.ndarray:
        array = value
    elif is_masked(value):
        hint = instead() if instead else FILL
        raise DtypeError(f"{where}: this is a masked array, and its mask would be lost; {hint}")
    elif isinstance(value, np.ndarray):
        array = value.view(np.ndarray)
    else:
        try:
            array = _foreign(value, where, dtype, instead)
        except DtypeError:
            raise
        except Exception as error:  # whatever the other library raises
            hint = instead() if instead else remedy(value, dtype)
            raise DtypeError(
                f"{where}: {type(value).__name__} does not give its memory to numpy ({error}); {hint}"
            ) from error
    if array.dtype.hasobject:
        hint = instead() if instead else conversion(value, dtype)
        raise DtypeError(f"{where}: expected numbers, got {describe(array)}; {hint}")
    return array


def _foreign(value: Any, where: str, dtype: str, instead: Callable[[], str] | None) -> Array:
    """Tries the interfaces of the value, in order. Raises the other library's errors."""
    if hasattr(value, "to_numpy") and isinstance(getattr(value, "dtype", None), np.dtype):
        return np.asarray(value.to_numpy())  # pandas: its Arrow interface would turn NaN into nulls
    if hasattr(value, "__arrow_c_array__") or hasattr(value, "__arrow_c_stream__"):
        from fastps.arrays import arrow  # pyarrow is loaded only where it is used

        return arrow.to_numpy(value, where, dtype)
    if hasattr(value, "__array_interface__"):
        return np.asarray(value)
    if is_torch(value):
        return _torch(value)
    if hasattr(value, "__dlpack__"):
        if str(getattr(value, "dtype", "")) == "bfloat16":
            return np.asarray(value)  # JAX: DLPack has the type, numpy's reader of it has not
        return np.from_dlpack(value)
    if value is None:
        hint = "; for gradients of some arrays only, pass partial=True" if where.startswith("push") else ""
        raise DtypeError(f"{where}: expected an array, got NoneType{f'; {instead()}' if instead else hint}")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return np.asarray(value)
    try:
        view = memoryview(value)
    except TypeError:
        hint = instead() if instead else remedy(value, dtype)
        raise DtypeError(f"{where}: expected an array, got {type(value).__name__}; {hint}") from None
    return np.asarray(view)


def _torch(tensor: Any) -> Array:
    """The memory of a tensor, without its graph."""
    if tensor.is_neg():
        raise BufferError("its elements are stored with the opposite sign")
    if tensor._is_zerotensor():
        raise BufferError("its zeros are not stored at all")
    tensor = tensor.detach()
    if str(tensor.dtype) == "torch.bfloat16":
        same = tensor.view(sys.modules["torch"].int16)
        return np.from_dlpack(same).view(numpy_dtype("bfloat16"))
    return np.from_dlpack(tensor)


def is_torch(value: Any) -> bool:
    """Whether it is a PyTorch tensor. Does not import torch."""
    return any(cls.__module__ == "torch" and cls.__name__ == "Tensor" for cls in type(value).__mro__)


def remedy(value: Any, dtype: str) -> str:
    """What to pass instead of a value whose memory numpy cannot use."""
    if is_torch(value):
        if value.device.type == "meta":
            return "it has no elements; pass a tensor that is on the CPU"
        steps = [
            (value.is_nested, ".to_padded_tensor(0)"),
            (str(value.layout) != "torch.strided", ".to_dense()"),
            (value.is_quantized, ".dequantize()"),
            (value.is_conj(), ".resolve_conj()"),
            (value.is_neg(), ".resolve_neg()"),
            (value._is_zerotensor(), ".clone()"),
            (value.device.type != "cpu", ".cpu()"),
            (str(value.dtype) != f"torch.{dtype}", f".to(torch.{dtype})"),
        ]
        return f"pass it as tensor{''.join(step for needed, step in steps if needed)}"
    if isinstance(value, (list, tuple)) and any(hasattr(item, "shape") for item in value):
        return "pass one array, such as np.stack(value), or create the server with a mapping of names to arrays"
    if isinstance(value, (list, tuple)) or hasattr(value, "__array__"):
        return f"pass np.asarray(value, np.{dtype})"
    return "pass a numpy array"


def conversion(value: Any, dtype: str) -> str:
    """How to convert a value of another dtype to `dtype`, as messages say it. Of complex numbers one part, named: a
    conversion would drop the imaginary part without a word."""
    if is_torch(value):
        to = f".to(torch.{dtype})"
        return f"pass one part, such as .real{to}" if value.is_complex() else f"convert it with {to}"
    if isinstance(value, (bytes, bytearray)):
        return f"pass np.frombuffer(value, np.{dtype})"
    if hasattr(value, "to_pylist"):  # Arrow: the elements may be lists
        return f"pass np.asarray(value.to_pylist(), np.{dtype})"
    named = f"np.{dtype}" if hasattr(np, dtype) else repr(dtype)
    if not isinstance(value, (np.ndarray, np.generic)):
        if is_complex(value):
            return f"pass one part, such as np.asarray(value).real.astype({named})"
        return f"pass np.asarray(value, {named})"
    if value.dtype.names:
        return f"pass one of its fields, such as value[{value.dtype.names[0]!r}]"
    if value.dtype.kind == "c":
        return f"pass one part, such as .real.astype({named})"
    other = _no_number_in(value, dtype) if value.dtype.kind in "OUST" else ""
    return f"pass an array of numbers, {other}" if other else f"convert it with .astype({named})"


def is_complex(value: Any) -> bool:
    """Whether its elements are complex numbers, as far as its dtype or its format says so."""
    if isinstance(value, memoryview):
        return value.format.startswith("Z")
    return str(getattr(value, "dtype", "")).rpartition(".")[2].startswith("complex")


def _no_number_in(value: Any, dtype: str) -> str:
    """The first of objects or texts that does not become a number, in words; empty where all do. None would be NaN."""
    for at, one in np.ndenumerate(value):
        try:
            is_number = one is not None and np.asarray(one, dtype).ndim == 0
        except Exception:  # whatever the element raises
            is_number = False
        if not is_number:
            return f"it holds {type(one).__name__} {brief(one)} - at {list(at)}"
    return ""

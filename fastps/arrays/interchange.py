"""Arrays of other libraries as numpy arrays, without a copy: buffer protocol, __array_interface__, DLPack, Arrow."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from fastps.arrays.types import Array, describe, numpy_dtype
from fastps.errors import DtypeError
from fastps.scalars import is_masked


def as_array(value: Any, where: str, dtype: str = "float32") -> Array:
    """`value` as a numpy array on the same memory.

    `where` begins messages; `dtype` is the requested one: messages say how to convert to it, nothing is converted here.
    Raises DtypeError for values that are not numeric arrays, and for arrays whose values differ from their memory
    (masked arrays, lazily negated tensors).
    """
    if type(value) is np.ndarray:
        array = value
    elif is_masked(value):
        raise DtypeError(
            f"{where}: this is a masked array, and its mask would be lost; fill it first: .filled(0), or .data where "
            f"nothing is masked"
        )
    elif isinstance(value, np.ndarray):
        array = value.view(np.ndarray)
    else:
        try:
            array = _foreign(value, where, dtype)
        except DtypeError:
            raise
        except Exception as error:  # whatever the other library raises
            raise DtypeError(
                f"{where}: {type(value).__name__} does not give its memory to numpy ({error}); {remedy(value, dtype)}"
            ) from error
    if array.dtype.hasobject:
        raise DtypeError(f"{where}: expected numbers, got {describe(array)}; {conversion(value, dtype)}")
    return array


def _foreign(value: Any, where: str, dtype: str) -> Array:
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
        raise DtypeError(f"{where}: expected an array, got NoneType{hint}")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return np.asarray(value)
    try:
        view = memoryview(value)
    except TypeError:
        raise DtypeError(f"{where}: expected an array, got {type(value).__name__}; {remedy(value, dtype)}") from None
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
    """How to convert a value of another dtype to `dtype`, as messages say it."""
    if is_torch(value):
        return f"convert it with .to(torch.{dtype})"
    if isinstance(value, (bytes, bytearray)):
        return f"pass np.frombuffer(value, np.{dtype})"
    if hasattr(value, "to_pylist"):  # Arrow: the elements may be lists
        return f"pass np.asarray(value.to_pylist(), np.{dtype})"
    if not isinstance(value, (np.ndarray, np.generic)):
        return f"pass np.asarray(value, np.{dtype})"
    if value.dtype.names:
        return f"pass one of its fields, such as value[{value.dtype.names[0]!r}]"
    if value.dtype.kind == "c":
        return f"pass one part, such as .real.astype(np.{dtype})"
    return f"convert it with .astype(np.{dtype})"

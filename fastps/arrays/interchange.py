"""Arrays of other libraries, without a copy: buffer protocol, __array_interface__, DLPack, Arrow's C interface."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastps.errors import DtypeError


def as_array(value: Any, where: str, dtype: str = "float32") -> np.ndarray[Any, np.dtype[Any]]:
    """`value` as a numpy array on the same memory. Raises DtypeError for what is no numeric array, or means something
    else than its memory says. `dtype` is what it should have: messages say how to come to that."""
    if type(value) is np.ndarray:
        array = value
    elif isinstance(value, np.ma.MaskedArray):
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
        shape = ", ".join(map(str, array.shape))
        raise DtypeError(f"{where}: expected numbers, got {array.dtype}[{shape}]; {conversion(value, dtype)}")
    return array


def _foreign(value: Any, where: str, dtype: str) -> np.ndarray[Any, np.dtype[Any]]:
    """By what the value offers; what goes wrong there is what it raises."""
    if hasattr(value, "to_numpy") and isinstance(getattr(value, "dtype", None), np.dtype):
        return np.asarray(value.to_numpy())  # of pandas: by Arrow, NaN would be a null
    if hasattr(value, "__arrow_c_array__") or hasattr(value, "__arrow_c_stream__"):
        from fastps.arrays import arrow  # pyarrow is loaded only where Arrow is spoken

        return arrow.to_numpy(value, where, dtype)
    if hasattr(value, "__array_interface__"):
        return np.asarray(value)
    if hasattr(value, "__dlpack__"):
        if is_torch(value) and value.is_neg():
            raise BufferError("its elements are stored with the other sign")
        if is_torch(value) and value._is_zerotensor():
            raise BufferError("its zeros are not stored at all")
        return np.from_dlpack(value)
    if value is None:
        raise DtypeError(f"{where}: expected an array, got NoneType; where there is no gradient, pass zeros")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return np.asarray(value)
    try:
        view = memoryview(value)
    except TypeError:
        raise DtypeError(f"{where}: expected an array, got {type(value).__name__}; {remedy(value, dtype)}") from None
    return np.asarray(view)


def is_torch(value: Any) -> bool:
    """A tensor of PyTorch, which is not loaded to find out."""
    return any(cls.__module__ == "torch" and cls.__name__ == "Tensor" for cls in type(value).__mro__)


def remedy(value: Any, dtype: str) -> str:
    """What to pass in the place of a value whose memory numpy cannot have."""
    if is_torch(value):
        if value.device.type == "meta":
            return "it has no elements: pass a tensor that does, on the CPU"
        steps = [
            (value.requires_grad, ".detach()"),
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
        return "pass one array, np.stack(value) say, or create the server with a mapping of names to arrays"
    if isinstance(value, (list, tuple)) or hasattr(value, "__array__"):
        return f"pass np.asarray(value, np.{dtype})"
    return "pass a numpy array"


def conversion(value: Any, dtype: str) -> str:
    """How to convert a value of another dtype."""
    if is_torch(value):
        return f"convert it with .to(torch.{dtype})"
    if isinstance(value, (bytes, bytearray)):
        return f"pass np.frombuffer(value, np.{dtype})"
    if hasattr(value, "to_pylist"):  # of Arrow, where it may be lists
        return f"pass np.asarray(value.to_pylist(), np.{dtype})"
    if not isinstance(value, (np.ndarray, np.generic)):
        return f"pass np.asarray(value, np.{dtype})"
    if value.dtype.names:
        return f"pass one of its fields, value[{value.dtype.names[0]!r}] say"
    if value.dtype.kind == "c":
        return f"pass the part that is meant, .real.astype(np.{dtype}) say"
    return f"convert it with .astype(np.{dtype})"

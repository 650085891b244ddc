"""Arrays of other libraries, without a copy: buffer protocol, __array_interface__, DLPack, Arrow's C interface."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastps.errors import DtypeError


def as_array(value: Any, where: str) -> np.ndarray[Any, np.dtype[Any]]:
    """`value` as a numpy array on the same memory. Raises DtypeError for what is no numeric array, or means something
    else than its memory says."""
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
            array = _foreign(value, where)
        except DtypeError:
            raise
        except Exception as error:  # whatever the other library raises
            raise DtypeError(
                f"{where}: {type(value).__name__} does not give its memory to numpy ({error}); {remedy(value)}"
            ) from error
    if array.dtype.hasobject:
        raise DtypeError(f"{where}: expected numbers, got {array.dtype}[{', '.join(map(str, array.shape))}]")
    return array


def _foreign(value: Any, where: str) -> np.ndarray[Any, np.dtype[Any]]:
    """By what the value offers; what goes wrong there is what it raises."""
    if hasattr(value, "__arrow_c_array__") or hasattr(value, "__arrow_c_stream__"):
        from fastps import arrow  # pyarrow is loaded only where Arrow is spoken

        return arrow.to_numpy(value, where)
    if hasattr(value, "__array_interface__"):
        return np.asarray(value)
    if hasattr(value, "__dlpack__"):
        if is_torch(value) and value.is_neg():
            raise BufferError("its elements are stored with the other sign")
        return np.from_dlpack(value)
    if value is None:
        raise DtypeError(f"{where}: expected an array, got NoneType; where there is no gradient, pass zeros")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return np.asarray(value)
    try:
        view = memoryview(value)
    except TypeError:
        raise DtypeError(f"{where}: expected an array, got {type(value).__name__}; {remedy(value)}") from None
    return np.asarray(view)


def is_torch(value: Any) -> bool:
    """A tensor of PyTorch, which is not loaded to find out."""
    return any(cls.__module__ == "torch" and cls.__name__ == "Tensor" for cls in type(value).__mro__)


def remedy(value: Any) -> str:
    """What to pass in the place of a value whose memory numpy cannot have."""
    if is_torch(value):
        steps = [
            (value.requires_grad, ".detach()"),
            (value.is_quantized, ".dequantize()"),
            (str(value.layout) != "torch.strided", ".to_dense()"),
            (value.is_conj(), ".resolve_conj()"),
            (value.is_neg(), ".resolve_neg()"),
            (value.device.type != "cpu", ".cpu()"),
            (str(value.dtype) not in ("torch.float32", "torch.float64"), ".float()"),
        ]
        return f"pass it as tensor{''.join(step for needed, step in steps if needed)}"
    if isinstance(value, (list, tuple)):
        if any(hasattr(item, "shape") for item in value):
            return "pass one array, np.stack(value) say, or create the server with a mapping of names to arrays"
        return "pass np.asarray(value, np.float32)"
    return "pass a numpy array"


def conversion(value: Any, dtype: str) -> str:
    """How to convert a value of another dtype."""
    if is_torch(value):
        return f"convert it with .to(torch.{dtype})"
    if hasattr(value, "__arrow_c_array__") or hasattr(value, "__arrow_c_stream__"):
        return f'convert it with .cast("{dtype}")' if hasattr(value, "cast") else f'convert it with .astype("{dtype}")'
    if hasattr(value, "astype"):
        return f"convert it with .astype(np.{dtype})"
    return f"pass np.asarray(value, np.{dtype})"

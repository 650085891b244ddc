"""The structure of parameters: one array, or nested mappings of arrays. Pulls return the structure that was given.

Pure: no Ray, no shared memory. A `Structure` is made when a server is created and travels in its handles; its leaves
are the arrays, in the order of the mappings.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastps.arrays.checks import overlap
from fastps.arrays.interchange import as_array, conversion
from fastps.arrays.types import DTYPES, HALVES, Array, Arrays, describe, fits, item_bytes, numpy_dtype, type_name
from fastps.errors import DtypeError, NamesError, OutputError, ShapeError
from fastps.messages import brief, few, few_of

Path = tuple[str, ...]


@dataclass(frozen=True)
class Leaf:
    """One array of the parameters.

    Attributes
    ----------
    path : the names that lead to it; empty when the parameters are one array
    shape : elements per dimension
    dtype : "float32" or "float64": how it is stored
    given : the dtype of the initial value, which pulls without `out` return: `dtype`, or one of half precision that is
        stored as float32
    """

    path: Path
    shape: tuple[int, ...]
    dtype: str
    given: str

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def item_bytes(self) -> int:
        return item_bytes(self.dtype)

    @property
    def name(self) -> str:
        return "/".join(self.path) or "params"

    def __str__(self) -> str:
        return type_name(self.given, self.shape)


@dataclass(frozen=True)
class Structure:
    """The arrays of the parameters, in order. One leaf with an empty path means that the parameters are one array."""

    leaves: tuple[Leaf, ...]

    @property
    def is_array(self) -> bool:
        return len(self.leaves) == 1 and not self.leaves[0].path

    @property
    def size(self) -> int:
        """Elements of all arrays together."""
        return sum(leaf.size for leaf in self.leaves)

    def __str__(self) -> str:
        if self.is_array:
            return str(self.leaves[0])
        return "{" + few_of((f"{leaf.name}: {leaf}" for leaf in self.leaves), len(self.leaves)) + "}"

    def empty(self) -> Arrays:
        """A new uninitialised array for each leaf."""
        return [np.empty(leaf.shape, numpy_dtype(leaf.given)) for leaf in self.leaves]

    def assemble(self, arrays: list[Any]) -> Any:
        """One value for each leaf, put into the structure of the parameters: the value alone, or nested dicts."""
        if self.is_array:
            return arrays[0]
        tree: dict[str, Any] = {}
        for leaf, array in zip(self.leaves, arrays, strict=True):
            node = tree
            for name in leaf.path[:-1]:
                node = node.setdefault(name, {})
            node[leaf.path[-1]] = array
        return tree

    def grads(self, value: Any, verb: str) -> Arrays:
        """The arrays of `value`, checked against the leaves. Those that are not C-contiguous are copied.

        Raises
        ------
        NamesError, DtypeError, ShapeError
        """
        return [np.ascontiguousarray(array) for array in self._match(value, verb)]

    def outs(self, value: Any, verb: str) -> Arrays:
        """The arrays of `value`, checked against the leaves, and that they can be written in place.

        Raises
        ------
        NamesError, DtypeError, ShapeError
        OutputError
            An array is read-only, not C-contiguous or not aligned, or shares memory with another one.
        """
        arrays = self._match(value, verb, out=True)
        if self.is_array and not hasattr(value, "__len__") and isinstance(value, (int, float, np.generic)):
            raise OutputError(f"{verb} out: expected an array, got {type(value).__name__}; pass np.empty(())")
        for leaf, array in zip(self.leaves, arrays, strict=True):
            problem = (
                "is read-only"
                if not array.flags.writeable
                else "is not C-contiguous"
                if not array.flags.c_contiguous
                else "is not aligned"
                if not array.flags.aligned
                else None
            )
            if problem:
                raise OutputError(
                    f"{verb} out of `{leaf.name}`: expected a writable, C-contiguous {leaf}, got one that {problem}; "
                    f"{replacement(leaf)}"
                )
        if (both := overlap(arrays)) is not None:
            one, other = (self.leaves[i].name for i in both)
            raise OutputError(f"{verb} out: `{one}` and `{other}` share memory; pass separate arrays")
        return arrays

    def _match(self, value: Any, verb: str, out: bool = False) -> Arrays:
        values: dict[Path, Any] = {(): value} if self.is_array else dict(_walk(value, (), verb))
        paths = {leaf.path for leaf in self.leaves}
        if values.keys() != paths:
            raise NamesError(
                f"{verb}: "
                + " and ".join(
                    f"{what} {few(['/'.join(path) for path in found])}"
                    for what, found in (
                        ("missing", [leaf.path for leaf in self.leaves if leaf.path not in values]),
                        ("unknown", [path for path in values if path not in paths]),
                    )
                    if found
                )
                + f"; expected {self}: pass exactly the names of the parameters"
            )
        arrays = []
        for leaf in self.leaves:
            given = values[leaf.path]
            array = as_array(given, f"{verb} `{leaf.name}`", leaf.dtype)
            if not fits(array.dtype, leaf.dtype):
                hint = replacement(leaf) if out else conversion(given, leaf.dtype)
                raise DtypeError(f"{verb} `{leaf.name}`: expected {leaf}, got {describe(array)}; {hint}")
            if array.shape != leaf.shape:
                hint = replacement(leaf) if out else reshaping(array, leaf)
                raise ShapeError(f"{verb} `{leaf.name}`: expected {leaf}, got {describe(array)}; {hint}")
            arrays.append(array)
        return arrays


def replacement(leaf: Leaf) -> str:
    """What to pass instead of an `out` that does not fit: a new array, since a conversion would make a copy."""
    return f"pass np.empty({leaf.shape}, np.{leaf.dtype}), or omit out="


def reshaping(array: Array, leaf: Leaf) -> str:
    """What to pass instead of an array of another shape."""
    if array.size == leaf.size:
        return f"pass it as .reshape{leaf.shape if len(leaf.shape) != 1 else f'({leaf.shape[0]})'}"
    return "pass an array of the parameter's own shape"


def structure_of(params: Any) -> tuple[Structure, Arrays]:
    """The structure of initial parameters, and their arrays, C-contiguous.

    Raises a ParameterError for what fastps cannot store.
    """
    if isinstance(params, Mapping):
        found = _walk(params, (), "create")
        if not found:
            raise ShapeError("create: expected at least one array, got an empty mapping")
    else:
        found = [((), params)]
    leaves, arrays = [], []
    for path, value in found:
        name = "/".join(path) or "params"
        array = as_array(value, f"create `{name}`")
        given = array.dtype.name
        if given not in (*DTYPES, *HALVES) or not array.dtype.isnative:
            raise DtypeError(
                f"create `{name}`: expected float32, float64, bfloat16 or float16, got {describe(array)}; "
                f"{conversion(value, 'float32')}"
            )
        leaf = Leaf(path, array.shape, "float32" if given in HALVES else given, given)
        if given in HALVES:
            array = array.astype(np.float32)
        if leaf.size == 0:
            raise ShapeError(f"create `{name}`: expected at least one element, got {leaf}")
        leaves.append(leaf)
        arrays.append(np.ascontiguousarray(array).reshape(array.shape))
    return Structure(tuple(leaves)), arrays


def require_name(name: Any, path: Path, verb: str) -> None:
    """Raises NamesError for a key of a mapping that is not a str, or empty. `path` leads to the mapping."""
    if not isinstance(name, str) or not name:
        raise NamesError(
            f"{verb}: expected names to be non-empty str, got {type(name).__name__} {brief(name)} - at "
            f"`{'/'.join(path) or 'the top'}`"
        )


def require_distinct(paths: Iterable[Path]) -> None:
    """Raises NamesError when two paths have the same name: names may contain the "/" that joins them."""
    seen: dict[str, Path] = {}
    for path in paths:
        other = seen.setdefault("/".join(path), path)
        if other is not path:
            one, two = ("params" + "".join(f"[{name!r}]" for name in names) for names in (other, path))
            raise NamesError(f"create: {one} and {two} are both called `{'/'.join(path)}`; rename one")


def zeros(length: int) -> Structure:
    """The structure of `length` float64 zeros."""
    if length <= 0:
        raise ShapeError(f"create: expected at least one element, got {length}")
    return Structure((Leaf((), (length,), "float64", "float64"),))


def _walk(value: Any, path: Path, verb: str) -> list[tuple[Path, Any]]:
    if not isinstance(value, Mapping):
        if not path:
            hint = "; give them their names: dict(zip(ps, arrays))" if isinstance(value, (list, tuple)) else ""
            raise NamesError(f"{verb}: expected a mapping of names to arrays, got {type(value).__name__}{hint}")
        return [(path, value)]
    found = []
    if path and not value:
        raise ShapeError(f"{verb}: expected at least one array in `{'/'.join(path)}`, got an empty mapping")
    for name, item in value.items():
        require_name(name, path, verb)
        found += _walk(item, (*path, name), verb)
    return found

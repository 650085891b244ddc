"""The structure of parameters: an array, or a nested mapping of arrays, and back. The shape that goes in comes out.

Pure: no Ray, no shared memory. `Structure` is what a server is created from and what travels in a handle; the leaves of
a tree are its arrays in the order of the mapping.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from fastps.arrays.interchange import as_array, conversion
from fastps.errors import DtypeError, NamesError, OutputError, ShapeError
from fastps.messages import brief, few, few_of

DTYPES = ("float32", "float64")
FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
Path = tuple[str, ...]
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Leaf:
    """One array of the parameters.

    Attributes
    ----------
    path : the names that lead to it; empty when the parameters are one array
    shape : elements a dimension
    dtype : "float32" or "float64"
    """

    path: Path
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def item_bytes(self) -> int:
        return 4 if self.dtype == "float32" else 8

    @property
    def name(self) -> str:
        return "/".join(self.path) or "params"

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Structure:
    """The arrays of the parameters in order. One leaf with an empty path means a bare array."""

    leaves: tuple[Leaf, ...]

    @property
    def is_array(self) -> bool:
        return len(self.leaves) == 1 and not self.leaves[0].path

    @property
    def size(self) -> int:
        """Elements in all."""
        return sum(leaf.size for leaf in self.leaves)

    def __str__(self) -> str:
        if self.is_array:
            return str(self.leaves[0])
        return "{" + few_of((f"{leaf.name}: {leaf}" for leaf in self.leaves), len(self.leaves)) + "}"

    def empty(self) -> list[Array]:
        """A new uninitialised array per leaf."""
        return [np.empty(leaf.shape, FLOAT32 if leaf.dtype == "float32" else FLOAT64) for leaf in self.leaves]

    def assemble(self, arrays: list[Any]) -> Any:
        """The leaves' values in the structure that the parameters came in: a bare one, or nested dicts."""
        if self.is_array:
            return arrays[0]
        tree: dict[str, Any] = {}
        for leaf, array in zip(self.leaves, arrays, strict=True):
            node = tree
            for name in leaf.path[:-1]:
                node = node.setdefault(name, {})
            node[leaf.path[-1]] = array
        return tree

    def grads(self, value: Any, verb: str) -> list[Array]:
        """The arrays of `value`, checked against the leaves, C-contiguous; copied only where they are not."""
        return [np.ascontiguousarray(array) for array in self._match(value, verb)]

    def outs(self, value: Any, verb: str) -> list[Array]:
        """The arrays of `value`, checked to be writable in place."""
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
        by_address = sorted((*byte_bounds(array), leaf.name) for array, leaf in zip(arrays, self.leaves, strict=True))
        for (_, end, one), (start, _, other) in pairwise(by_address):
            if end > start:
                raise OutputError(f"{verb} out: `{one}` and `{other}` share memory; pass separate arrays")
        return arrays

    def _match(self, value: Any, verb: str, out: bool = False) -> list[Array]:
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
            if array.dtype != leaf.dtype:
                hint = replacement(leaf) if out else conversion(given, leaf.dtype)
                raise DtypeError(f"{verb} `{leaf.name}`: expected {leaf}, got {describe(array)}; {hint}")
            if array.shape != leaf.shape:
                hint = replacement(leaf) if out else reshaping(array, leaf)
                raise ShapeError(f"{verb} `{leaf.name}`: expected {leaf}, got {describe(array)}; {hint}")
            arrays.append(array)
        return arrays


def replacement(leaf: Leaf) -> str:
    """What to do with an `out` that does not fit: what it were converted to would be another array."""
    return f"pass np.empty({leaf.shape}, np.{leaf.dtype}), or omit out="


def reshaping(array: Array, leaf: Leaf) -> str:
    """What to do with an array of another shape."""
    if array.size == leaf.size:
        return f"pass it as .reshape{leaf.shape if len(leaf.shape) != 1 else f'({leaf.shape[0]})'}"
    return "pass an array of the parameter's own shape"


def describe(array: Array) -> str:
    return f"{array.dtype}[{', '.join(map(str, array.shape))}]"


def structure_of(params: Any) -> tuple[Structure, list[Array]]:
    """The structure of initial parameters and their arrays. Raises a ParameterError for what fastps cannot store."""
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
        if array.dtype.name not in DTYPES or not array.dtype.isnative:
            raise DtypeError(
                f"create `{name}`: expected float32 or float64, got {describe(array)}; {conversion(value, 'float32')}"
            )
        leaf = Leaf(path, array.shape, array.dtype.name)
        if leaf.size == 0:
            raise ShapeError(f"create `{name}`: expected at least one element, got {leaf}")
        leaves.append(leaf)
        arrays.append(np.ascontiguousarray(array).reshape(array.shape))
    return Structure(tuple(leaves)), arrays


def require_name(name: Any, path: Path, verb: str) -> None:
    """Raises NamesError where a mapping has something else as a name."""
    if not isinstance(name, str) or not name:
        raise NamesError(
            f"{verb}: expected names to be str and not empty, got {type(name).__name__} {brief(name)} - at "
            f"`{'/'.join(path) or 'the top'}`"
        )


def require_distinct(paths: Iterable[Path]) -> None:
    """Names may have a "/" in them, too. Raises NamesError where two things would have one name."""
    seen: dict[str, Path] = {}
    for path in paths:
        other = seen.setdefault("/".join(path), path)
        if other is not path:
            one, two = ("params" + "".join(f"[{name!r}]" for name in names) for names in (other, path))
            raise NamesError(f"create: {one} and {two} are both called `{'/'.join(path)}`; rename one")


def byte_bounds(array: Array) -> tuple[int, int]:
    """Where a C-contiguous array begins and ends."""
    start: int = array.__array_interface__["data"][0]
    return start, start + array.nbytes


def zeros(length: int) -> Structure:
    """The structure of `length` float64 zeros."""
    if length <= 0:
        raise ShapeError(f"create: expected at least one element, got {length}")
    return Structure((Leaf((), (length,), "float64"),))


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

"""The structure of initial parameters, and their arrays as they are stored. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastps._core import shards_of
from fastps.arrays.interchange import as_array, conversion, is_complex
from fastps.arrays.types import DTYPES, HALVES, Array, Arrays, describe
from fastps.errors import DtypeError, NamesError, OptionError, ShapeError
from fastps.spec.arrays import CARRIED, Leaf, Structure, memory_of
from fastps.spec.keys import Keys
from fastps.spec.table import Table, TableInfo
from fastps.spec.tree import Container, Path, taken_apart

CONSTANTS = (bool, int, str, bytes, complex, type(None))


@dataclass(frozen=True, eq=False)
class RowBatch:
    """Some rows of a table.

    Attributes
    ----------
    keys : uint64[n]; of one that comes twice, the last row counts
    streams : the values and each slot, dtype[n, elements], C-contiguous; None: initial values
    uses : how many ticks ago and how often they were used, uint32[n, 2]; None: unknown
    """

    keys: Keys
    streams: list[Any]
    uses: Array | None = None


@dataclass(frozen=True, eq=False)
class FirstRows:
    """The rows with which a table begins.

    Attributes
    ----------
    table : its number
    batches : of its rows; may be read once
    steps : its update count on each shard; empty: 0
    now : the time in its ticks
    """

    table: int
    batches: Iterable[RowBatch]
    steps: tuple[int, ...] = ()
    now: int = 1


@dataclass(frozen=True, eq=False)
class SavedRows:
    """The rows of a table of another server.

    Attributes
    ----------
    batches : reads them, as they are in a table like this one
    count : how many there are at most
    steps : its update count on each of that server's shards
    now : the time in its ticks
    """

    batches: Callable[[TableInfo], Iterator[RowBatch]]
    count: int
    steps: tuple[int, ...]
    now: int

    def require_room(self, info: TableInfo, num_shards: int) -> None:
        """Raises OptionError if a shard may not have as many rows as there are for it."""
        if info.capacity is None or self.count <= info.capacity:
            return
        keys = np.unique(np.concatenate([batch.keys for batch in self.batches(info)]))
        most = int(np.bincount(shards_of(keys, num_shards), minlength=1).max()) if len(keys) else 0
        if most > info.capacity:
            raise OptionError(
                f"restore: the table {info.name!r} has {most:,} rows for one of {num_shards} shards, which may have "
                f"{info.capacity:,}; pass more shards, or tables={{{info.name!r}: fastps.Table({info.dim}, ...)}} with "
                f"a larger capacity"
            )

    def first(self, table: int, info: TableInfo, num_shards: int) -> FirstRows:
        """For a table of another server. On another number of shards each gets the largest update count."""
        same = len(self.steps) == num_shards
        steps = self.steps if same else (max(self.steps, default=0),) * num_shards
        return FirstRows(table, self.batches(info), steps, self.now)


@dataclass(frozen=True, eq=False)
class State:
    """The state of a server: what another one can begin with, in place of initial parameters.

    Attributes
    ----------
    structure : of the arrays
    arrays : their values, as they are stored
    slots : by name, the values of a slot, one array per leaf; those of leaves without it are ignored
    steps : the update count of each array
    tables : by path, those of the user: tables of sightings are not among them
    rows : by the name of a table, its rows
    """

    structure: Structure
    arrays: Arrays
    slots: dict[str, Arrays]
    steps: tuple[int, ...]
    tables: Mapping[Path, Table] = field(default_factory=dict)
    rows: Mapping[str, SavedRows] = field(default_factory=dict)


def structure_of(params: Any) -> tuple[Structure, Arrays]:
    """The structure of initial parameters, and their arrays as they are stored, C-contiguous. The same memory twice is
    one leaf.

    Raises a ParameterError for what fastps cannot store.
    """
    tree, found = taken_apart(params, "create")
    leaves: list[Leaf] = []
    arrays: Arrays = []
    constants: list[Any] = []
    numbers: list[int] = []  # that of the leaf of each value that was found, or -1 and below of constants
    seen: dict[Any, int] = {}
    for path, value in found:
        if path and isinstance(value, CONSTANTS):
            constants.append(value)
            numbers.append(-len(constants))
            continue
        leaf, array = _stored(path, value)
        same = memory_of(array) if array.size else path
        if same not in seen:
            seen[same] = len(leaves)
            leaves.append(leaf)
            arrays.append(array)
        numbers.append(seen[same])
    if not any(leaf.trains for leaf in leaves):
        raise _nothing_to_train(leaves, [value for path, value in found if not (path and isinstance(value, CONSTANTS))])
    numbers = [number if number >= 0 else len(leaves) - number - 1 for number in numbers]
    whole = tree.renumbered(numbers) if isinstance(tree, Container) else None
    stored = [_as_stored(leaf, array) for leaf, array in zip(leaves, arrays, strict=True)]
    return Structure(tuple(leaves), whole, tuple(constants)), stored


def _stored(path: Path, value: Any) -> tuple[Leaf, Array]:
    """The leaf for an initial value, and its array."""
    name = "/".join(path) or "params"
    array = as_array(value, f"create `{name}`")
    given = array.dtype
    if not given.isnative:
        raise DtypeError(
            f"create `{name}`: expected native bytes, got {describe(array)}; {conversion(value, 'float32')}"
        )
    trains = given.name in (*DTYPES, *HALVES) and array.size > 0
    dtype = CARRIED if not trains else "float32" if given.name in HALVES else given.name
    return Leaf(path, array.shape, dtype, given), array


def _as_stored(leaf: Leaf, array: Array) -> Array:
    if leaf.trains:
        return np.ascontiguousarray(array, leaf.dtype).reshape(leaf.shape)
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _nothing_to_train(leaves: list[Leaf], values: list[Any]) -> DtypeError | ShapeError:
    """The error for parameters without an array that a rule can train, of which the first is named."""
    if not leaves:
        return DtypeError("create: expected at least one array of float32, float64, bfloat16 or float16, got none")
    leaf = leaves[0]
    if leaf.size == 0:
        return ShapeError(f"create `{leaf.name}`: expected at least one element, got {leaf}")
    if is_complex(values[0]):
        hint = "pass its parts, .real and .imag, as two arrays"
    else:
        hint = conversion(values[0], "float32")
    return DtypeError(f"create `{leaf.name}`: expected float32, float64, bfloat16 or float16, got {leaf}; {hint}")


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
    return Structure((Leaf.of((), (length,), "float64"),))

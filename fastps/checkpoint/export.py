"""Checkpoints as files of other programs: the arrays as one file of safetensors, the rows of a table as Parquet.

Every file has a hidden name beside its own until it is complete; after an error, or Ctrl-C, nothing is left. pyarrow is
loaded where rows are written. The file of torch is in `state_dict`, which loads torch.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from fastps.arrays.types import HALVES, Array
from fastps.checkpoint.files import NAMES, Tensor, chunks_of, write_file
from fastps.checkpoint.load import Checkpoint
from fastps.checkpoint.recorded import recorded_tables
from fastps.checkpoint.structures import names_of
from fastps.errors import CheckpointError, FileError, MissingFileError, OptionError
from fastps.messages import few
from fastps.spec.arrays import Leaf
from fastps.spec.initial import SavedRows, State
from fastps.spec.keys import Keys
from fastps.spec.table import TableInfo


@dataclass(frozen=True, eq=False)
class NamedArrays:
    """Arrays as they are exported.

    Attributes
    ----------
    arrays : by name; the same array under several names if it comes several times in the parameters
    omitted : names of arrays whose elements are of no type that other programs know, such as text
    """

    arrays: dict[str, Array]
    omitted: tuple[str, ...]


Writer = Callable[[Path, NamedArrays], None]


def named_arrays(state: State, stored: bool = False, slots: bool = False) -> NamedArrays:
    """The arrays of a checkpoint by their names, those of nested containers joined by "/".

    Parameters
    ----------
    stored : half-precision arrays are float32, as the server has them, in place of the type in which they were given
    slots : also ``slots/SLOT/NAME``, as they are stored

    Raises
    ------
    OptionError
        There are no arrays.
    CheckpointError
        Two arrays have the same name.
    """
    arrays: dict[str, Array] = {}
    omitted: list[str] = []

    def add(name: str, array: Array) -> None:
        if arrays.setdefault(name, array) is not array:
            raise CheckpointError(f"two arrays are called `{name}`; export without slots")

    if not state.structure.leaves:
        raise OptionError("the checkpoint has tables alone; pass --table NAME and a file that ends in .parquet")
    names = names_of(state.structure)
    for leaf, array, own in zip(state.structure.leaves, state.arrays, names, strict=True):
        values = _as_given(leaf, array, stored)
        for name in own:
            if values is None:
                omitted.append(name)
            else:
                add(name, values)
    for slot, values_of in state.slots.items() if slots else ():
        for leaf, values, own in zip(state.structure.leaves, values_of, names, strict=True):
            if leaf.trains and values.size:
                add(f"slots/{slot}/{own[0]}", values)
    return NamedArrays(arrays, tuple(omitted))


def _as_given(leaf: Leaf, array: Array, stored: bool) -> Array | None:
    """The array in the type in which it was given; None if others do not know that."""
    if leaf.trains:
        return array if stored or leaf.given.name not in HALVES else array.astype(leaf.given)
    if leaf.given.name not in NAMES or not leaf.given.isnative:
        return None
    return array.view(leaf.given).reshape(leaf.shape)


def write_safetensors(path: Path, named: NamedArrays) -> None:
    """Writes a new file of safetensors. The format has no array with two names: such a one is in it twice."""
    # The largest elements first, so all of them are aligned.
    tensors = [
        Tensor(name, array.dtype.name, array.shape, np.ascontiguousarray(array).reshape(-1).view(np.uint8))
        for name, array in sorted(named.arrays.items(), key=lambda item: -item[1].itemsize)
    ]
    write_file(path.parent, path.name, chunks_of(tensors)[0])


def export_arrays(target: Path, named: NamedArrays, write: Writer) -> None:
    """Makes a file of arrays by a function that writes a new one. Raises FileError."""
    require_free(target)
    temporary = target.with_name(f".{target.name}-{os.urandom(6).hex()}")
    try:
        with _writing(target):
            write(temporary, named)
        require_free(target)
        with _writing(target):
            temporary.rename(target)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Turns errors of a file into a FileError that names the target."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        kind = MissingFileError if error.errno == errno.ENOENT else FileError
        raise kind(
            error.errno,
            f"{str(target)!r} cannot be written ({reason}); nothing was exported; pass a path in a directory "
            f"that exists, has space left, and is writable for this process",
        ) from error


def require_free(target: Path) -> None:
    """Raises FileError if something has this name."""
    if os.path.lexists(target):
        raise FileError(
            errno.EEXIST,
            f"{str(target)!r} is there already; it was not changed; remove it, or pass another path",
        )


class _Table:
    """The rows of a table of a checkpoint, as `parquet.write` reads them."""

    def __init__(self, info: TableInfo, rows: SavedRows, in_increments: bool) -> None:
        self.info, self._rows, self._in_increments = info, rows, in_increments

    def scan(self, most: int, wanted: list[bool], timeout: float | None) -> Iterator[tuple[Keys, list[Any]]]:
        """In the batches in which they were saved, with all streams. Where there are increments, this is a second pass:
        the first one is over the keys, of which it needs about 40 B each."""
        if not self._in_increments:
            for batch in self._rows.batches(self.info):
                yield batch.keys, batch.streams
            return
        last = last_of([batch.keys for batch in self._rows.batches(self.info)])
        for batch, chosen in zip(self._rows.batches(self.info), last, strict=True):
            if chosen.any():
                yield batch.keys[chosen], [stream[chosen] for stream in batch.streams]


def last_of(batches: list[Keys]) -> list[Array]:
    """For each key of each batch, whether it comes no more after that."""
    ends = list(accumulate(map(len, batches)))
    keys = np.concatenate([np.empty(0, np.uint64), *batches])
    chosen = np.zeros(len(keys), bool)
    chosen[len(keys) - 1 - np.unique(keys[::-1], return_index=True)[1]] = True
    return [chosen[end - len(keys) : end] for keys, end in zip(batches, ends, strict=True)]


def tables_of(found: Checkpoint) -> dict[str, TableInfo]:
    """The user's tables, by name."""
    infos = recorded_tables(found.manifest.server.get("tables"))
    return {info.name: info for info in infos if info.counts_for is None}


def export_table(target: Path, found: Checkpoint, name: str | None, slots: bool = False) -> int:
    """Writes the rows of a table to a Parquet file, with the columns of `TableHandle.export`, and returns how many.

    Raises
    ------
    OptionError
        There is no such table; or there are several, and `name` is None.
    FileError, CheckpointError
        The file is there already, or cannot be written; the rows are damaged.
    """
    require_free(target)
    tables = tables_of(found)
    if name is None and len(tables) == 1:
        (name,) = tables
    if name not in tables:
        if not tables:
            raise OptionError("the checkpoint has no tables")
        asked = f"there is no table {name!r}; " if name is not None else ""
        raise OptionError(f"{asked}pass --table with one of {few(list(tables))}")
    assert name is not None
    from fastps.tables import parquet  # loads pyarrow

    in_increments = any(len(one.files) > 1 for one in found.manifest.rows)
    return parquet.write(_Table(tables[name], found.state.rows[name], in_increments), target, 0, slots, None)

"""Appends evicted rows to one file per shard, if `on_evict` is the path of a directory.

Runs in the process of a shard. pyarrow is loaded with this module: import it only for such a table.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fastps.errors import FileError, OptionError
from fastps.messages import few
from fastps.spec.columns import batch_of, schema_of
from fastps.spec.keys import from_keys

if TYPE_CHECKING:
    from fastps.spec.keys import Keys
    from fastps.spec.table import TableInfo


class EvictedRows:
    """A file in Arrow's stream format, created with the first rows.

    It has no end-of-stream marker, because the shard's process may die at any time; Arrow's readers accept the end of
    the file instead. When `append` returns, rows are in the file, though not synced to disk.
    """

    def __init__(self, info: TableInfo, directory: Any, shard: int) -> None:
        self._info, self._schema, self._shard = info, schema_of(info, True), shard
        self._directory = Path(directory)
        self._path = self._directory
        self._file: Any = None  # open as long as the process lives; written at `_nbytes`, without a buffer
        self._nbytes = 0  # what was appended as a whole
        if not self._directory.is_dir() or not os.access(directory, os.W_OK):
            raise OptionError(
                f"on_evict of table `{info.name}`: expected a directory that the shard's process may write to, got "
                f"{str(directory)!r}"
            )

    def append(self, keys: Keys, streams: list[Any]) -> None:
        """Appends rows; `streams` are their values and each slot, in the order of ``info.streams``.

        Raises FileError, which names the rows, with what was appended before as readable as what will be appended next.
        """
        try:
            rows = batch_of(self._info, self._schema, keys, streams).serialize()
            if self._file is None:
                self._begin()
            self._write(rows)
        except OSError as error:
            lost = few(from_keys(keys, self._info.keys).tolist())
            raise FileError(
                f"{self._path}: {len(keys):,} evicted rows are lost, of the keys {lost}: {error}"
            ) from error

    def _begin(self) -> None:
        """Creates a file that no other has the name of."""
        name = f"{quote(self._info.name, safe='')}-{self._shard}-{os.urandom(4).hex()}.arrows"
        self._path = self._directory / name
        self._file, self._nbytes = open(self._path, "xb", buffering=0), 0  # noqa: SIM115  # not closed here
        try:
            self._write(self._schema.serialize())
        except BaseException:
            self._file = None
            self._path.unlink()
            raise

    def _write(self, data: Any) -> None:
        """Writes all of a message or nothing. Where a part of it cannot be removed, the next one goes to another
        file."""
        left, at = memoryview(data), self._nbytes
        try:
            while left:
                written = os.pwrite(self._file.fileno(), left, at)
                left, at = left[written:], at + written
        except BaseException:
            try:
                os.ftruncate(self._file.fileno(), self._nbytes)
            except OSError:
                self._file = None
            raise
        self._nbytes = at

"""Appends evicted rows to one file per shard, if `on_evict` is the path of a directory.

Runs in the process of a shard. pyarrow is loaded with this module: import it only for such a table.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pyarrow as pa

from fastps.errors import OptionError
from fastps.spec.columns import batch_of, schema_of

if TYPE_CHECKING:
    from fastps.spec.keys import Keys
    from fastps.spec.table import TableInfo


class EvictedRows:
    """A file in Arrow's stream format, created with the first rows.

    It has no end-of-stream marker, because the shard's process may die at any time; Arrow's readers accept the end of
    the file instead. When `append` returns, rows are in the file, though not synced to disk.
    """

    def __init__(self, info: TableInfo, directory: Any, shard: int) -> None:
        self._info, self._schema = info, schema_of(info, True)
        self._file: Any = None  # open as long as the process lives
        self._writer: Any = None
        if not Path(directory).is_dir() or not os.access(directory, os.W_OK):
            raise OptionError(
                f"on_evict of table `{info.name}`: expected a directory that the shard's process may write to, got "
                f"{str(directory)!r}"
            )
        self._path = Path(directory) / f"{quote(info.name, safe='')}-{shard}-{os.urandom(4).hex()}.arrows"

    def append(self, keys: Keys, streams: list[Any]) -> None:
        """Appends rows; `streams` are their values and each slot, in the order of ``info.streams``."""
        if self._writer is None:
            self._file = open(self._path, "xb")  # noqa: SIM115  # not closed here
            self._writer = pa.ipc.new_stream(self._file, self._schema)
        self._writer.write_batch(batch_of(self._info, self._schema, keys, streams))
        self._file.flush()

"""The rows of tables in files of Arrow's IPC format, those of each shard in one, and in another one for each increment:
the columns of `fastps.spec.columns`, and of a tracked table how many seconds ago each row was used, and how often.

pyarrow is loaded with this module: import it only where tables are saved or restored.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa

from fastps.arrays.types import Array
from fastps.checkpoint.files import File, NewFile
from fastps.checkpoint.remote import AnyPath
from fastps.errors import CheckpointError, FastPSError
from fastps.messages import brief
from fastps.spec.columns import batch_of, rows_of, schema_of
from fastps.spec.initial import RowBatch
from fastps.spec.table import TableInfo
from fastps.transport.shm import Rows

BATCH_BYTES = 16 << 20
TICKS_PER_SECOND = 16  # FPS_TICK_NS in csrc/layout.h
# Parentheses: no slot has such a name.
KEYS = pa.field("key", pa.uint64(), nullable=False)  # as the core knows them
IDLE, USES = pa.field("(idle)", pa.float64(), nullable=False), pa.field("(uses)", pa.uint32(), nullable=False)


def row_bytes(info: TableInfo) -> int:
    """In the file."""
    return 8 + sum(n for _, n in info.streams) * info.item_bytes + (12 if info.tracked else 0)


def write_rows(folder: AnyPath, name: str, table: Rows, shard: int, now: int, deadline: float) -> tuple[File, int]:
    """Writes the rows of a shard to a new file, each as it is between two pushes. Returns the file, and how many rows.

    Rows that are created or removed meanwhile may be among them or not, and one that is removed and created again
    twice. Raises FileError, ClosedError, ShardDiedError, WaitTimeoutError.
    """
    with NewFile(folder, name) as file, _RowsWriter(file, table.info, now) as rows:
        for keys, streams, seen in table.batches(shard, rows.most, [True] * len(table.info.streams), deadline):
            rows.write(keys, streams, seen)
    return file.written(), rows.count


def write_changes(
    folder: AnyPath,
    name: str,
    keys_name: str,
    table: Rows,
    shard: int,
    now: int,
    epoch: int,
    tick: int,
    deadline: float,
) -> tuple[File, File, int]:
    """The same of the rows that have changed since an earlier scan, and a second file of the keys of all rows: a key
    that is there and no changed row is one whose row is still that of before."""
    schema = pa.schema([KEYS])
    with (
        NewFile(folder, name) as file,
        _RowsWriter(file, table.info, now) as rows,
        NewFile(folder, keys_name) as keys_file,
        pa.ipc.new_file(pa.PythonFile(keys_file, mode="w"), schema) as all_keys,
    ):
        for keys, streams, seen, others in table.changes(shard, rows.most, epoch, tick, deadline):
            if len(keys):
                rows.write(keys, streams, seen)
            both = np.concatenate([keys, others])
            all_keys.write_batch(pa.record_batch([pa.array(both)], schema=schema))
    return file.written(), keys_file.written(), rows.count


class _RowsWriter:
    """Writes batches of rows to a file, for a ``with`` block.

    Attributes
    ----------
    most : rows of a batch
    count : how many rows were written
    """

    def __init__(self, file: NewFile, info: TableInfo, now: int) -> None:
        self._info, self._now, self.count = info, now, 0
        self.most = max(1, BATCH_BYTES // row_bytes(info))
        self._schema = schema_of(info, True)
        self._whole = pa.schema([*self._schema, IDLE, USES], self._schema.metadata) if info.tracked else self._schema
        self._writer = pa.ipc.new_file(pa.PythonFile(file, mode="w"), self._whole)

    def __enter__(self) -> _RowsWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def write(self, keys: Array, streams: list[Any], seen: Array) -> None:
        batch = batch_of(self._info, self._schema, keys, streams)
        if self._info.tracked:
            idle = np.maximum(self._now - seen[:, 0].astype(np.int64), 0) / TICKS_PER_SECOND
            batch = pa.record_batch([*batch.columns, pa.array(idle), pa.array(seen[:, 1])], schema=self._whole)
        self._writer.write_batch(batch)
        self.count += len(keys)


def read_keys(data: Array, where: str) -> Array:
    """The keys of such a file, sorted. Raises CheckpointError."""
    with _reading(where):
        table = pa.ipc.open_file(pa.py_buffer(data)).read_all()
        table.validate(full=True)
        return np.sort(table.column(KEYS.name).to_numpy().astype(np.uint64, casting="equiv"))


def read_rows(
    info: TableInfo, data: Array, count: int, where: str, later: int = 0, kept: Array | None = None
) -> Iterator[RowBatch]:
    """The rows of a file whose bytes are those that were written, in place; with `kept`, those of these sorted keys.
    They count as not used for `later` ticks more than when they were written. Raises CheckpointError."""
    found = 0
    with _reading(where):
        reader = pa.ipc.open_file(pa.py_buffer(data))
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            batch.validate(full=True)
            rows = _batch(info, batch, where, later)
            found += batch.num_rows
            yield rows if kept is None else _among(rows, kept)
    if found != count:
        raise CheckpointError(f"{where}: expected {count:,} rows of the table `{info.name}`, got {found:,}")


@contextmanager
def _reading(where: str) -> Iterator[None]:
    """Whatever is wrong with a file whose checksums are right is a CheckpointError."""
    try:
        yield
    except (pa.ArrowException, FastPSError, OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{where}: it has no rows of this table ({brief(error)})") from error


def _among(rows: RowBatch, kept: Array) -> RowBatch:
    """The rows whose key is among these."""
    at = np.searchsorted(kept, rows.keys)
    there = at < len(kept)
    there[there] = kept[at[there]] == rows.keys[there]
    if there.all():
        return rows
    return RowBatch(
        rows.keys[there], [stream[there] for stream in rows.streams], None if rows.uses is None else rows.uses[there]
    )


def _batch(info: TableInfo, batch: pa.RecordBatch, where: str, later: int) -> RowBatch:
    own = [name for name in batch.schema.names if name not in (IDLE.name, USES.name)]
    keys, streams = rows_of(info, batch.select(own), where)
    if any(stream is None for stream in streams):
        raise CheckpointError(f"{where}: expected a column for the values and each slot, got {batch.schema.names}")
    uses = None
    if info.tracked and len(own) < len(batch.schema.names):
        idle, times = (batch.column(field.name).to_numpy() for field in (IDLE, USES))
        uses = np.empty((len(keys), 2), np.uint32)
        uses[:, 0], uses[:, 1] = np.clip(np.nan_to_num(idle) * TICKS_PER_SECOND + later, 0, 2**32 - 1), times
    return RowBatch(keys, streams, uses)

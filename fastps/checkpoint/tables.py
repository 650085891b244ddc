"""The rows of tables in files of Arrow's IPC format, one for each shard: the columns of `fastps.spec.columns`, and of a
tracked table how many seconds ago each row was used, and how often.

pyarrow is loaded with this module: import it only where tables are saved or restored.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from fastps.arrays.types import Array
from fastps.checkpoint.files import File, NewFile
from fastps.errors import CheckpointError, FastPSError
from fastps.messages import brief
from fastps.spec.columns import batch_of, rows_of, schema_of
from fastps.spec.initial import RowBatch
from fastps.spec.table import TableInfo
from fastps.transport.shm import Rows

BATCH_BYTES = 16 << 20
TICKS_PER_SECOND = 16  # FPS_TICK_NS in csrc/layout.h
# Parentheses: no slot has such a name.
IDLE, USES = pa.field("(idle)", pa.float64(), nullable=False), pa.field("(uses)", pa.uint32(), nullable=False)


def row_bytes(info: TableInfo) -> int:
    """In the file."""
    return 8 + sum(n for _, n in info.streams) * info.item_bytes + (12 if info.tracked else 0)


def write_rows(folder: Path, name: str, table: Rows, shard: int, now: int) -> tuple[File, int]:
    """Writes the rows of a shard to a new file, each as it is between two pushes. Returns the file, and how many rows.

    Rows that are created or removed meanwhile may be among them or not. Raises FileError, ClosedError, ShardDiedError.
    """
    info, n = table.info, 0
    schema, most = schema_of(info, True), max(1, BATCH_BYTES // row_bytes(info))
    whole = pa.schema([*schema, IDLE, USES], schema.metadata) if info.tracked else schema
    with NewFile(folder, name) as file, pa.ipc.new_file(pa.PythonFile(file, mode="w"), whole) as writer:
        for keys, streams, seen in table.batches(shard, most, [True] * len(info.streams)):
            batch = batch_of(info, schema, keys, streams)
            if info.tracked:
                idle = np.maximum(now - seen[:, 0].astype(np.int64), 0) / TICKS_PER_SECOND
                batch = pa.record_batch([*batch.columns, pa.array(idle), pa.array(seen[:, 1])], schema=whole)
            writer.write_batch(batch)
            n += len(keys)
    return file.written(), n


def read_rows(info: TableInfo, data: Array, rows: int, where: str) -> Iterator[RowBatch]:
    """The rows of a file whose bytes are those that were written, in place. Raises CheckpointError."""
    found = 0
    try:
        reader = pa.ipc.open_file(pa.py_buffer(data))
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            batch.validate(full=True)
            yield _batch(info, batch, where)
            found += batch.num_rows
    except (pa.ArrowException, FastPSError, OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{where}: no rows of the table `{info.name}` ({brief(error)})") from error
    if found != rows:
        raise CheckpointError(f"{where}: expected {rows:,} rows of the table `{info.name}`, got {found:,}")


def _batch(info: TableInfo, batch: pa.RecordBatch, where: str) -> RowBatch:
    own = [name for name in batch.schema.names if name not in (IDLE.name, USES.name)]
    keys, streams = rows_of(info, batch.select(own), where)
    if any(stream is None for stream in streams):
        raise CheckpointError(f"{where}: expected a column for the values and each slot, got {batch.schema.names}")
    uses = None
    if info.tracked and len(own) < len(batch.schema.names):
        idle, times = (batch.column(field.name).to_numpy() for field in (IDLE, USES))
        uses = np.empty((len(keys), 2), np.uint32)
        uses[:, 0], uses[:, 1] = np.clip(np.nan_to_num(idle) * TICKS_PER_SECOND, 0, 2**32 - 1), times
    return RowBatch(keys, streams, uses)

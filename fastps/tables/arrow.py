"""Tables as Arrow data and Parquet files, and back, batch by batch.

A column `key`, int64 or uint64; a column `row`, a list of `dim` values; with slots a column for each, a list, or a
number where the slot is one value a row. Written by the core into new memory that Arrow then refers to, without another
copy.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fastps.errors import DtypeError, FastPSError, FileError, MissingFileError, NamesError, OptionError, ShapeError
from fastps.messages import brief, few
from fastps.spec.keys import as_keys, from_keys

if TYPE_CHECKING:
    from fastps.client.rows import TableSession
    from fastps.spec.table import TableInfo

KEY = "key"


def schema_of(info: TableInfo, slots: bool) -> pa.Schema:
    element = pa.float32() if info.dtype == "float32" else pa.float64()
    streams = info.streams if slots else info.streams[:1]
    fields = [pa.field(KEY, pa.int64() if info.keys == "int64" else pa.uint64(), nullable=False)]
    fields += [pa.field(name, element if n == 1 and k else pa.list_(element, n)) for k, (name, n) in enumerate(streams)]
    return pa.schema(fields, {"fastps.table": info.name, "fastps.keys": info.keys, "fastps.rule": info.rule.label})


def batch_of(info: TableInfo, schema: pa.Schema, keys: Any, streams: list[Any]) -> pa.RecordBatch:
    columns: list[Any] = [pa.array(from_keys(keys, info.keys))]
    for field, stream in zip(list(schema)[1:], streams, strict=False):
        flat = pa.array(stream.reshape(-1))
        columns.append(pa.FixedSizeListArray.from_arrays(flat, type=field.type) if is_list(field.type) else flat)
    return pa.record_batch(columns, schema=schema)


def batches(table: TableSession, most: int, slots: bool, timeout: float | None) -> Iterator[pa.RecordBatch]:
    """All rows; each as it was at one moment."""
    info = table.info
    schema = schema_of(info, slots)
    wanted = [k == 0 or slots for k in range(len(info.streams))]
    for keys, streams in table.scan(most, wanted, timeout):
        yield batch_of(info, schema, keys, streams)


def is_list(kind: Any) -> bool:
    return bool(pa.types.is_fixed_size_list(kind))


def to_table(table: TableSession, most: int, slots: bool, timeout: float | None) -> pa.Table:
    return pa.Table.from_batches(list(batches(table, most, slots, timeout)), schema_of(table.info, slots))


def write(table: TableSession, path: Any, most: int, slots: bool, timeout: float | None) -> int:
    """A Parquet file, complete or not there at all; answers its rows."""
    target = path_of(path, "export")
    what, n = f"export `{table.info.name}`", 0
    name = str(target.with_name(f".{target.name}-{os.urandom(6).hex()}"))
    with _writing(target, what):
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        with _writing(target, what):
            writer = pq.ParquetWriter(name, schema_of(table.info, slots))
        try:
            for batch in batches(table, most, slots, timeout):
                with _writing(target, what):
                    writer.write_batch(batch)
                n += batch.num_rows
        finally:
            with _writing(target, what):
                writer.close()
        with _writing(target, what):
            os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise
    return n


@contextmanager
def _writing(target: Path, what: str) -> Iterator[None]:
    """Around what touches the file alone: errors of the table's side are others."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise _file_error(
            error,
            f"{what}: {str(target)!r} cannot be written ({getattr(error, 'strerror', None) or error}); nothing was "
            f"replaced; pass a path in a directory that exists and has room, where this process may write",
        ) from error


def _file_error(error: Exception, text: str) -> FileError:
    kind = MissingFileError if isinstance(error, FileNotFoundError) else FileError
    return kind(getattr(error, "errno", None), text)


def path_of(path: Any, verb: str) -> Path:
    try:
        return Path(os.fsdecode(path))
    except TypeError:
        raise OptionError(f"{verb}: expected a path, got {type(path).__name__} {brief(path)}") from None


def read(table: TableSession, path: Any, most: int, timeout: float | None) -> int:
    """Sets rows from a Parquet file; answers how many there were."""
    table.session.require_alive()  # there may be no rows
    source, n = path if hasattr(path, "read") else path_of(path, "load"), 0

    def damaged(error: Exception) -> FileError:
        return _file_error(
            error,
            f"load `{table.info.name}`: {str(path)!r} cannot be read as a Parquet file ({str(error).strip()}); "
            f"{n} rows were set before; pass a file that export() or another program has completed",
        )

    for batch in _given(_batches_of(source, most), damaged):
        n += take(table, batch, timeout)
    return n


def _batches_of(source: Any, most: int) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(source) as file:
        yield from file.iter_batches(batch_size=most)


def _given(batches: Iterator[pa.RecordBatch], told: Callable[[Exception], FastPSError]) -> Iterator[pa.RecordBatch]:
    """The batches. What is raised by what gives them is told; what is raised where they are used passes as it is."""
    try:
        yield from batches
    except Exception as error:
        raise told(error) from error


def take_all(table: TableSession, data: Any, timeout: float | None) -> int:
    """Sets rows from a RecordBatch, a Table, a reader, or anything with Arrow's C stream interface."""
    table.session.require_alive()  # there may be no rows
    if isinstance(data, pa.RecordBatch):
        return take(table, data, timeout)
    if isinstance(data, pa.Table):
        return sum(take(table, batch, timeout) for batch in data.to_batches())
    where, n = f"from_arrow `{table.info.name}`", 0
    if not hasattr(data, "__arrow_c_stream__"):
        raise DtypeError(f"{where}: expected Arrow data, got {type(data).__name__}; pass a pyarrow.Table")

    def broken(error: Exception) -> DtypeError:
        return DtypeError(
            f"{where}: {type(data).__name__} does not give its Arrow data ({error}); {n} rows were set before; pass a "
            f"pyarrow.Table"
        )

    for batch in _given(_batches_from(data), broken):
        n += take(table, batch, timeout)
    return n


def _batches_from(data: Any) -> Iterator[pa.RecordBatch]:
    yield from pa.RecordBatchReader.from_stream(data)


def take(table: TableSession, batch: pa.RecordBatch, timeout: float | None) -> int:
    info = table.info
    where = f"from_arrow `{info.name}`"
    known = [KEY, *(name for name, _ in info.streams)]
    unknown = [name for name in batch.schema.names if name not in known]
    names = batch.schema.names
    if unknown or KEY not in names or len(names) < 2 or len(set(names)) < len(names):
        raise NamesError(
            f"{where}: expected the columns {KEY} and some of {known[1:]}, each once, got {few(names)}; select or "
            f"rename them"
        )
    column = batch.column(KEY)
    if column.null_count:
        raise DtypeError(f"{where}: column {KEY} has nulls; leave their rows out")
    if info.keys == "bytes" and column.type == pa.uint64():  # what `keys()` answers
        keys = column.to_numpy()
    else:
        keys = as_keys(column if info.keys == "bytes" else column.to_numpy(zero_copy_only=False), info.keys, where)
    streams = [
        _stream(info, batch.column(name), name, n, where) if name in batch.schema.names else None
        for name, n in info.streams
    ]
    table.set(keys, streams, timeout)
    return len(keys)


def _stream(info: TableInfo, column: Any, name: str, n: int, where: str) -> Any:
    if column.null_count:
        raise DtypeError(f"{where}: column {name} has nulls; fill them, or leave their rows out")
    if is_list(column.type):
        flat, found = column.flatten(), column.type.list_size
    elif pa.types.is_list(column.type) or pa.types.is_large_list(column.type):  # as pandas writes them
        lengths = set(column.value_lengths().unique().to_pylist()) or {n}
        flat, found = column.flatten(), lengths.pop() if len(lengths) == 1 else f"from {min(lengths)} to {max(lengths)}"
    else:
        flat, found = column, 1
    if flat.null_count or str(flat.type) not in ("float", "double"):
        raise DtypeError(
            f"{where}: column {name}: expected lists of {n} {info.dtype} without nulls, got {column.type}"
            f"{' with nulls' if flat.null_count else ''}; cast it to pa.list_(pa.{info.dtype}(), {n})"
        )
    if found != n:
        raise ShapeError(f"{where}: column {name}: expected {n} values a row, got {found}")
    values = flat.to_numpy(zero_copy_only=True)
    if values.dtype != info.dtype:
        raise DtypeError(
            f"{where}: column {name}: expected {info.dtype}, got {values.dtype}; cast it to "
            f"pa.list_(pa.{info.dtype}(), {n})"
        )
    return np.ascontiguousarray(values).reshape(-1, n)


class EvictedRows:
    """An Arrow stream, a file, to which rows that ended are appended. What was appended is in the file when that
    returns; a reader comes to its end without a mark of it, as after a crash."""

    def __init__(self, info: TableInfo, directory: Any, shard: int) -> None:
        self._info, self._schema = info, schema_of(info, True)
        self._writer: Any = None
        if not Path(directory).is_dir() or not os.access(directory, os.W_OK):
            raise OptionError(
                f"on_evict of table `{info.name}`: expected a directory to write to, got {str(directory)!r}"
            )
        self._path = Path(directory) / f"{quote(info.name, safe='')}-{shard}-{os.urandom(4).hex()}.arrows"

    def append(self, keys: Any, streams: list[Any]) -> None:
        if self._writer is None:
            self._file = open(self._path, "xb")  # noqa: SIM115  # for the life of the process
            self._writer = pa.ipc.new_stream(self._file, self._schema)
        self._writer.write_batch(batch_of(self._info, self._schema, keys, streams))
        self._file.flush()

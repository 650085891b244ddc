"""The rows of a table as Arrow data and Parquet files, and back, batch by batch.

The core copies rows into new memory, which Arrow then refers to without another copy. pyarrow is loaded with this
module: import it only where Arrow is used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from fastps.errors import DtypeError, FastPSError, FileError, MissingFileError, OptionError
from fastps.messages import brief
from fastps.spec.columns import batch_of, rows_of, schema_of

if TYPE_CHECKING:
    from fastps.spec.keys import Keys
    from fastps.spec.table import TableInfo


class Scanned(Protocol):
    """Rows that are read one after the other."""

    @property
    def info(self) -> TableInfo: ...

    def scan(self, most: int, wanted: list[bool], timeout: float | None) -> Iterator[tuple[Keys, list[Any]]]:
        """All rows in batches of at most `most`: keys, and the `wanted` of the streams of ``info.streams``."""


class Rows(Scanned, Protocol):
    """The rows of a table, on any node."""

    def set(self, keys: Keys, streams: list[Any], timeout: float | None) -> None:
        """Overwrites rows, or creates them; a stream that is None is not changed."""

    def require_alive(self) -> None:
        """Raises ClosedError or ShardDiedError when the server is known to be gone."""


def batches(table: Scanned, most: int, slots: bool, timeout: float | None) -> Iterator[pa.RecordBatch]:
    """All rows in batches of at most `most`. Each row is read atomically; a batch is not."""
    info = table.info
    schema = schema_of(info, slots)
    wanted = [k == 0 or slots for k in range(len(info.streams))]
    for keys, streams in table.scan(most, wanted, timeout):
        yield batch_of(info, schema, keys, streams)


def to_table(table: Scanned, most: int, slots: bool, timeout: float | None) -> pa.Table:
    return pa.Table.from_batches(list(batches(table, most, slots, timeout)), schema_of(table.info, slots))


def write(table: Scanned, path: Any, most: int, slots: bool, timeout: float | None) -> int:
    """Writes all rows to a Parquet file and returns how many there were.

    The file is renamed to its path, replacing an existing one, when it is complete. After an error nothing was replaced
    and nothing is left behind.
    """
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
    """Turns errors into a FileError. Use it around accesses to the file only: the table's errors, which may be OSErrors
    too, must not be converted."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise _file_error(
            error,
            f"{what}: {str(target)!r} cannot be written ({getattr(error, 'strerror', None) or error}); nothing was "
            f"replaced; pass a path in a directory that exists, has space left, and is writable for this process",
        ) from error


def _file_error(error: Exception, text: str) -> FileError:
    kind = MissingFileError if isinstance(error, FileNotFoundError) else FileError
    return kind(getattr(error, "errno", None), text)


def path_of(path: Any, verb: str) -> Path:
    try:
        return Path(os.fsdecode(path))
    except TypeError:
        raise OptionError(f"{verb}: expected a path, got {type(path).__name__} {brief(path)}") from None


def read(table: Rows, path: Any, most: int, timeout: float | None) -> int:
    """Sets rows from a Parquet file, or an object with `read`, and returns how many there were."""
    table.require_alive()  # a file without rows would not detect it
    source, where, n = path if hasattr(path, "read") else path_of(path, "load"), f"load `{table.info.name}`", 0

    def damaged(error: Exception) -> FileError:
        return _file_error(
            error,
            f"{where}: {str(path)!r} cannot be read as a Parquet file ({str(error).strip()}); {n} rows were set "
            f"before; pass a file that export() or another program has completed",
        )

    for batch in _converting(_batches_of(source, most), damaged):
        n += _set(table, batch, where, timeout)
    return n


def _batches_of(source: Any, most: int) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(source) as file:
        yield from file.iter_batches(batch_size=most)


def _converting(
    batches: Iterator[pa.RecordBatch], converted: Callable[[Exception], FastPSError]
) -> Iterator[pa.RecordBatch]:
    """The batches. Errors of their source are converted; those of the loop that uses them are not."""
    try:
        yield from batches
    except Exception as error:
        raise converted(error) from error


def take_all(table: Rows, data: Any, timeout: float | None) -> int:
    """Sets rows from a RecordBatch, a Table, a reader, or anything with Arrow's C stream interface, and returns how
    many there were."""
    table.require_alive()  # data without rows would not detect it
    where, n = f"from_arrow `{table.info.name}`", 0
    if isinstance(data, pa.RecordBatch):
        return _set(table, data, where, timeout)
    if isinstance(data, pa.Table):
        return sum(_set(table, batch, where, timeout) for batch in data.to_batches())
    if not hasattr(data, "__arrow_c_stream__"):
        raise DtypeError(f"{where}: expected Arrow data, got {type(data).__name__}; pass a pyarrow.Table")

    def broken(error: Exception) -> DtypeError:
        return DtypeError(
            f"{where}: the Arrow stream of {type(data).__name__} failed ({error}); {n} rows were set before; pass a "
            f"pyarrow.Table"
        )

    for batch in _converting(_batches_from(data), broken):
        n += _set(table, batch, where, timeout)
    return n


def _batches_from(data: Any) -> Iterator[pa.RecordBatch]:
    yield from pa.RecordBatchReader.from_stream(data)


def _set(table: Rows, batch: pa.RecordBatch, where: str, timeout: float | None) -> int:
    """Sets the rows of one batch and returns how many there were."""
    keys, streams = rows_of(table.info, batch, where)
    table.set(keys, streams, timeout)
    return len(keys)

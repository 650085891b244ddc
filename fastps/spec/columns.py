"""The rows of a table as columns of an Arrow record batch: its schema, a batch of rows, and rows from a batch.

A column `key`, int64 or uint64; a column `row`, a list of `dim` values; and one column for each slot: a list, or a
plain number where the slot holds one value per row. Pure: no table, no file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from fastps.errors import DtypeError, NamesError, ShapeError
from fastps.messages import few
from fastps.spec.keys import as_keys, from_keys

if TYPE_CHECKING:
    from fastps.arrays.types import Array
    from fastps.spec.keys import Keys
    from fastps.spec.table import TableInfo

KEY = "key"


def schema_of(info: TableInfo, slots: bool) -> pa.Schema:
    """The columns of a table, with or without its slots. Its metadata name the table, the kind of keys and the rule."""
    element = pa.float32() if info.dtype == "float32" else pa.float64()
    streams = info.streams if slots else info.streams[:1]
    fields = [pa.field(KEY, pa.int64() if info.keys == "int64" else pa.uint64(), nullable=False)]
    fields += [pa.field(name, element if n == 1 and k else pa.list_(element, n)) for k, (name, n) in enumerate(streams)]
    return pa.schema(fields, {"fastps.table": info.name, "fastps.keys": info.keys, "fastps.rule": info.rule.label})


def batch_of(info: TableInfo, schema: pa.Schema, keys: Keys, streams: list[Any]) -> pa.RecordBatch:
    """A batch of these rows, on the memory of the arrays: nothing is copied.

    Parameters
    ----------
    schema : of `schema_of`
    keys : uint64[n], as the core knows them
    streams : the rows and each slot, dtype[n, elements], in the order of ``info.streams``; those that the schema has no
        column for are omitted
    """
    columns: list[Any] = [pa.array(from_keys(keys, info.keys))]
    for field, stream in zip(list(schema)[1:], streams, strict=False):
        flat = pa.array(stream.reshape(-1))
        columns.append(pa.FixedSizeListArray.from_arrays(flat, type=field.type) if _is_list(field.type) else flat)
    return pa.record_batch(columns, schema=schema)


def rows_of(info: TableInfo, batch: pa.RecordBatch, where: str) -> tuple[Keys, list[Array | None]]:
    """The keys and the streams of a batch, checked; None for a stream that it has no column for.

    Keys are copied; streams are where the batch has them. Lists may be of any Arrow kind, if each has as many values as
    the stream has per row. `where` begins messages.

    Raises
    ------
    NamesError, DtypeError, KeysError, ShapeError
    """
    known = [KEY, *(name for name, _ in info.streams)]
    names = batch.schema.names
    unknown = [name for name in names if name not in known]
    if unknown or KEY not in names or len(names) < 2 or len(set(names)) < len(names):
        raise NamesError(
            f"{where}: expected the columns {KEY} and some of {known[1:]}, each once, got {few(names)}; select or "
            f"rename them"
        )
    keys = _keys(info, batch.column(KEY), where)
    streams = [_stream(info, batch.column(name), name, n, where) if name in names else None for name, n in info.streams]
    return keys, streams


def _keys(info: TableInfo, column: Any, where: str) -> Keys:
    if column.null_count:
        raise DtypeError(f"{where}: column {KEY} has nulls; omit their rows")
    if info.keys == "bytes":
        # Text, or the hashes that `keys()` and `to_arrow` return in its place.
        return column.to_numpy() if column.type == pa.uint64() else as_keys(column, info.keys, where)
    return as_keys(column.to_numpy(zero_copy_only=False), info.keys, where)


def _stream(info: TableInfo, column: Any, name: str, n: int, where: str) -> Array:
    """The values of a column as dtype[rows, n]."""
    if column.null_count:
        raise DtypeError(f"{where}: column {name} has nulls; fill them, or omit their rows")
    if _is_list(column.type):
        flat, found = column.flatten(), column.type.list_size
    elif pa.types.is_list(column.type) or pa.types.is_large_list(column.type):  # as pandas writes them
        lengths = set(column.value_lengths().unique().to_pylist()) or {n}
        flat, found = column.flatten(), lengths.pop() if len(lengths) == 1 else f"{min(lengths)} to {max(lengths)}"
    else:
        flat, found = column, 1
    if flat.null_count or str(flat.type) not in ("float", "double"):
        raise DtypeError(
            f"{where}: column {name}: expected lists of {n} {info.dtype} without nulls, got {column.type}"
            f"{' with nulls' if flat.null_count else ''}; cast it to pa.list_(pa.{info.dtype}(), {n})"
        )
    if found != n:
        raise ShapeError(f"{where}: column {name}: expected {n} values per row, got {found}")
    values = flat.to_numpy(zero_copy_only=True)
    if values.dtype != info.dtype:
        raise DtypeError(
            f"{where}: column {name}: expected {info.dtype}, got {values.dtype}; cast it to "
            f"pa.list_(pa.{info.dtype}(), {n})"
        )
    return np.ascontiguousarray(values).reshape(-1, n)


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_fixed_size_list(kind))

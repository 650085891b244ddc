"""What reads a table: common to its handle and its reader."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from fastps._core import table_initial
from fastps.arrays.interchange import as_array
from fastps.arrays.types import Array, describe, fits
from fastps.client.attach import Attachment
from fastps.client.future import Future
from fastps.client.queued import copied, copied_keys
from fastps.client.rows import RowSession
from fastps.deadline import seconds
from fastps.errors import DtypeError, OptionError, OutputError, ShapeError
from fastps.messages import brief
from fastps.scalars import flag
from fastps.spec.keys import as_keys, from_keys
from fastps.tables.nearest import nearest

BATCH = 65536


@dataclass(frozen=True)
class TableStats:
    """Counters of one table on one shard since it was created.

    Attributes
    ----------
    shard : which one
    rows, capacity : how many rows it has, and may have
    version : the update count: pushes to the table, whether or not they had keys of this shard
    created, evicted : rows that were created, and that were evicted
    rebuilt : how often the index was built, the first time included
    bytes : of memory, index included
    """

    shard: int
    rows: int
    capacity: int
    version: int
    created: int
    evicted: int
    rebuilt: int
    bytes: int


class TableReading:
    """What reads a table and changes nothing of it, for `TableHandle` and `TableReader`.

    Keys are a one-dimensional array, sequence or iterable of the table's key type, in any order; they may repeat.

    Attributes
    ----------
    attachment : this process's side of the server
    """

    def __init__(self, attachment: Attachment, number: int) -> None:
        self.attachment, self._number = attachment, number
        self._info = attachment.spec.tables[number]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.attachment, self._number)

    @property
    def _session(self) -> RowSession:
        return self.attachment.rows(self._number)

    @property
    def name(self) -> str:
        return self._info.name

    @property
    def dim(self) -> int:
        return self._info.dim

    @property
    def dtype(self) -> str:
        return self._info.dtype

    def _keys(self, keys: Any, verb: str) -> Array:
        return as_keys(keys, self._info.keys, f"{verb} `{self.name}` keys")

    def _out(self, out: Any, n: int, verb: str) -> Array:
        if out is None:
            return self._info.empty(n)
        what = f"{verb} `{self.name}` out"
        expected = f"{self.dtype}[{n}, {self.dim}]"
        hint = f"pass np.empty({(n, self.dim)}, np.{self.dtype}), or omit out="
        array = as_array(out, what, self.dtype, lambda: hint)
        if not fits(array.dtype, self.dtype) or array.shape != (n, self.dim):
            kind = ShapeError if fits(array.dtype, self.dtype) else DtypeError
            raise kind(f"{what}: expected {expected}, got {describe(array)}; {hint}")
        if not (array.flags.writeable and array.flags.c_contiguous and array.flags.aligned):
            raise OutputError(f"{what}: expected a writable, C-contiguous {expected}; {hint}")
        return array

    def peek(self, keys: Any, *, out: Any = None, timeout: float | None = None) -> Array:
        """The rows of keys, in their order: dtype[n, dim]. Creates none: of a key without a row, the initial values.

        Parameters
        ----------
        keys : n keys
        out : array, optional
            Written and returned: writable, C-contiguous dtype[n, dim]; of a float32 table also bfloat16 or float16.
        timeout : float, optional
            Seconds.

        Raises
        ------
        DtypeError, ShapeError, KeysError, OutputError
            Nothing was done.
        ClosedError, ShardDiedError, WaitTimeoutError
            What `out` holds is undefined.

        Notes
        -----
        Changes nothing of the table: a key without a row comes no nearer to the `admit`-th pull, and a row counts as no
        more recently or frequently used, for `activity`, `ttl` and `evict`. Counted as a pull in ``ps.stats()``. Cost
        on the shards' node: one C call that looks each key up and copies each row once. From 12 MiB on, writes to `out`
        bypass the caches. From another node one call per node.
        """
        session, limit = self._session, seconds(timeout)
        peeked = session.pull_directly(keys, out, False, limit)
        if peeked is not None:
            return peeked
        numbers = self._keys(keys, "peek")
        rows = self._out(out, len(numbers), "peek")
        session.pull(numbers, rows, False, limit)
        return rows if out is None else out

    def peek_async(self, keys: Any, *, out: Any = None, copy: bool = True, timeout: float | None = None) -> Future:
        """Starts a peek and returns a Future of its rows. Until it is done, `out` may be written. Runs in one order
        with the asynchronous operations of the server: see `ParameterServer.pull_async`. With ``copy=False``, `keys`
        must not change until it is done."""
        return self._later("peek_async", self.peek, (keys,), out, copy, timeout)

    def _later(
        self, verb: str, call: Callable[..., Any], given: tuple[Any, ...], out: Any, copy: Any, timeout: Any
    ) -> Future:
        """Submits an operation with these keys, and perhaps gradients."""
        session, limit, sizes = self._session.session, seconds(timeout), list[int]()
        if flag(f"{verb} copy", copy):
            keys, *grads = given
            given = (copied_keys(keys, sizes), *(copied(values, sizes) for values in grads))
        more = {} if out is None else {"out": out}
        run = partial(call, *given, **more, timeout=limit)
        return session.calls.submit(verb, run, session.limit(limit), nbytes=sum(sizes))

    def contains(self, keys: Any, *, timeout: float | None = None) -> Array:
        """bool[n]: which keys have a row now."""
        return self._session.find(self._keys(keys, "contains"), seconds(timeout))

    def activity(self, keys: Any, *, timeout: float | None = None) -> tuple[Array, Array]:
        """How many seconds ago the rows of keys were last used, to 1/16 s, and how often: float64[n], int64[n]. NaN and
        0 for keys without a row. A `peek` does not count. Raises OptionError unless the table was
        created with ``track=True``, `ttl` or `evict`."""
        if not self._info.tracked:
            raise OptionError(f"activity `{self.name}`: create the table with track=True")
        return self._session.seen(self._keys(keys, "activity"), seconds(timeout))

    def __contains__(self, key: Any) -> bool:
        return bool(self.contains([key])[0])

    def __len__(self) -> int:
        return sum(counted["rows"] for counted in self._session.counters(None).values())

    def keys(self, batch: int = BATCH) -> Iterator[Array]:
        """The keys of all rows, in batches. Rows that are created or evicted meanwhile may be included or not."""
        wanted = [False] * len(self._info.streams)
        for numbers, _ in self._session.scan(_batch(batch), wanted, None):
            yield from_keys(numbers, self._info.keys)

    def items(self, batch: int = BATCH, *, slots: bool = False) -> Iterator[tuple[Any, ...]]:
        """All rows in batches (keys, rows), or (keys, rows, {slot: values}); each row as it was at one moment."""
        streams = self._info.streams
        wanted = [k == 0 or slots for k in range(len(streams))]
        for numbers, arrays in self._session.scan(_batch(batch), wanted, None):
            keys = from_keys(numbers, self._info.keys)
            named = {name: array for (name, _), array in zip(streams[1:], arrays[1:], strict=True)}
            yield (keys, arrays[0], named) if slots else (keys, arrays[0])

    def to_arrow(self, *, slots: bool = False, timeout: float | None = None) -> Any:
        """All rows as a pyarrow.Table: columns `key` and `row`, and with `slots` one for each slot. Each row as it was
        at one moment. Cost: one copy."""
        return arrow().to_table(self._session, BATCH, slots, seconds(timeout))

    def export(self, path: Any, *, slots: bool = False, timeout: float | None = None) -> int:
        """Writes all rows to a Parquet file with the columns of `to_arrow`, batch by batch, and returns how many. An
        existing file is replaced once the new one is complete. Raises FileError if the file cannot be written, with
        nothing replaced."""
        n: int = arrow().write(self._session, path, BATCH, slots, seconds(timeout))
        return n

    def nearest(self, vector: Any, k: int = 10, *, metric: str = "cosine") -> tuple[Array, Array]:
        """The keys of the k rows nearest to a vector, nearest first, and their scores: the cosine, the inner product
        ("dot") or the negative distance ("euclidean"). Exact; cost: a pass over the table, block by block."""
        what = f"nearest `{self.name}`"
        given = vector if isinstance(vector, Sequence) else as_array(vector, what, self.dtype)
        try:
            target = np.asarray(given, self.dtype)
        except (TypeError, ValueError):
            raise DtypeError(
                f"{what}: expected {self.dtype}[{self.dim}], got {type(vector).__name__} {brief(vector)}"
            ) from None
        if target.shape != (self.dim,):
            raise ShapeError(f"nearest `{self.name}`: expected a vector of {self.dim} values, got {describe(target)}")
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
            raise OptionError(f"nearest `{self.name}`: expected k of 1 or more, got {k!r}")
        none = from_keys(np.empty(0, np.uint64), self._info.keys), self._info.empty(0)  # the types, for an empty table
        return nearest(chain([none], self.items()), target, int(k), metric)

    def initial(self, keys: Any) -> Array:
        """The initial values of the rows of keys, dtype[n, dim], whether or not those rows exist."""
        numbers = self._keys(keys, "initial")
        rows = self._info.empty(len(numbers))
        table_initial(self._info.layout(1), numbers, rows)
        return rows

    @property
    def hyper(self) -> dict[str, float | None]:
        """The hyper-parameters as they are now; None stands for a schedule."""
        return self._info.rule.named(self._session.hyper(None))

    def stats(self, *, timeout: float | None = None) -> tuple[TableStats, ...]:
        """Counters, shard by shard."""
        counted = self._session.counters(seconds(timeout))
        return tuple(TableStats(shard, **counted[shard]) for shard in sorted(counted))

    def __repr__(self) -> str:
        return f"<table `{self.name}`: {self._info}, {self._info.rule.label}>"


def arrow() -> Any:
    """The module of Arrow and Parquet: pyarrow is loaded only if it is used."""
    from fastps.tables import parquet

    return parquet


def _batch(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 2**24:
        raise OptionError(f"batch: expected a number of rows from 1 to 2**24, got {value!r}")
    return value

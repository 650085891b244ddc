"""The handle of a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from fastps._core import Outcome, table_initial
from fastps.arrays.interchange import as_array, conversion
from fastps.arrays.types import describe, fits
from fastps.client.attach import Attachment
from fastps.client.future import Future
from fastps.client.rows import RowSession
from fastps.deadline import deadline_after, left_until, seconds
from fastps.errors import DtypeError, NamesError, OptionError, OutputError, ShapeError
from fastps.messages import brief
from fastps.spec.keys import as_keys, from_keys
from fastps.tables.nearest import nearest

Array = np.ndarray[Any, np.dtype[Any]]
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


class TableHandle:
    """A table of a `ParameterServer`. It can be sent to Ray tasks and actors, as the server can, and used by any number
    of threads.

    Each row is read and written atomically; a batch is not. So a pull reads each row as some number of pushes left it,
    not all rows as of one moment. Two concurrent pushes of the same keys are both applied to each row, in an order that
    may differ from row to row.

    Keys are a one-dimensional array, sequence or iterable of the table's key type, in any order; they may repeat.
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

    def _rows(self, value: Any, n: int, what: str, elements: int | None = None) -> Array:
        """`value` as a C-contiguous array [n, elements] of the table's dtype, or of half precision for float32."""
        elements = self.dim if elements is None else elements
        array = as_array(value, what, self.dtype)
        expected = f"{self.dtype}[{n}, {elements}]"
        if not fits(array.dtype, self.dtype):
            raise DtypeError(f"{what}: expected {expected}, got {describe(array)}; {conversion(value, self.dtype)}")
        if array.shape != (n, elements):
            hint = f"; pass it as .reshape({n}, {elements})" if array.size == n * elements else ""
            raise ShapeError(f"{what}: expected {expected}, a row for each key, got {describe(array)}{hint}")
        return np.ascontiguousarray(array)

    def _out(self, out: Any, n: int, verb: str) -> Array:
        if out is None:
            return self._info.empty(n)
        what = f"{verb} `{self.name}` out"
        expected = f"{self.dtype}[{n}, {self.dim}]"
        hint = f"pass np.empty({(n, self.dim)}, np.{self.dtype}), or omit out="
        array = as_array(out, what, self.dtype)
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
            Written and returned, as by `pull`.
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
        more recently or frequently used, for `activity`, `ttl` and `evict`. Counted as a pull in ``ps.stats()``. Cost:
        as that of a `pull` of keys that have rows.
        """
        session, limit = self._session, seconds(timeout)
        peeked = session.pull_directly(keys, out, False, limit)
        if peeked is not None:
            return peeked
        numbers = self._keys(keys, "peek")
        rows = self._out(out, len(numbers), "peek")
        session.pull(numbers, rows, False, limit)
        return rows if out is None else out

    def pull(self, keys: Any, *, out: Any = None, timeout: float | None = None) -> Array:
        """The rows of keys, in their order: dtype[n, dim]. Missing rows are created; `peek` creates none.

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
        TableFullError
            A shard is full. None of the new rows was created on it.
        ClosedError, ShardDiedError, WaitTimeoutError
            What `out` holds is undefined.

        Notes
        -----
        Cost on the shards' node: one C call that looks each key up, creates new rows under a lock, and copies each row
        once. From 12 MiB on, writes to `out` bypass the caches. From another node one call per node.
        """
        session, limit = self._session, seconds(timeout)
        deadline = None if self._info.evict is None else deadline_after(session.limit(limit))
        pulled = session.pull_directly(keys, out, True, limit)
        if pulled is not None:
            return pulled
        numbers = self._keys(keys, "pull")
        rows = self._out(out, len(numbers), "pull")
        session.pull(numbers, rows, True, limit if deadline is None else left_until(deadline))
        return rows if out is None else out

    def push(self, keys: Any, grads: Any, *, timeout: float | None = None, resume: Any = None) -> None:
        """Applies the rule to the rows of keys, once per row: the gradients of a repeated key are added up first, in
        order. Missing rows are created first.

        Parameters
        ----------
        keys : n keys
        grads : dtype[n, dim], for a float32 table also of bfloat16 or float16
        timeout : float, optional
            Seconds.
        resume : object, optional
            ``error.resume`` of the WaitTimeoutError or TableFullError that an earlier push of the same keys and
            gradients raised: applies what is missing of it, once.

        Raises
        ------
        DtypeError, ShapeError, KeysError
            Nothing was applied.
        NonfiniteError
            On a server with ``nonfinite="raise"``. Nothing was applied.
        TableFullError
            Nothing was applied on that node; `applied` lists the shards of other nodes where it was.
        WaitTimeoutError
            Says on which shards the push was applied. Also raised when a full shard's process evicts no rows in time.
        """
        limit, outcome = seconds(timeout), Outcome()
        try:
            if resume is not None or not self._session.push_directly(keys, grads, limit, outcome):
                self._push(keys, grads, None, limit, resume, "push", outcome)
        except BaseException as error:
            outcome.tell(error)
            raise

    def push_pull(self, keys: Any, grads: Any, *, out: Any = None, timeout: float | None = None) -> Array:
        """A push that returns the rows as it left them, in the order of keys. Errors as for `push` and `pull`."""
        session, limit, numbers = self._session, seconds(timeout), self._keys(keys, "push_pull")
        rows, outcome, deadline = (
            self._out(out, len(numbers), "push_pull"),
            Outcome(),
            deadline_after(session.limit(limit)),
        )
        try:
            if not self._push(numbers, grads, rows, left_until(deadline), None, "push_pull", outcome):
                session.pull(numbers, rows, True, left_until(deadline))
            return rows if out is None else out
        except BaseException as error:
            outcome.tell(error)
            raise

    def _push(
        self,
        keys: Any,
        grads: Any,
        out: Array | None,
        timeout: float | None,
        resume: Any,
        verb: str,
        outcome: Outcome,
    ) -> bool:
        numbers = keys if out is not None else self._keys(keys, verb)
        given = self._rows(grads, len(numbers), f"{verb} `{self.name}` grads")
        return self._session.push(numbers, given, out, timeout, resume, outcome)

    def pull_async(self, keys: Any, *, out: Any = None, timeout: float | None = None) -> Future:
        """Starts a pull and returns a Future of its rows. Until it is done, `keys` must not change, and `out` may be
        written. Runs in one order with the asynchronous operations of the server: see `ParameterServer.pull_async`."""
        queue, limit = self._session.session.queue, seconds(timeout)
        return queue.submit("pull_async", lambda: self.pull(keys, out=out, timeout=limit))

    def peek_async(self, keys: Any, *, out: Any = None, timeout: float | None = None) -> Future:
        """Starts a peek and returns a Future of its rows. See `pull_async`."""
        queue, limit = self._session.session.queue, seconds(timeout)
        return queue.submit("peek_async", lambda: self.peek(keys, out=out, timeout=limit))

    def push_async(self, keys: Any, grads: Any, *, timeout: float | None = None) -> Future:
        """Starts a push and returns a Future. `keys` and `grads` must not change until it is done. See `pull_async`."""
        queue, limit = self._session.session.queue, seconds(timeout)
        return queue.submit("push_async", lambda: self.push(keys, grads, timeout=limit))

    def push_pull_async(self, keys: Any, grads: Any, *, out: Any = None, timeout: float | None = None) -> Future:
        """Starts a push_pull and returns a Future of the rows. See `pull_async` and `push_async`."""
        queue, limit = self._session.session.queue, seconds(timeout)
        return queue.submit("push_pull_async", lambda: self.push_pull(keys, grads, out=out, timeout=limit))

    def set(self, keys: Any, rows: Any = None, *, timeout: float | None = None, **slots: Any) -> None:
        """Sets rows, their slots, or both, without the rule: for warm starts. Missing rows are created first; of a
        repeated key the last one counts.

        `rows` is dtype[n, dim]; a slot, by its name, dtype[n, dim], or dtype[n, 1] where it is one value per row.
        """
        numbers = self._keys(keys, "set")
        streams = self._info.streams
        unknown = [name for name in slots if name not in [s for s, _ in streams[1:]]]
        if unknown:
            raise NamesError(f"set `{self.name}`: unknown slots {unknown}; it has {[s for s, _ in streams[1:]]}")
        given: dict[str, Any] = {"row": rows, **slots} if rows is not None else dict(slots)
        if not given:
            raise OptionError(f"set `{self.name}`: expected rows or slots")
        arrays = [
            self._rows(given[name], len(numbers), f"set `{self.name}` {name}", elements).astype(self.dtype, copy=False)
            if name in given
            else None
            for name, elements in streams
        ]
        outcome = Outcome()
        try:
            self._session.set(numbers, arrays, seconds(timeout), outcome)
        except BaseException as error:
            outcome.tell(error, "set")
            raise

    def evict(self, keys: Any, *, timeout: float | None = None) -> int:
        """Removes the rows of keys, and returns how many there were. A key that is used again gets a new row with its
        initial values."""
        numbers, limit, outcome = self._keys(keys, "evict"), seconds(timeout), Outcome()
        try:
            removed, _ = self._session.remove(numbers, [False] * len(self._info.streams), limit, outcome)
            return int(removed.sum())
        except BaseException as error:
            outcome.tell(error, "removal")
            raise

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

    def view(self, keys: Any) -> list[Array]:
        """Read-only arrays on the rows themselves, one per key, without a copy. They are live memory: any worker's push
        changes them, and after an eviction the memory may hold another key's row.

        Raises SplitError when shards are on other nodes. Missing rows are created. Cost: microseconds per row.
        """
        return self._session.views(self._keys(keys, "view"))

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
        return _arrow().to_table(self._session, BATCH, slots, seconds(timeout))

    def from_arrow(self, data: Any, *, timeout: float | None = None) -> int:
        """Sets rows, and slots if there are columns for them, as `set` does; returns how many rows.

        `data` is a pyarrow.Table, RecordBatch or RecordBatchReader, or anything with Arrow's C stream interface, with
        the columns of `to_arrow`; lists may be of any type if each has `dim` values. Works batch by batch: when one is
        refused (NamesError, DtypeError, ShapeError), those before it stay set.
        """
        n: int = _arrow().take_all(self._session, data, seconds(timeout))
        return n

    def export(self, path: Any, *, slots: bool = False, timeout: float | None = None) -> int:
        """Writes all rows to a Parquet file with the columns of `to_arrow`, batch by batch, and returns how many. An
        existing file is replaced once the new one is complete. Raises FileError if the file cannot be written, with
        nothing replaced."""
        n: int = _arrow().write(self._session, path, BATCH, slots, seconds(timeout))
        return n

    def load(self, path: Any, *, timeout: float | None = None) -> int:
        """Sets rows from a file that `export` wrote, and returns how many. See `from_arrow`. Raises FileError for a
        damaged file and MissingFileError for a missing one; the message says how many rows were set before."""
        n: int = _arrow().read(self._session, path, BATCH, seconds(timeout))
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

    def configure(self, *, timeout: float | None = None, **hyper: float | None) -> None:
        """Changes hyper-parameters of the table's rule for every push that begins from now on. None restores a
        schedule. Raises OptionError for unknown names and values that are not finite, with nothing changed."""
        limit = seconds(timeout)
        numbers = self._info.rule.numbers(hyper, "configure")
        outcome = Outcome()
        try:
            self._session.configure(numbers, limit, outcome)
        except BaseException as error:
            outcome.tell(error, "change")
            raise

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


def _arrow() -> Any:
    from fastps.tables import parquet  # pyarrow is loaded only if it is used

    return parquet


def _batch(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 2**24:
        raise OptionError(f"batch: expected a number of rows from 1 to 2**24, got {value!r}")
    return value

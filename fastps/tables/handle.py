"""The handle of a table."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastps._core import Outcome
from fastps.arrays.interchange import as_array, conversion
from fastps.arrays.types import Array, describe, fits
from fastps.client.future import Future
from fastps.deadline import deadline_after, left_until, seconds
from fastps.errors import DtypeError, NamesError, OptionError, ShapeError
from fastps.tables.reading import BATCH, TableReading, arrow


class TableHandle(TableReading):
    """A table of a `ParameterServer`. It can be sent to Ray tasks and actors, as the server can, and used by any number
    of threads.

    Each row is read and written atomically; a batch is not. So a pull reads each row as some number of pushes left it,
    not all rows as of one moment. Two concurrent pushes of the same keys are both applied to each row, in an order that
    may differ from row to row.

    Keys are a one-dimensional array, sequence or iterable of the table's key type, in any order; they may repeat.
    """

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

    def pull_async(self, keys: Any, *, out: Any = None, copy: bool = True, timeout: float | None = None) -> Future:
        """Starts a pull and returns a Future of its rows. Until it is done, `out` may be written. Runs in one order
        with the asynchronous operations of the server: see `ParameterServer.pull_async`. With ``copy=False``, `keys`
        must not change until it is done."""
        return self._later("pull_async", self.pull, (keys,), out, copy, timeout)

    def push_async(self, keys: Any, grads: Any, *, copy: bool = True, timeout: float | None = None) -> Future:
        """Starts a push and returns a Future. With ``copy=False``, `keys` and `grads` must not change until it is done.
        See `pull_async`."""
        return self._later("push_async", self.push, (keys, grads), None, copy, timeout)

    def push_pull_async(
        self, keys: Any, grads: Any, *, out: Any = None, copy: bool = True, timeout: float | None = None
    ) -> Future:
        """Starts a push_pull and returns a Future of the rows. See `pull_async` and `push_async`."""
        return self._later("push_pull_async", self.push_pull, (keys, grads), out, copy, timeout)

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

    def view(self, keys: Any) -> list[Array]:
        """Read-only arrays on the rows themselves, one per key, without a copy. They are live memory: any worker's push
        changes them, and after an eviction the memory may hold another key's row.

        Raises SplitError when shards are on other nodes. Missing rows are created. Cost: microseconds per row.
        """
        return self._session.views(self._keys(keys, "view"), True)

    def from_arrow(self, data: Any, *, timeout: float | None = None) -> int:
        """Sets rows, and slots if there are columns for them, as `set` does; returns how many rows.

        `data` is a pyarrow.Table, RecordBatch or RecordBatchReader, or anything with Arrow's C stream interface, with
        the columns of `to_arrow`; lists may be of any type if each has `dim` values. Works batch by batch: when one is
        refused (NamesError, DtypeError, ShapeError), those before it stay set.
        """
        n: int = arrow().take_all(self._session, data, seconds(timeout))
        return n

    def load(self, path: Any, *, timeout: float | None = None) -> int:
        """Sets rows from a file that `export` wrote, and returns how many. See `from_arrow`. Raises FileError for a
        damaged file and MissingFileError for a missing one; the message says how many rows were set before."""
        n: int = arrow().read(self._session, path, BATCH, seconds(timeout))
        return n

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

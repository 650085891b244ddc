"""Every error that fastps raises, in one tree.

    FastPSError
     +-- ParameterError          (ValueError)       parameters, gradients or out do not fit
     |    +-- ShapeError
     |    +-- DtypeError         (TypeError)
     |    +-- NamesError         (KeyError)         names missing from a mapping, or unknown
     |    +-- NonfiniteError                        gradients hold a NaN or an infinity
     |    +-- KeysError                             keys of a table that it cannot have
     |    +-- OutputError                           an `out` that cannot be written in place
     |    +-- SplitError                            a view of an array that lies on several shards
     +-- OptionError             (ValueError)       an argument of ParameterServer that cannot be
     |    +-- PlacementError                        no node has what a shard asks for
     |    +-- NameTakenError
     |    +-- RankError                             a rank that is taken, or that there is not
     +-- ServerNotFoundError     (LookupError)      no server of that name
     +-- ClosedError             (ValueError)       the server, or this handle of it, was closed
     +-- ShardDiedError          (ConnectionError)  the process of a shard is gone
     |    +-- UnavailableError                      or cannot be reached for the moment
     +-- WaitTimeoutError        (TimeoutError)     an operation did not end in time
     +-- WorkerRequiredError     (RuntimeError)     this consistency needs `with ps.worker() as w:`
     +-- RayRequiredError        (RuntimeError)     an operation needs Ray, and this process is not in it
     +-- PutOutError             (RuntimeError)     the others went on without this worker
     +-- SessionsExhaustedError  (RuntimeError)     more concurrent sessions than the arena has room for
     +-- FileError               (OSError)          a file that cannot be written, or read as what it should be
     |    +-- MissingFileError   (FileNotFoundError)
     +-- ArenaError              (OSError)          an arena that cannot be opened
     |    +-- ArenaFormatError
     +-- ArenaMemoryError        (MemoryError)      not enough memory for an arena
     +-- TableFullError          (MemoryError)      a table has as many rows as it may have
     +-- RuleError               (ValueError)       a function that is no update rule
     |    +-- CompileError       (RuntimeError)     or one that cannot be compiled

All of them survive pickling, as Ray, multiprocessing and concurrent.futures do it, with their text, attributes and
notes; what caused them becomes a note. `resume` alone stays behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

__all__ = [
    "ArenaError",
    "ArenaFormatError",
    "ArenaMemoryError",
    "ClosedError",
    "CompileError",
    "DtypeError",
    "FastPSError",
    "FileError",
    "KeysError",
    "MissingFileError",
    "NameTakenError",
    "NamesError",
    "NonfiniteError",
    "OptionError",
    "OutputError",
    "ParameterError",
    "PlacementError",
    "PutOutError",
    "RankError",
    "RayRequiredError",
    "RuleError",
    "ServerNotFoundError",
    "SessionsExhaustedError",
    "ShapeError",
    "ShardDiedError",
    "SplitError",
    "TableFullError",
    "UnavailableError",
    "WaitTimeoutError",
    "WorkerRequiredError",
]


class FastPSError(Exception):
    """The root: catches whatever fastps raises."""

    def __reduce__(self) -> tuple[Any, ...]:
        reduced: Any = super().__reduce__()
        cls, args, *rest = reduced
        state = dict(rest[0]) if rest else {}
        notes = [*getattr(self, "__notes__", ()), *causes(self)]  # a pickled exception has no __cause__
        if notes:
            state["__notes__"] = notes
        if "resume" in state:
            state["resume"] = None  # can be used once, in the process where the operation is under way
        return (cls, args, state) if state else (cls, args)


class ParameterError(FastPSError, ValueError):
    """Parameters, gradients or `out` do not fit the server's parameters. Nothing was applied."""


class ShapeError(ParameterError):
    """Another shape or length than the server's. Nothing was applied."""


class DtypeError(ParameterError, TypeError):
    """Another dtype than the server's, or one that fastps does not store. Nothing was applied."""


class NamesError(ParameterError, KeyError):
    """Names are missing from a mapping, or unknown. Nothing was applied."""

    def __str__(self) -> str:  # KeyError would show the repr
        return str(self.args[0]) if self.args else ""


class NonfiniteError(ParameterError):
    """A gradient is NaN or infinite, and the server was told to refuse that. Nothing was applied."""


class KeysError(ParameterError):
    """Keys that the table cannot have: negative or too large for its kind, or nested. Nothing was applied."""


class OutputError(ParameterError):
    """`out` is read-only, not contiguous or overlaps: it cannot be written in place. Nothing was done."""


class SplitError(ParameterError):
    """A view was asked for one array where the parameters lie on several shards."""


class OptionError(FastPSError, ValueError):
    """An argument of ParameterServer is out of its range. Nothing was created."""


class PlacementError(OptionError):
    """The cluster has no node for a shard. Nothing was created."""


class NameTakenError(OptionError):
    """A server of this name lives in the cluster already. Nothing was created."""


class RankError(OptionError):
    """A rank that a live worker has, or that the server has no room for. Nothing was changed."""


class ServerNotFoundError(FastPSError, LookupError):
    """The cluster has no server of this name."""


class ClosedError(FastPSError, ValueError):
    """The server, or this handle of it, was closed. A note names shards where a push was applied all the same."""


class ShardDiedError(FastPSError, ConnectionError):
    """The process that owns a shard is gone, and its parameters with it: it was killed, or the program that created the
    server ended or died without `close`."""


class UnavailableError(ShardDiedError):
    """The connection to a shard's process was lost; the process may be alive. Trying again is safe."""


class WaitTimeoutError(FastPSError, TimeoutError):
    """An operation did not end in time.

    Attributes
    ----------
    applied, partial, pending : tuple[int, ...]
        The shards where the push is complete, where it has been applied to a prefix of the shard (only when the
        process that holds a lock is stopped or debugged), and where nothing was done. A pull has no effect.
    resume : object or None
        Pass it to ``push(grads, resume=error.resume)`` with the same gradients to finish exactly what is missing. It
        lives in the process that raised the error; a copy of the error has None.
    """

    def __init__(
        self,
        message: str = "",
        applied: tuple[int, ...] = (),
        partial: tuple[int, ...] = (),
        pending: tuple[int, ...] = (),
        resume: object | None = None,
    ) -> None:
        super().__init__(message)
        self.applied, self.partial, self.pending, self.resume = applied, partial, pending, resume


class WorkerRequiredError(FastPSError, RuntimeError):
    """A push without a worker's session to a server whose consistency needs to know who pushes. Nothing was applied."""


class RayRequiredError(FastPSError, RuntimeError):
    """An operation needs Ray, and this process is not connected to it. Nothing was done."""


class PutOutError(FastPSError, RuntimeError):
    """The others went on without this worker. Its session rejoins by itself: see `fastps.workers.worker.Worker`."""


class SessionsExhaustedError(FastPSError, RuntimeError):
    """More threads and processes of one node work on a shard at once than it has sessions. Nothing was done."""


class FileError(FastPSError, OSError):
    """A file that cannot be read, is damaged, or cannot be written. The message says how many rows were set before, or
    that nothing was replaced."""


class MissingFileError(FileError, FileNotFoundError):
    """There is no such file, or not the directory that it should be in. Nothing was done."""


class ArenaError(FastPSError, OSError):
    """An arena could not be opened or created; the message has the operating system's reason."""


class ArenaFormatError(ArenaError):
    """What was opened is no arena, is damaged, or has another format version."""


class ArenaMemoryError(FastPSError, MemoryError):
    """Not enough memory for the parameters. Nothing was created."""


class TableFullError(FastPSError, MemoryError):
    """A shard of a table has as many rows as it may have, and new keys came.

    Nothing of the operation was applied on the shards of that node, unless `resume` says otherwise. Where the table
    makes room (`evict`), one call had more keys of the shard than it may have rows: pass fewer at once.

    Attributes
    ----------
    table : its name
    capacity : rows that the shard may have
    shard : which one
    applied : tuple[int, ...]
        The shards where the push was applied all the same.
    resume : object or None
        When rows of a push were evicted while it went on, so that a part of it is applied already: pass it to
        ``push(keys, grads, resume=error.resume)`` once there is room. It lives in the process that raised the error.
    """

    def __init__(
        self,
        message: str = "",
        table: str = "",
        capacity: int = 0,
        shard: int = 0,
        applied: tuple[int, ...] = (),
        resume: object | None = None,
    ) -> None:
        super().__init__(message)
        self.table, self.capacity, self.shard, self.applied = table, capacity, shard, applied
        self.resume = resume


class RuleError(FastPSError, ValueError):
    """A function is no update rule: its arguments, its slots or what it returns. Nothing was created."""


class CompileError(RuleError, RuntimeError):
    """A rule or a schedule could not be compiled; what numba said is the cause. Nothing was created."""


def causes(error: BaseException) -> Iterator[str]:
    """The chain of what an error was raised from, in words."""
    while error.__cause__ is not None:
        error = error.__cause__
        yield f"caused by {type(error).__name__}: {error}"

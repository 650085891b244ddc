"""Every error that fastps raises, in one tree.

    FastPSError
     +-- ParameterError          (ValueError)       parameters, gradients or out do not fit
     |    +-- ShapeError
     |    +-- DtypeError         (TypeError)
     |    +-- NamesError         (KeyError)         names missing from a mapping, or unknown
     |    +-- NonfiniteError                        gradients hold a NaN or an infinity
     |    +-- KeysError                             keys that do not fit the table's key type
     |    +-- OutputError                           an `out` that cannot be written in place
     |    +-- SplitError                            a view of an array that lies on several shards
     +-- OptionError             (ValueError)       an argument has a value that is not allowed
     |    +-- PlacementError                        no node has what a shard asks for
     |    +-- NameTakenError
     |    +-- RankError                             a rank that is taken, or out of range
     +-- ServerNotFoundError     (LookupError)      no server of that name
     +-- ClosedError             (ValueError)       the server, or this handle of it, was closed
     +-- ShardDiedError          (ConnectionError)  the process of a shard is gone
     |    +-- UnavailableError                      or cannot be reached at the moment
     +-- WaitTimeoutError        (TimeoutError)     an operation did not end in time
     +-- WorkerRequiredError     (RuntimeError)     this consistency needs `with ps.worker() as w:`
     +-- ReadOnlyError           (PermissionError)  a reader was asked to change something
     +-- RayRequiredError        (RuntimeError)     an operation needs Ray, and this process is not connected
     +-- WorkerExpelledError     (RuntimeError)     this worker was expelled
     +-- QueueFullError          (RuntimeError)     more asynchronous operations wait than a process keeps
     +-- SessionsExhaustedError  (RuntimeError)     more concurrent sessions than a shard has
     +-- CheckpointError         (ValueError)       a checkpoint that is damaged, or of another format
     +-- FileError               (OSError)          a file that cannot be written or read, or is damaged
     |    +-- MissingFileError   (FileNotFoundError)
     +-- ArenaError              (OSError)          an arena that cannot be opened
     |    +-- ArenaFormatError
     +-- ArenaMemoryError        (MemoryError)      not enough memory for an arena
     +-- TableFullError          (MemoryError)      a table has as many rows as it may have
     +-- RuleError               (ValueError)       a function that is not an update rule
     |    +-- CompileError       (RuntimeError)     or one that cannot be compiled

All of them can be pickled, as Ray, multiprocessing and concurrent.futures do, with their text, attributes and notes;
their cause becomes a note. Only `resume` is lost.
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
    "CheckpointError",
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
    "QueueFullError",
    "RankError",
    "RayRequiredError",
    "ReadOnlyError",
    "RuleError",
    "ServerNotFoundError",
    "SessionsExhaustedError",
    "ShapeError",
    "ShardDiedError",
    "SplitError",
    "TableFullError",
    "UnavailableError",
    "WaitTimeoutError",
    "WorkerExpelledError",
    "WorkerRequiredError",
]


class FastPSError(Exception):
    """The base class of every error that fastps raises.

    Attributes
    ----------
    resume : object or None
        Of a push that is applied in part and can be finished: pass it to ``push(grads, resume=error.resume)`` with the
        same gradients to apply exactly what is missing. It is valid in the process that raised the error; a copy of the
        error has None.
    """

    resume: object | None = None

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
    """Keys that do not fit the table's key type: negative, too large, or nested. Nothing was applied."""


class OutputError(ParameterError):
    """`out` cannot be written in place: it is read-only, not contiguous, or overlaps. Nothing was done."""


class SplitError(ParameterError):
    """A view was asked for one array that lies on several shards, or for shards on other nodes."""


class OptionError(FastPSError, ValueError):
    """An argument has a value that is not allowed. The call did nothing."""


class PlacementError(OptionError):
    """No node of the cluster has what a shard asks for. Nothing was created."""


class NameTakenError(OptionError):
    """A server of this name lives in the cluster already. Nothing was created."""


class RankError(OptionError):
    """A live worker has this rank, or it is out of range, or all ranks are taken. Nothing was changed."""


class ServerNotFoundError(FastPSError, LookupError):
    """The cluster has no server of this name."""


class ClosedError(FastPSError, ValueError):
    """The server, or this handle of it, was closed. A note names shards where a push was applied."""


class ShardDiedError(FastPSError, ConnectionError):
    """The process that owns a shard has ended, and its parameters are lost: it was killed, or the program that created
    the server ended or died without `close`."""


class UnavailableError(ShardDiedError):
    """The connection to a shard's process was lost; the process may be alive. Retrying is safe."""


class WaitTimeoutError(FastPSError, TimeoutError):
    """An operation did not end in time.

    Attributes
    ----------
    applied, partial, pending : tuple[int, ...]
        The shards where the push is complete, where it has been applied to a prefix of the shard (only when the
        process that holds a lock is stopped or debugged), and where nothing was done. A partial push is complete where
        a shard has none of its arrays. A pull has no effect.
    resume : object or None
        Pass it to ``push(grads, resume=error.resume)`` with the same gradients to apply exactly what is missing. It is
        valid in the process that raised the error; a copy of the error has None.
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


class ReadOnlyError(FastPSError, PermissionError):
    """A reader, `fastps.Reader` or an array or a table of one, was asked for what only a `ParameterServer` or its
    tables can do. Nothing was done."""


class RayRequiredError(FastPSError, RuntimeError):
    """An operation needs Ray, and this process is not connected to it. Nothing was done."""


class WorkerExpelledError(FastPSError, RuntimeError):
    """This worker was expelled: the others no longer wait for it. Its session rejoins with its next operation, see
    `fastps.workers.worker.Worker`."""


class QueueFullError(FastPSError, RuntimeError):
    """As many asynchronous operations wait as a process keeps for a server. Nothing was started."""


class SessionsExhaustedError(FastPSError, RuntimeError):
    """More threads and processes of one node work on a shard at once than it has sessions. Nothing was done on the
    shards of that node; `resume` is set where the push was applied elsewhere."""


class FileError(FastPSError, OSError):
    """A file that cannot be read, is damaged, or cannot be written. The message says how many rows were set before, or
    that nothing was replaced."""


class MissingFileError(FileError, FileNotFoundError):
    """There is no such file, or not the directory that it should be in. Nothing was done."""


class CheckpointError(FastPSError, ValueError):
    """A checkpoint is damaged, of another format, or says what cannot be. Nothing was restored."""


class ArenaError(FastPSError, OSError):
    """An arena could not be opened or created; the message has the operating system's reason."""


class ArenaFormatError(ArenaError):
    """What was opened is not an arena, is damaged, or has another format version."""


class ArenaMemoryError(FastPSError, MemoryError):
    """Not enough memory for the parameters. Nothing was created."""


class TableFullError(FastPSError, MemoryError):
    """A shard of a table has as many rows as it may have, and an operation has new keys.

    Nothing of the operation was applied on the shards of that node, unless `resume` is set. In a table that evicts rows
    (`evict`), one call had more keys of the shard than that may have rows: pass fewer at once.

    Attributes
    ----------
    table : its name
    capacity : rows that the shard may have
    shard : which one
    applied : tuple[int, ...]
        The shards where the push was applied.
    resume : object or None
        Set when rows of a push were evicted while it was under way, so that a part of it is applied already: pass it to
        ``push(keys, grads, resume=error.resume)`` once rows have been removed. It is valid in the process that raised
        the error.
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
    """A function is not an update rule, by its arguments, its slots or what it returns. Nothing was created."""


class CompileError(RuleError, RuntimeError):
    """A rule or a schedule could not be compiled; numba's error is the cause. Nothing was created."""


def causes(error: BaseException) -> Iterator[str]:
    """The chain of causes of an error, as text."""
    while error.__cause__ is not None:
        error = error.__cause__
        yield f"caused by {type(error).__name__}: {error}"

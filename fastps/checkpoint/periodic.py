"""Saves a server again and again, from a thread of the process that asked for it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from fastps.checkpoint.files import reason_of
from fastps.checkpoint.remote import AnyPath, RemotePath, path_of
from fastps.checkpoint.save import is_together
from fastps.checkpoint.saving import Saving
from fastps.checkpoint.series import checkpoints_in, free_name, remove
from fastps.client.attach import Attachment
from fastps.deadline import seconds as checked
from fastps.errors import ClosedError, FileError, OptionError, RayRequiredError, ShardDiedError
from fastps.scalars import flag, positive, whole

POLL_SECONDS = 0.25
MOST_SECONDS = 1e9
Counts = tuple[int, ...]


class Server(Protocol):
    """A server that can be saved."""

    attachment: Attachment

    @property
    def versions(self) -> tuple[int, ...]:
        """The update count of each shard."""

    def save(self, path: Any, *, wait: bool, since: Any, consistent: Any, timeout: float | None) -> Saving:
        """Begins to save it."""


class PeriodicSaves:
    """Saves of a server that come by themselves, until `stop`, the end of a ``with`` block, or the end of the server.

    A save that fails is logged, kept as `error`, and tried again when the next one is due.

    Attributes
    ----------
    directory : where the checkpoints are, as ``step-N``; N is the largest update count
    saved : paths of those that it has made and not removed, oldest first
    error : why the last save failed, or None
    """

    def __init__(
        self,
        directory: AnyPath,
        counts: Callable[[], Counts],
        save: Callable[..., Saving],
        *,
        steps: int | None,
        seconds: float | None,
        keep: int,
        incremental: bool,
    ) -> None:
        self.directory, self.saved = directory, list[AnyPath]()
        self.error: Exception | None = None
        self._since: AnyPath | None = None
        self._counts, self._save = counts, save
        self._steps, self._seconds, self._keep, self._incremental = steps, seconds, keep, incremental
        self._stopped = threading.Event()
        self._last, self._last_time = counts(), time.monotonic()
        self._thread = threading.Thread(target=self._run, name="fastps save", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """No save begins any more; waits for one that is under way. Idempotent."""
        self._stopped.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def __enter__(self) -> PeriodicSaves:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        pause = POLL_SECONDS if self._seconds is None else min(POLL_SECONDS, self._seconds)
        while not self._stopped.wait(pause):
            try:
                counts = self._counts()
                if self._is_due(counts):
                    self._last, self._last_time = counts, time.monotonic()  # also of one that fails
                    self._make(counts)
                    self.error = None
            except (ClosedError, ShardDiedError, RayRequiredError) as error:
                self.error = error.with_traceback(None)
                return
            except Exception as error:  # a full disk, a late node: training goes on
                if str(error) != str(self.error):
                    logging.getLogger("fastps").warning("save_every: %s", str(error))  # records are kept
                self.error = error.with_traceback(None)  # its frames would keep the arenas mapped

    def _is_due(self, counts: Counts) -> bool:
        if counts == self._last:
            return False
        if self._seconds is not None:
            return time.monotonic() - self._last_time >= self._seconds
        assert self._steps is not None
        return max(now - before for now, before in zip(counts, self._last, strict=True)) >= self._steps

    def _make(self, counts: Counts) -> None:
        path = free_name(self.directory, max(counts))
        since, self._since = self._since, None  # if it fails, the next one shares nothing
        self._save(path, since=since)
        self._since = path if self._incremental else None
        self.saved.append(path)
        self._remove_older()

    def _remove_older(self) -> None:
        """Those of earlier runs first: clocks may go back."""
        others = [path for path in checkpoints_in(self.directory) if path not in self.saved]
        for old in [*others, *self.saved][: -self._keep]:
            try:
                remove(old)
            except FileNotFoundError:
                pass  # by another program
            except OSError as error:
                logging.getLogger("fastps").warning("save_every: %s cannot be removed: %s", old, error)
        self.saved = self.saved[-self._keep :]


def periodic_saves(
    server: Server,
    directory: Any,
    steps: Any,
    seconds: Any,
    keep: Any,
    incremental: Any,
    consistent: Any,
    timeout: Any,
) -> PeriodicSaves:
    """See `ParameterServer.save_every`."""
    if (steps is None) == (seconds is None):
        raise OptionError("save_every: expected steps= or seconds=, one of them")
    every = None if steps is None else whole("save_every steps", steps, 1, 2**62)
    pause = None if seconds is None else positive("save_every seconds", seconds, MOST_SECONDS, "seconds")
    keep = whole("save_every keep", keep, 1, 2**31)
    incremental = flag("save_every incremental", incremental)
    limit = checked(timeout)
    is_together(server.attachment.spec, consistent, "save_every")
    if incremental and isinstance(path_of(directory, "save_every"), RemotePath):
        raise OptionError("save_every: incremental= shares files by hard links, which remote file systems do not have")

    def counts() -> Counts:
        """The update counts of all shards, and of the tables on them; of sightings there are some with each pull."""
        attachment = server.attachment
        tables = [attachment.rows(number).counters(None) for number in attachment.spec.table_names.values()]
        return (*server.versions, *(counted["version"] for table in tables for counted in table.values()))

    counts()  # the server is there
    save = partial(server.save, wait=True, consistent=consistent, timeout=limit)
    return PeriodicSaves(
        _directory(directory), counts, save, steps=every, seconds=pause, keep=keep, incremental=incremental
    )


def _directory(path: Any) -> AnyPath:
    """The directory, which is made. Raises FileError."""
    directory = path_of(path, "save_every")
    try:
        if isinstance(directory, RemotePath):
            directory.make()
        else:
            directory.mkdir(parents=True, exist_ok=True)
    except FileError:
        raise
    except OSError as error:
        raise FileError(
            error.errno,
            f"save_every: the directory {str(directory)!r} cannot be made ({reason_of(error)}); pass another one",
        ) from error
    return directory

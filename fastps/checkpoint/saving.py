"""A checkpoint that is being written, as the program sees it that asked for it."""

from __future__ import annotations

import os
import shutil
import threading
import weakref
from concurrent.futures import Future
from contextlib import suppress
from copy import copy
from pathlib import Path
from typing import Any

from fastps.checkpoint.files import sync_folder
from fastps.checkpoint.manifest import NAME
from fastps.checkpoint.remote import AnyPath, RemotePath
from fastps.cluster import ray as cluster
from fastps.errors import FastPSError, ShardDiedError, UnavailableError

END_SECONDS = 10.0  # for processes that write to a remote file system and are ended


class Saving:
    """A checkpoint that is being written. Dropped before it is done, it is given up: nothing has its path, and what was
    written is removed. In a process that was forked meanwhile it can be looked at, and is not given up.

    Attributes
    ----------
    path : where the checkpoint will be
    """

    def __init__(self, path: AnyPath, folder: AnyPath, writers: list[Any], reference: Any) -> None:
        self.path, self._folder, self._writers, self._reference = path, folder, writers, reference
        self._future: Future[Any] = reference.future()
        self._owner_pid = os.getpid()
        self._error: FastPSError | None = None
        self._unless_dropped = weakref.finalize(self, _dropped, self._owner_pid, folder, list(writers))

    def done(self) -> bool:
        """Whether it is there, or has failed."""
        return self._error is not None or self._future.done()

    def result(self, timeout: float | None = None) -> AnyPath:
        """Waits for it, and returns its path. After an error, also that `timeout` seconds were not enough, it is given
        up: nothing has that path, what was written is removed, and the error is raised again."""
        if self._error is not None:
            raise copy(self._error)
        try:
            cluster.get(self._reference, timeout, "save")
        except BaseException as error:
            if not self._has_come_to_its_end():
                failed = self._given_up(error)
                if failed is error:
                    raise
                raise failed from error
        self._end_writers()
        return self.path

    def _has_come_to_its_end(self) -> bool:
        """Whether it was committed although there was an error; otherwise gives it up."""
        if os.getpid() == self._owner_pid and given_up(self._folder, self._writers):
            return False
        if not isinstance(self.path, Path) or not isinstance(self._folder, Path):
            return (self.path / NAME).exists()
        if os.path.lexists(self._folder) or not os.path.lexists(self.path):
            return False
        with suppress(OSError):  # the writer may have died before it did this
            sync_folder(self.path.parent)
        return True

    def _given_up(self, error: BaseException) -> BaseException:
        """What to raise, now and later."""
        if os.getpid() != self._owner_pid:
            return error
        self._end_writers()
        failed = error
        if isinstance(error, ShardDiedError):
            failed = UnavailableError(
                f"save: the server, or a process that wrote the checkpoint, is gone; nothing was saved, save again "
                f"({error})"
            )
        unknown = UnavailableError("save: it was given up; nothing was saved, save again")
        self._error = copy(failed) if isinstance(failed, FastPSError) else unknown
        return failed

    def _end_writers(self) -> None:
        """Now, also one that is stopped, and however long this object is kept. From now on there is nothing to give up:
        in a remote file system another save may write to the same path."""
        for writer in self._writers if os.getpid() == self._owner_pid else []:
            cluster.end(writer)
        self._writers.clear()
        self._unless_dropped.detach()

    def __repr__(self) -> str:
        return f"<Saving {str(self.path)!r}, {'done' if self.done() else 'under way'}>"


def given_up(folder: AnyPath, writers: list[Any]) -> bool:
    """Removes what was written of a checkpoint, unless it was committed: False. Of this machine, one of two renames
    comes first, this one or the writer's, and the other one fails; in a remote file system the writers are ended
    before it is asked whether there is a manifest."""
    if isinstance(folder, RemotePath):
        return _remote_given_up(folder, writers)
    another = os.urandom(6).hex()
    away = folder.with_name(folder.name[: -len(another)] + another)  # as long a name, which is possible if this one is
    try:
        folder.rename(away)
    except OSError:
        return False
    shutil.rmtree(away, ignore_errors=True)
    return True


def _remote_given_up(folder: RemotePath, writers: list[Any]) -> bool:
    try:
        if (folder / NAME).exists():
            return False
        for writer in writers:
            cluster.end(writer, END_SECONDS)
        if (folder / NAME).exists():
            return False
        folder.remove()
    except OSError:  # it cannot be reached, or somebody has removed it
        pass
    return True


def _dropped(owner_pid: int, folder: AnyPath, writers: list[Any]) -> None:
    """Gives up a save that nobody asks about any more. Runs in the garbage collector, so it waits for nothing."""
    if os.getpid() != owner_pid:
        return
    if isinstance(folder, Path):
        given_up(folder, writers)
        return
    with suppress(RuntimeError):  # the interpreter ends, and so do the writers
        threading.Thread(target=given_up, args=(folder, writers), name="fastps save", daemon=True).start()

"""Saves a server: starts a writer on each node that has shards, and lets one of them commit."""

from __future__ import annotations

import os
import shutil
import weakref
from concurrent.futures import Future
from contextlib import suppress
from copy import copy
from pathlib import Path
from typing import Any

from fastps.checkpoint.described import server_to
from fastps.checkpoint.earlier import Earlier
from fastps.checkpoint.files import path_of, sync_folder, unwritable
from fastps.checkpoint.manifest import Manifest
from fastps.checkpoint.writer import CheckpointWriter, require_free
from fastps.client.attach import Attachment
from fastps.cluster import ray as cluster
from fastps.deadline import deadline_after, left_until
from fastps.errors import FastPSError, MissingFileError, ShardDiedError, UnavailableError


class Saving:
    """A checkpoint that is being written. Dropped before it is done, it is given up: nothing has its path, and what was
    written is removed. In a process that was forked meanwhile it can be looked at, and is not given up.

    Attributes
    ----------
    path : where the checkpoint will be
    """

    def __init__(self, path: Path, folder: Path, writers: list[Any], reference: Any) -> None:
        self.path, self._folder, self._writers, self._reference = path, folder, writers, reference
        self._future: Future[Any] = reference.future()
        self._owner_pid = os.getpid()
        self._error: FastPSError | None = None
        weakref.finalize(self, _dropped, self._owner_pid, folder)

    def done(self) -> bool:
        """Whether it is there, or has failed."""
        return self._error is not None or self._future.done()

    def result(self, timeout: float | None = None) -> Path:
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
        if os.getpid() == self._owner_pid and given_up(self._folder):
            return False
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
        """Now, also one that is stopped, and however long this object is kept."""
        for writer in self._writers if os.getpid() == self._owner_pid else []:
            cluster.end(writer)
        self._writers.clear()

    def __repr__(self) -> str:
        return f"<Saving {str(self.path)!r}, {'done' if self.done() else 'under way'}>"


def save(attachment: Attachment, path: Any, since: Any, timeout: float) -> Saving:
    """Begins to save a server. See `ParameterServer.save`."""
    deadline = deadline_after(timeout)
    target = path_of(path, "save")
    require_free(target)
    earlier = None if since is None else str(Earlier(path_of(since, "save since")).folder)  # which can be read
    arrays, spec = attachment.arrays or attachment.attach(), attachment.spec
    arrays.session.versions(left_until(deadline))  # the server is alive, on all nodes
    cluster.require("save")
    arrays.settle(left_until(deadline))
    of_tables = [attachment.rows(number).hyper(left_until(deadline)) for number in range(len(spec.tables))]
    server = server_to(spec, arrays.hyper_by_row(left_until(deadline)), of_tables)
    folder = target.with_name(f".{target.name}-{os.urandom(6).hex()}")
    try:
        folder.mkdir()
    except FileNotFoundError as error:
        raise MissingFileError(
            error.errno, f"save: there is no directory {str(target.parent)!r}; nothing was saved; create it first"
        ) from error
    except OSError as error:
        raise unwritable(target, error) from error
    try:
        writers = [
            cluster.start_on(node.node_id, CheckpointWriter, 1, cluster.generated(os.urandom(16).hex(), "writer"))()
            for node in spec.nodes
        ]
        parts = [
            writer.write.remote(spec, str(folder), number, earlier, left_until(deadline))
            for number, writer in enumerate(writers)
        ]
        slots = [] if spec.consistency.local else spec.slot_names()
        draft = Manifest(spec.server_id, server, tuple(slots), (), 0.0, (), (), ())
        reference = writers[0].commit.remote(str(folder), str(target), draft, spec.consistency.rounds, *parts)
    except BaseException:
        given_up(folder)
        raise
    return Saving(target, folder, writers, reference)


def given_up(folder: Path) -> bool:
    """Removes what was written of a checkpoint, unless it was committed: False. One of two renames comes first, this
    one or the writer's; the other one fails."""
    another = os.urandom(6).hex()
    away = folder.with_name(folder.name[: -len(another)] + another)  # as long a name, which is possible if this one is
    try:
        folder.rename(away)
    except OSError:
        return False
    shutil.rmtree(away, ignore_errors=True)
    return True


def _dropped(owner_pid: int, folder: Path) -> None:
    if os.getpid() == owner_pid:
        given_up(folder)

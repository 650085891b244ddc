"""Saves a server: starts a writer on each node that has shards, and lets one of them commit."""

from __future__ import annotations

import os
import shutil
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fastps.checkpoint.described import server_to
from fastps.checkpoint.earlier import Earlier
from fastps.checkpoint.files import unwritable
from fastps.checkpoint.manifest import NAME, Manifest
from fastps.checkpoint.remote import AnyPath, RemotePath, path_of
from fastps.checkpoint.writer import CheckpointWriter, require_free
from fastps.client.attach import Attachment
from fastps.cluster import ray as cluster
from fastps.deadline import deadline_after, left_until
from fastps.errors import FileError, MissingFileError, OptionError, ShardDiedError, UnavailableError

END_SECONDS = 10.0  # for processes that write to a remote file system and are ended


class Saving:
    """A checkpoint that is being written. Dropped before it is done, it is given up: nothing has its path, and what was
    written is removed.

    Attributes
    ----------
    path : where the checkpoint will be
    """

    def __init__(self, path: AnyPath, folder: AnyPath, writers: list[Any], reference: Any) -> None:
        self.path, self._folder, self._writers, self._reference = path, folder, writers, reference
        self._future: Future[Any] = reference.future()
        weakref.finalize(self, _dropped, folder, writers)

    def done(self) -> bool:
        """Whether it is there, or has failed."""
        return self._future.done()

    def result(self, timeout: float | None = None) -> AnyPath:
        """Waits for it, and returns its path. After an error, also that `timeout` seconds were not enough, it is given
        up: nothing has that path, and what was written is removed."""
        try:
            cluster.get(self._reference, timeout, "save")
        except ShardDiedError as error:
            given_up(self._folder, self._writers)
            raise UnavailableError(
                f"save: the server, or a process that wrote the checkpoint, is gone; nothing was saved, save again "
                f"({error})"
            ) from error
        except BaseException:
            if given_up(self._folder, self._writers) or not self.path.exists():  # it did not come to its end just now
                raise
        return self.path

    def __repr__(self) -> str:
        return f"<Saving {str(self.path)!r}, {'done' if self.done() else 'under way'}>"


def save(attachment: Attachment, path: Any, since: Any, timeout: float) -> Saving:
    """Begins to save a server. See `ParameterServer.save`."""
    deadline = deadline_after(timeout)
    target = path_of(path, "save")
    with _asking(target):
        require_free(target)
    earlier = None if since is None else _earlier(since, target)
    arrays, spec = attachment.arrays or attachment.attach(), attachment.spec
    arrays.session.versions(left_until(deadline))  # the server is alive, on all nodes
    cluster.require("save")
    arrays.settle(left_until(deadline))
    of_tables = [attachment.rows(number).hyper(left_until(deadline)) for number in range(len(spec.tables))]
    server = server_to(spec, arrays.hyper_by_row(left_until(deadline)), of_tables)
    folder = _folder_for(target)
    writers = list[Any]()
    try:
        writers += [
            cluster.start_on(node.node_id, CheckpointWriter, 1, cluster.generated(os.urandom(16).hex(), "writer"))()
            for node in spec.nodes
        ]
        parts = [
            writer.write.remote(spec, folder, number, earlier, left_until(deadline))
            for number, writer in enumerate(writers)
        ]
        slots = [] if spec.consistency.local else spec.slot_names()
        draft = Manifest(spec.server_id, server, tuple(slots), (), 0.0, (), (), ())
        reference = writers[0].commit.remote(folder, target, draft, spec.consistency.rounds, *parts)
    except BaseException:
        given_up(folder, writers)
        raise
    return Saving(target, folder, writers, reference)


def _earlier(since: Any, target: AnyPath) -> Path:
    """The folder of an earlier checkpoint, which can be read."""
    folder = path_of(since, "save since")
    if not isinstance(folder, Path) or not isinstance(target, Path):
        raise OptionError("save: since= shares files by hard links, which remote file systems do not have; omit it")
    return Earlier(folder).folder


def _folder_for(target: AnyPath) -> AnyPath:
    """A new directory to write to: of this machine a hidden one beside the target, else the target itself."""
    folder = target if isinstance(target, RemotePath) else target.with_name(f".{target.name}-{os.urandom(6).hex()}")
    try:
        with _asking(target):
            if isinstance(folder, RemotePath):
                folder.make()
            else:
                folder.mkdir()
    except MissingFileError as error:
        raise MissingFileError(
            error.errno, f"save: there is no directory {str(target.parent)!r}; nothing was saved; create it first"
        ) from error
    return folder


@contextmanager
def _asking(target: AnyPath) -> Iterator[None]:
    try:
        yield
    except FileError:
        raise
    except OSError as error:
        raise unwritable(target, error) from error


def _dropped(folder: AnyPath, writers: list[Any]) -> None:
    """Gives up a save that nobody asks about any more. Runs in the garbage collector: nothing waits here."""
    if isinstance(folder, Path):
        given_up(folder, writers)
        return
    with suppress(RuntimeError):  # the interpreter ends: so do the writers
        threading.Thread(target=given_up, args=(folder, writers), name="fastps save", daemon=True).start()


def given_up(folder: AnyPath, writers: list[Any]) -> bool:
    """Removes what was written of a checkpoint, unless it was committed: False. Of this machine, one of two renames
    comes first, this one or the writer's, and the other one fails; in a remote file system the writers are ended
    before anybody looks whether there is a manifest."""
    if isinstance(folder, RemotePath):
        return _remote_given_up(folder, writers)
    away = folder.with_name(f"{folder.name}-given-up")
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
        cluster.end(writers, END_SECONDS)
        if (folder / NAME).exists():
            return False
        folder.remove()
    except OSError:  # it cannot be reached, or somebody has removed it
        return True
    return True

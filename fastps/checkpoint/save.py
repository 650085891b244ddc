"""Saves a server: starts a writer on each node that has shards, and lets one of them commit."""

from __future__ import annotations

import os
import shutil
import weakref
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from fastps.checkpoint.described import server_to
from fastps.checkpoint.earlier import Earlier
from fastps.checkpoint.files import unwritable
from fastps.checkpoint.manifest import Manifest
from fastps.checkpoint.writer import CheckpointWriter, require_free
from fastps.client.attach import Attachment
from fastps.cluster import ray as cluster
from fastps.deadline import deadline_after, left_until
from fastps.errors import MissingFileError, OptionError, ShardDiedError, UnavailableError
from fastps.messages import brief


class Saving:
    """A checkpoint that is being written. Dropped before it is done, it is given up: nothing has its path, and what was
    written is removed.

    Attributes
    ----------
    path : where the checkpoint will be
    """

    def __init__(self, path: Path, folder: Path, writers: list[Any], reference: Any) -> None:
        self.path, self._folder, self._writers, self._reference = path, folder, writers, reference
        self._future: Future[Any] = reference.future()
        weakref.finalize(self, given_up, folder)

    def done(self) -> bool:
        """Whether it is there, or has failed."""
        return self._future.done()

    def result(self, timeout: float | None = None) -> Path:
        """Waits for it, and returns its path. After an error, also that `timeout` seconds were not enough, it is given
        up: nothing has that path, and what was written is removed."""
        try:
            cluster.get(self._reference, timeout, "save")
        except ShardDiedError as error:
            given_up(self._folder)
            raise UnavailableError(
                f"save: the server, or a process that wrote the checkpoint, is gone; nothing was saved, save again "
                f"({error})"
            ) from error
        except BaseException:
            if given_up(self._folder) or not self.path.exists():  # it did not come to its end just now
                raise
        return self.path

    def __repr__(self) -> str:
        return f"<Saving {str(self.path)!r}, {'done' if self.done() else 'under way'}>"


def save(attachment: Attachment, path: Any, since: Any, timeout: float) -> Saving:
    """Begins to save a server. See `ParameterServer.save`."""
    deadline = deadline_after(timeout)
    target = _path_of(path)
    require_free(target)
    earlier = None if since is None else str(Earlier(_path_of(since)).folder)  # which can be read
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
    away = folder.with_name(f"{folder.name}-given-up")
    try:
        folder.rename(away)
    except OSError:
        return False
    shutil.rmtree(away, ignore_errors=True)
    return True


def _path_of(path: Any) -> Path:
    try:
        return Path(os.path.abspath(os.fsdecode(path)))
    except TypeError:
        raise OptionError(f"save: expected a path, got {type(path).__name__} {brief(path)}") from None

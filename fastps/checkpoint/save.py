"""Saves a server: starts a writer on each node that has shards, and lets one of them commit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from fastps.checkpoint.described import server_to
from fastps.checkpoint.earlier import Earlier
from fastps.checkpoint.files import unwritable
from fastps.checkpoint.manifest import Manifest
from fastps.checkpoint.remote import AnyPath, RemotePath, path_of
from fastps.checkpoint.saving import Saving, given_up
from fastps.checkpoint.writer import CheckpointWriter, require_free
from fastps.client.attach import Attachment
from fastps.cluster import ray as cluster
from fastps.deadline import deadline_after, left_until
from fastps.errors import FileError, MissingFileError, OptionError
from fastps.messages import brief
from fastps.spec.server import ServerSpec

SHARD, ALL = "shard", "all"  # of what state is saved: of each shard between two pushes, or of all at one moment


def save(attachment: Attachment, path: Any, since: Any, consistent: Any, timeout: float) -> Saving:
    """Begins to save a server. See `ParameterServer.save`."""
    deadline, together = deadline_after(timeout), is_together(attachment.spec, consistent, "save")
    target = path_of(path, "save")
    require_free(target)
    earlier = None if since is None else _earlier(since, target)
    arrays, spec = attachment.arrays or attachment.attach(), attachment.spec
    arrays.session.versions(left_until(deadline))  # the server is alive, on all nodes
    cluster.require("save")
    arrays.settle(left_until(deadline))
    of_tables = [attachment.rows(number).hyper(left_until(deadline)) for number in range(len(spec.tables))]
    server = server_to(spec, arrays.hyper_by_row(left_until(deadline)), of_tables)
    folder, writers = _folder_for(target), list[Any]()
    try:
        for node in spec.nodes:
            name = cluster.generated(os.urandom(16).hex(), "writer")
            writers.append(cluster.start_on(node.node_id, CheckpointWriter, 1, name)())
        parts = [
            writer.write.remote(spec, folder, number, earlier, together, left_until(deadline))
            for number, writer in enumerate(writers)
        ]
        slots = [] if spec.consistency.local else spec.slot_names()
        draft = Manifest(spec.server_id, server, tuple(slots), (), 0.0, (), (), ())
        reference = writers[0].commit.remote(folder, target, draft, spec.consistency.rounds, *parts)
    except BaseException:
        given_up(folder, writers)
        raise
    return Saving(target, folder, writers, reference)


def is_together(spec: ServerSpec, consistent: Any, what: str) -> bool:
    """Whether a save has to find one moment for all shards: in rounds they are of one anyway. Raises OptionError."""
    if not isinstance(consistent, str) or consistent not in (SHARD, ALL):
        raise OptionError(f"{what}: expected consistent={SHARD!r} or {ALL!r}, got {brief(consistent)}")
    if consistent == SHARD or spec.consistency.rounds or not spec.structure.leaves:
        return False
    if len(spec.nodes) > 1:
        raise OptionError(
            f"{what}: consistent={ALL!r} is of shards on one node, these are on {len(spec.nodes)}; place them on one, "
            f"or use consistency=fastps.BSP(), whose saves are those of one round"
        )
    if not spec.isolated:
        raise OptionError(
            f'{what}: with isolation="none" a push has no moment at which it was applied; create the server with '
            f'isolation="shard", or omit consistent='
        )
    return True


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
        if isinstance(folder, RemotePath):
            folder.make()
        else:
            folder.mkdir()
    except FileError:
        raise
    except FileNotFoundError as error:
        raise MissingFileError(
            error.errno, f"save: there is no directory {str(target.parent)!r}; nothing was saved; create it first"
        ) from error
    except OSError as error:
        raise unwritable(target, error) from error
    return folder

"""Writes the state of a node's shards, in a process of its own: a Ray actor that ends with what it has written."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from fastps._core import Arena
from fastps.checkpoint import manifest
from fastps.checkpoint.earlier import Earlier
from fastps.checkpoint.files import File, sync_folder, unwritable, write_file
from fastps.checkpoint.manifest import Manifest, Piece, Rows
from fastps.checkpoint.parts import Files, moved
from fastps.checkpoint.remote import AnyPath
from fastps.checkpoint.snapshot import snapshots
from fastps.client.attach import attachments
from fastps.client.session import Session
from fastps.deadline import deadline_after, left_until
from fastps.errors import FileError, WaitTimeoutError
from fastps.spec.server import ServerSpec

NICE = 10  # of the thread that writes; the one that copies holds locks for which pushes wait


@dataclass(frozen=True)
class Written:
    """The state of some shards, in files.

    Attributes
    ----------
    versions : of the shards, by their number
    files : what was written
    pieces : of all arrays; `file` is a number in `files`
    rows : of all tables; likewise
    """

    versions: dict[int, int]
    files: list[File]
    pieces: list[Piece]
    rows: list[Rows]


class CheckpointWriter:
    """The actor. One for each node that has shards; that of shard 0 also commits."""

    def write(
        self, spec: ServerSpec, target: AnyPath, node: int, since: Path | None, together: bool, timeout: float
    ) -> Written:
        """Writes the state of the shards of this node. While one snapshot is written, the next one is copied.

        What has not changed since the checkpoint `since` is shared with that. `together`: arrays are those of one
        moment, at which every push was applied on all shards or on none.
        """
        self._session = session = attachments.session(spec)
        with self._counting_failures():
            return self._write(session, target, node, since, together, timeout)

    @contextmanager
    def _counting_failures(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._arena().count_saved(failed=True)
            raise

    def _arena(self) -> Arena:
        """That of the first shard of the node, whose counters have what is saved of all."""
        assert self._session.shm is not None
        return self._session.shm.arenas[self._session.shm.shards[0]]

    def _write(
        self, session: Session, target: AnyPath, node: int, since: Path | None, together: bool, timeout: float
    ) -> Written:
        deadline, spec = deadline_after(timeout), session.spec
        assert session.shm is not None
        earlier = None if since is None else Earlier(since)
        if earlier is None and isinstance(target, Path):
            require_space(target, _bytes_of(session, timeout))
        files, versions = Files(target, node, earlier, self._arena().count_saved), dict[int, int]()
        writing: Future[None] | None = None
        with ThreadPoolExecutor(1, initializer=_work_in_the_background) as background:
            for snapshot in snapshots(session, together, timeout):
                if writing is not None:
                    writing.result()
                versions |= snapshot.versions
                writing = background.submit(files.write_arrays, snapshot.parts)
                del snapshot  # its memory is free when it is written
            if writing is not None:
                writing.result()
            for number, table in enumerate(session.shm.verbs.tables):
                for shard in session.shm.shards:
                    start = table.begin_scan(shard, left_until(deadline))  # here: it takes the table's lock
                    write = (spec.server_id, table, number, shard, start, deadline)
                    background.submit(files.write_rows, *write).result()
        return Written(versions, files.files, files.pieces, files.rows)

    def commit(self, source: AnyPath, target: AnyPath, draft: Manifest, rounds: bool, *parts: Written) -> Manifest:
        """Writes the manifest, and gives the directory its name: from then on there is a checkpoint."""
        with self._counting_failures():
            whole = self._commit(source, target, draft, rounds, parts)
        self._arena().count_saved(ended=True)
        return whole

    def _commit(
        self, source: AnyPath, target: AnyPath, draft: Manifest, rounds: bool, parts: tuple[Written, ...]
    ) -> Manifest:
        versions = {shard: version for part in parts for shard, version in part.versions.items()}
        if rounds and len(set(versions.values())) > 1:
            raise WaitTimeoutError("save: the nodes came to different rounds meanwhile; nothing was saved, try again")
        files, pieces, rows = list[File](), list[Piece](), list[Rows]()
        for part in parts:
            before = len(files)
            pieces += [replace(piece, file=piece.file + before) for piece in part.pieces]
            rows += [moved(one, before) for one in part.rows]
            files += part.files
        whole = replace(
            draft, versions=tuple(versions[shard] for shard in sorted(versions)), created=time.time(),
            files=tuple(files), pieces=tuple(pieces), rows=tuple(rows),
        )  # fmt: skip
        write_file(source, manifest.NAME, [whole.packed()])
        if isinstance(source, Path) and isinstance(target, Path):  # the other one is in its place already
            _rename(source, target)
        return whole


def _bytes_of(session: Session, timeout: float) -> int:
    """About what the shards of this node will take in files."""
    assert session.shm is not None
    spec, shards = session.spec, session.shm.shards
    streams = 1 if spec.consistency.local else 1 + spec.n_slots
    nbytes = streams * sum(spec.plans[shard].params_bytes for shard in shards)
    for table in session.shm.verbs.tables:
        from fastps.checkpoint.tables import row_bytes  # loads pyarrow

        nbytes += row_bytes(table.info) * sum(counted["rows"] for counted in table.counters_of_all().values())
    return nbytes


def _rename(source: Path, target: Path) -> None:
    """Gives a directory its name, on the disk too. Raises FileError with the name as it was."""
    require_free(target)
    try:
        sync_folder(source)
        source.rename(target)
        try:
            sync_folder(target.parent)
        except OSError:
            target.rename(source)  # a name that the disk may lose is none
            raise
    except OSError as error:
        require_free(target)
        raise unwritable(target, error) from error


def require_free(path: AnyPath) -> None:
    """Raises FileError if something has this name, or that cannot be found out."""
    try:
        if isinstance(path, Path):
            path.lstat()
        elif not path.exists():
            return
    except FileNotFoundError:
        return
    except FileError:
        raise
    except OSError as error:
        raise unwritable(path, error) from error
    raise FileError(
        errno.EEXIST,
        f"save: {str(path)!r} is there already; nothing was saved and it was not changed; pass another path",
    )


def require_space(folder: Path, nbytes: int) -> None:
    """Raises FileError if there is less space left, or no such directory on this node."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise unwritable(folder, error) from error
    if free < nbytes:
        raise FileError(
            errno.ENOSPC,
            f"save: {str(folder.parent)!r} has {free:,} bytes free, of {nbytes:,} that are needed; nothing was saved; "
            f"make room, or pass another path",
        )


def _work_in_the_background() -> None:
    os.setpriority(os.PRIO_PROCESS, 0, NICE)  # of this thread alone

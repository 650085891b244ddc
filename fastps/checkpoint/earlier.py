"""An earlier checkpoint, with which a new one shares what has not changed: its files are hard links to the same data.

So every checkpoint is complete by itself: any of them can be removed, and none has to be read to read another one.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastps._core import crc32c
from fastps.checkpoint.files import BLOCK_BYTES, File, mapped
from fastps.checkpoint.manifest import Manifest, Rows
from fastps.checkpoint.remote import AnyPath
from fastps.errors import CheckpointError, FileError

MOST_FILES = 16  # of the rows of a table on one shard: then all of them are written again


class Earlier:
    """A checkpoint that there is. Raises MissingFileError, FileError or CheckpointError when it cannot be read.

    Attributes
    ----------
    folder, manifest : of it
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.manifest = folder, Manifest.read(folder)
        self._like: dict[tuple[int, tuple[int, ...]], list[File]] = {}
        for file in self.manifest.files:
            self._like.setdefault((file.nbytes, file.checksums), []).append(file)

    def same(self, chunks: Sequence[Any]) -> File | None:
        """A file that consists of these bytes. Cost: their checksums; if there is one, it is read."""
        views = [np.frombuffer(chunk, np.uint8) for chunk in chunks]
        nbytes = sum(view.nbytes for view in views)
        for file in self._like.get((nbytes, checksums(views)), ()):
            try:
                data, at, equal = mapped(self.folder, file), 0, True
            except (CheckpointError, FileError):  # it is not what it was: this one is written anew
                continue
            for view in views:
                equal, at = equal and np.array_equal(data[at : at + view.nbytes], view), at + view.nbytes
            if equal:
                return file
        return None

    def rows(self, server_id: str, table: int, shard: int) -> Rows | None:
        """Those of a table on a shard to which changed ones can be added: of the same server, and not yet too many."""
        if self.manifest.server_id != server_id:
            return None
        found = [one for one in self.manifest.rows if (one.table, one.shard) == (table, shard)]
        if not found or len(found[0].files) >= MOST_FILES or sum(found[0].counts[1:]) > found[0].counts[0]:
            return None
        return found[0]

    def link(self, file: File, folder: AnyPath, name: str) -> File | None:
        """Gives a file a name in another checkpoint too. None when it has as many as it can have. Raises FileError."""
        assert isinstance(folder, Path)
        try:
            os.link(self.folder / file.name, folder / name)
        except OSError as error:
            if error.errno == errno.EMLINK:
                return None
            raise FileError(
                error.errno,
                f"save: no hard link to {str(self.folder / file.name)!r} can be made ({error.strerror}); nothing was "
                f"saved; save in the same file system, or without since=",
            ) from error
        return File(name, file.nbytes, file.checksums)


def checksums(views: Sequence[Any]) -> tuple[int, ...]:
    """CRC32C of each BLOCK_BYTES of what follows one behind the other."""
    found, filled = list[int](), 0
    for view in views:
        at = 0
        while at < view.nbytes:
            if filled in (0, BLOCK_BYTES):
                found.append(0)
                filled = 0
            some = view[at : at + BLOCK_BYTES - filled]
            found[-1] = crc32c(some, found[-1])
            filled, at = filled + some.nbytes, at + some.nbytes
    return tuple(found)

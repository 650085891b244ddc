"""Whether a checkpoint is what was written: all bytes, and all numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fastps.arrays.types import Array
from fastps.checkpoint.described import hyper_from, hyper_of_tables
from fastps.checkpoint.files import mapped, verify
from fastps.checkpoint.load import put_together
from fastps.checkpoint.manifest import Manifest
from fastps.checkpoint.recorded import recorded_tables
from fastps.checkpoint.summary import summary
from fastps.errors import CheckpointError, FileError


@dataclass(frozen=True)
class Verification:
    """What was found.

    Attributes
    ----------
    files : how many there should be
    nbytes : of these files
    damaged : what is wrong, by the name of a file, in their order
    """

    files: int
    nbytes: int
    damaged: dict[str, str]

    @property
    def problem(self) -> str | None:
        """The first one."""
        return next(iter(self.damaged.values()), None)


def verification(folder: Path, progress: Callable[[int], object] | None = None) -> Verification:
    """Reads all of a checkpoint. `progress` is told of the bytes that were read.

    Raises
    ------
    MissingFileError, FileError, CheckpointError
        The manifest cannot be read or is damaged; or all bytes are those that were written, and say what cannot be.
    """
    manifest = Manifest.read(folder)
    contents, damaged = list[Array](), dict[str, str]()
    for file in manifest.files:
        try:
            data = mapped(folder, file)
            verify(folder, file, data, progress)
            contents.append(data)
        except (CheckpointError, FileError) as error:
            damaged[file.name] = str(error)
    if not damaged:
        _require_numbers(folder, manifest, contents)
    return Verification(len(manifest.files), sum(file.nbytes for file in manifest.files), damaged)


def _require_numbers(folder: Path, manifest: Manifest, contents: list[Array]) -> None:
    """Raises CheckpointError where numbers do not fit each other."""
    summary(folder)
    hyper_from(manifest.server.get("rules"))
    hyper_of_tables(manifest.server.get("tables"))
    state = put_together(folder, manifest, contents, True).state
    for info in recorded_tables(manifest.server.get("tables")):
        for _ in state.rows[info.name].batches(info):
            pass

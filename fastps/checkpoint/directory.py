"""The checkpoints in a directory, and what unfinished ones have left there. No data are read."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from fastps.checkpoint.files import unreadable
from fastps.checkpoint.manifest import NAME
from fastps.checkpoint.summary import Summary, summary
from fastps.errors import CheckpointError, FileError

COMPLETE, DAMAGED, UNREADABLE, UNFINISHED = "complete", "damaged", "unreadable", "unfinished"
# As `save` names what it is writing, and what is being removed.
HIDDEN = re.compile(r"\..+-[0-9a-f]{12}(-given-up|-removed)?", re.DOTALL)


@dataclass(frozen=True)
class Entry:
    """A checkpoint, or the directory of an unfinished one.

    Attributes
    ----------
    name : in the directory
    state : COMPLETE; DAMAGED, files are missing or of another size; UNREADABLE, its manifest is damaged or of another
        format; UNFINISHED, it is being written or removed, or the program that did so was killed
    created : when it was completed, in seconds since 1970; when its directory was last changed if it was not, or if the
        manifest is not readable
    nbytes : of all files but the manifest
    problem : what is wrong with it
    summary : None where there is no manifest that can be read
    """

    name: str
    state: str
    created: float
    nbytes: int
    problem: str | None
    summary: Summary | None


def entries(directory: Path) -> list[Entry]:
    """The checkpoints in a directory, the newest last. Raises MissingFileError or FileError."""
    found = []
    try:
        with os.scandir(directory) as listed:
            names = sorted(entry.name for entry in listed if entry.is_dir())
    except OSError as error:
        raise unreadable(directory, error) from error
    for name in names:
        folder = directory / name
        try:
            if HIDDEN.fullmatch(name):
                found.append(Entry(name, UNFINISHED, folder.stat().st_mtime, _nbytes(folder), None, None))
            elif os.path.lexists(folder / NAME):
                found.append(_entry(folder))
        except FileNotFoundError:  # it was completed or removed just now
            continue
        except OSError as error:
            found.append(Entry(name, UNREADABLE, 0.0, 0, error.strerror, None))
    return sorted(found, key=lambda entry: (entry.created, entry.name))


def _entry(folder: Path) -> Entry:
    try:
        of = summary(folder)
    except (CheckpointError, FileError) as error:
        problem = str(error)
        return Entry(folder.name, UNREADABLE, folder.stat().st_mtime, _nbytes(folder), problem, None)
    return Entry(folder.name, DAMAGED if of.problem else COMPLETE, of.created, of.nbytes, of.problem, of)


def _nbytes(folder: Path) -> int:
    with os.scandir(folder) as listed:
        return sum(entry.stat(follow_symlinks=False).st_size for entry in listed if entry.name != NAME)

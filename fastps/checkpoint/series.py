"""The checkpoints that `save_every` makes in a directory: step-N, where N is an update count."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from fastps.checkpoint.files import unreadable
from fastps.checkpoint.manifest import NAME, Manifest
from fastps.checkpoint.remote import AnyPath, RemotePath
from fastps.errors import CheckpointError, FastPSError

OF_A_STEP = re.compile(r"step-\d{12,}(\.\d+)?")


def free_name(directory: AnyPath, step: int) -> AnyPath:
    """step-N, or where that is taken step-N.2 and so on."""
    path, again = directory / f"step-{step:012}", 1
    while path.exists():
        again += 1
        path = directory / f"step-{step:012}.{again}"
    return path


def checkpoints_in(directory: AnyPath) -> list[AnyPath]:
    """Those of `save_every` that are complete, oldest first."""
    found = []
    for path in directory.iterdir():
        if OF_A_STEP.fullmatch(path.name) and (path / NAME).exists():
            try:
                found.append((Manifest.read(path).created, path))
            except FastPSError:
                continue  # damaged: it is not touched
    return [path for _, path in sorted(found)]


def newest_in(directory: AnyPath) -> AnyPath:
    """The newest checkpoint of `save_every`. Raises CheckpointError where there is none, or FileError."""
    try:
        found = checkpoints_in(directory)
    except OSError as error:
        raise unreadable(directory, error) from error
    if not found:
        raise CheckpointError(f"restore: {str(directory)!r} is no checkpoint and has none; pass what save() has made")
    return found[-1]


def checkpoint_at(path: Path) -> Path:
    """A checkpoint, or of a directory of `save_every` its newest one."""
    if (path / NAME).exists() or not path.is_dir():
        return path
    found = checkpoints_in(path)
    return path if not found else path / found[-1].name


def remove(checkpoint: AnyPath) -> None:
    """Takes a checkpoint away: at no time a part of it has its name."""
    if isinstance(checkpoint, RemotePath):
        checkpoint.remove()
        return
    away = checkpoint.with_name(f".{checkpoint.name}-{os.urandom(6).hex()}-removed")
    checkpoint.rename(away)
    shutil.rmtree(away, ignore_errors=True)

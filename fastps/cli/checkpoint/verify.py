"""``fastps checkpoint verify``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from fastps.cli.columns import printable
from fastps.cli.options import path
from fastps.messages import binary

LARGE = 1 << 30  # bytes; it takes about a second


@click.command("verify", short_help="Read all of a checkpoint, and compare it with its checksums.")
@click.argument("path", type=path)
def command(path: Path) -> str | None:
    """Compares all bytes with their checksums and all numbers with each other, and lists every file that is damaged.
    Exit code 1 when something is.
    """
    from fastps.checkpoint.manifest import Manifest
    from fastps.checkpoint.series import checkpoint_at
    from fastps.checkpoint.verification import verification

    path = checkpoint_at(path)
    with _progress(sum(file.nbytes for file in Manifest.read(path).files)) as progress:
        found = verification(path, progress)
    if found.damaged:
        for problem in found.damaged.values():
            print(printable(problem))
        more = len(found.damaged) - 1
        return f"{found.problem}{f' (and {more:,} more)' if more else ''}"
    read = f"{found.files:,} files, {binary(found.nbytes)}"
    print(printable(f"{path}: {read}: all bytes are those that were written"))
    return None


@contextmanager
def _progress(nbytes: int) -> Iterator[Callable[[int], object] | None]:
    """What is told of bytes that were read: None, unless they are many and a person is looking on."""
    if nbytes < LARGE or not sys.stderr.isatty():
        yield None
        return
    with click.progressbar(length=nbytes, label="verify", file=sys.stderr) as bar:
        yield bar.update

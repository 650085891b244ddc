"""``fastps checkpoint ls``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastps.cli.columns import columns, moment, span
from fastps.cli.options import as_json, path
from fastps.messages import binary

if TYPE_CHECKING:
    from fastps.checkpoint.directory import Entry


@click.command("ls", short_help="List the checkpoints in a directory, the newest last.")
@click.argument("directory", type=path)
@as_json
def command(directory: Path, as_json: bool) -> None:
    """Names, times, update counts, shards, sizes, and how many arrays and tables. Which are damaged or unfinished is
    told by their manifests and the sizes of their files: nothing else is read. Exit code 0 whatever is found.
    """
    from fastps.checkpoint.directory import entries
    from fastps.checkpoint.manifest import NAME

    if (directory / NAME).is_file():
        raise click.UsageError(f"{str(directory)!r} is a checkpoint itself; pass the directory that it is in")
    found = entries(directory)
    if as_json:
        print(json.dumps([_json(entry) for entry in found], indent=1))
        return
    if not found:
        print("no checkpoints")
        return
    head = ["NAME", "CREATED", "UPDATES", "SHARDS", "SIZE", "ARRAYS", "TABLES", "STATE"]
    for line in columns([head, *(_row(entry) for entry in found)]):
        print(line)


def _row(entry: Entry) -> list[Any]:
    of, problem = entry.summary, f" ({entry.problem})" if entry.problem else ""
    counted = [None] * 2 if of is None else [span(of.updates), len(of.versions)]
    held = [None] * 2 if of is None else [len(of.arrays), len(of.tables)]
    return [entry.name, moment(entry.created), *counted, binary(entry.nbytes), *held, f"{entry.state}{problem}"]


def _json(entry: Entry) -> dict[str, Any]:
    of = entry.summary
    return {
        "name": entry.name,
        "state": entry.state,
        "problem": entry.problem,
        "created": entry.created,
        "bytes": entry.nbytes,
        "updates": None if of is None else list(of.updates),
        "shards": None if of is None else len(of.versions),
        "arrays": None if of is None else len(of.arrays),
        "tables": None if of is None else len(of.tables),
    }

"""What a checkpoint consists of, by its manifest alone: no data are read, and no code is needed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastps.checkpoint.described import consistency_from, gradients_from
from fastps.checkpoint.files import File
from fastps.checkpoint.manifest import Manifest
from fastps.checkpoint.recorded import recorded_rules, recorded_tables
from fastps.checkpoint.structures import classes_of, names_of, structure_from
from fastps.consistency import Consistency
from fastps.errors import CheckpointError, OptionError
from fastps.spec.gradients import GradientPolicy
from fastps.spec.rule import RuleInfo
from fastps.spec.table import TableInfo


@dataclass(frozen=True)
class SavedArray:
    """An array.

    Attributes
    ----------
    names : its name; one that comes twice in the parameters has several
    dtype, stored : the type that it was given in, and the one of its values in the files
    shape : elements per dimension
    step : its update count; None of one that is carried
    slots : the names of its slots
    """

    names: tuple[str, ...]
    dtype: str
    stored: str
    shape: tuple[int, ...]
    step: int | None
    slots: tuple[str, ...]


@dataclass(frozen=True)
class SavedTable:
    """A table of the user.

    Attributes
    ----------
    info : its settings
    hyper : the hyper-parameters of its rule; None: a schedule gives it
    rows : how many, as far as they are in files of all rows
    changes : how many are in increments; each overwrites a row, or is a new one
    steps : its update count on each shard
    """

    info: TableInfo
    hyper: dict[str, float | None]
    rows: int
    changes: int
    steps: tuple[int, ...]


@dataclass(frozen=True)
class SavedFile:
    """A file.

    Attributes
    ----------
    name : in the directory
    nbytes : its size when it was written
    problem : None: it is there and has this size
    """

    name: str
    nbytes: int
    problem: str | None


@dataclass(frozen=True)
class Summary:
    """What a checkpoint consists of.

    Attributes
    ----------
    created : seconds since 1970
    versions : the update counts of the shards, or the number of the round
    consistency, gradients : of the server
    rules : of the arrays
    hyper : the hyper-parameters of each of these; None: a schedule gives it
    classes : of containers, which must be imported before the checkpoint is restored
    arrays, tables, files : in their order
    """

    created: float
    versions: tuple[int, ...]
    consistency: Consistency
    gradients: GradientPolicy
    rules: tuple[RuleInfo, ...]
    hyper: tuple[dict[str, float | None], ...]
    classes: tuple[str, ...]
    arrays: tuple[SavedArray, ...]
    tables: tuple[SavedTable, ...]
    files: tuple[SavedFile, ...]

    @property
    def nbytes(self) -> int:
        """Of all files but the manifest."""
        return sum(file.nbytes for file in self.files)

    @property
    def problem(self) -> str | None:
        """That of the first file that has one."""
        return next((f"{file.name}: {file.problem}" for file in self.files if file.problem), None)

    @property
    def updates(self) -> tuple[int, ...]:
        """The least and the largest update count of a shard: of the arrays, or of tables where there are no arrays."""
        counts = self.versions if self.arrays else [step for table in self.tables for step in table.steps]
        return tuple(sorted({min(counts, default=0), max(counts, default=0)}))


def summary(folder: Path) -> Summary:
    """That of a checkpoint. Raises MissingFileError, FileError or CheckpointError."""
    manifest = Manifest.read(folder)
    server = manifest.server
    try:
        consistency, gradients = consistency_from(server.get("consistency")), gradients_from(server.get("gradients"))
    except OptionError as error:
        raise CheckpointError(f"{folder}: the manifest says what cannot be: {error}") from error
    described = server.get("rules")
    rules = tuple(recorded_rules(described))
    return Summary(
        manifest.created, manifest.versions, consistency, gradients, rules,
        tuple(dict(one["hyper"]) for one in described or ()), tuple(classes_of(server.get("structure"))),
        tuple(_arrays(manifest)), tuple(_tables(manifest)),
        tuple(SavedFile(file.name, file.nbytes, problem_of(folder, file)) for file in manifest.files),
    )  # fmt: skip


def problem_of(folder: Path, file: File) -> str | None:
    """What is wrong with a file, as far as its name and size tell."""
    try:
        nbytes = os.stat(folder / file.name).st_size
    except OSError as error:
        return "missing" if isinstance(error, FileNotFoundError) else str(error.strerror)
    return None if nbytes == file.nbytes else f"{nbytes:,} bytes in place of {file.nbytes:,}"


def _arrays(manifest: Manifest) -> list[SavedArray]:
    structure = structure_from(manifest.server.get("structure"), True)
    steps: dict[int, int] = {}
    slots: dict[int, set[int]] = {}
    for piece in manifest.pieces:
        if piece.stream:
            slots.setdefault(piece.leaf, set()).add(piece.stream - 1)
        else:
            steps[piece.leaf] = max(piece.step, steps.get(piece.leaf, 0))
    return [
        SavedArray(
            names,
            str(leaf.given),
            str(leaf.in_memory),
            leaf.shape,
            steps.get(number, 0) if leaf.trains else None,
            tuple(manifest.slots[k] for k in sorted(slots.get(number, ()))),
        )
        for number, (leaf, names) in enumerate(zip(structure.leaves, names_of(structure), strict=True))
    ]


def _tables(manifest: Manifest) -> list[SavedTable]:
    described: Any = manifest.server.get("tables")
    found = []
    for number, info in enumerate(recorded_tables(described)):
        parts = sorted((one for one in manifest.rows if one.table == number), key=lambda one: one.shard)
        if info.counts_for is None:
            hyper, counts = dict(described[number]["rule"]["hyper"]), [one.counts for one in parts]
            rows, changes = sum(one[0] for one in counts), sum(sum(one[1:]) for one in counts)
            found.append(SavedTable(info, hyper, rows, changes, tuple(one.step for one in parts)))
    return found

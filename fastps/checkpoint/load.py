"""Reads a checkpoint: its files are mapped, verified, and put together for any number of shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from fastps._core import copy
from fastps.arrays.types import Array
from fastps.checkpoint.described import names_of_tables
from fastps.checkpoint.files import mapped, verify
from fastps.checkpoint.manifest import Manifest, Piece, Rows
from fastps.checkpoint.remote import AnyPath
from fastps.checkpoint.structures import structure_from
from fastps.errors import CheckpointError
from fastps.machine.capacity import require
from fastps.spec.arrays import Leaf
from fastps.spec.initial import RowBatch, SavedRows, State
from fastps.spec.table import TableInfo


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint whose bytes are those that were written.

    Attributes
    ----------
    folder : where it is
    manifest : what it consists of
    state : of the server
    """

    folder: AnyPath
    manifest: Manifest
    state: State


def load(folder: AnyPath, unknown_as_dicts: bool = False) -> Checkpoint:
    """Raises MissingFileError, FileError or CheckpointError, and ArenaMemoryError where there is not the memory to put
    arrays together. An array that is in one piece is used where it is. `unknown_as_dicts`: see `structure_from`."""
    manifest = Manifest.read(folder)
    contents = [mapped(folder, file) for file in manifest.files]
    for file, data in zip(manifest.files, contents, strict=True):
        verify(folder, file, data)
    return put_together(folder, manifest, contents, unknown_as_dicts)


def put_together(folder: AnyPath, manifest: Manifest, contents: list[Array], unknown_as_dicts: bool) -> Checkpoint:
    """Of files whose bytes are those that were written. Raises CheckpointError where numbers do not fit each other."""
    structure = structure_from(manifest.server.get("structure"), unknown_as_dicts)
    by_stream: dict[tuple[int, int], list[Piece]] = {}
    for piece in manifest.pieces:
        by_stream.setdefault((piece.stream, piece.leaf), []).append(piece)
    where = str(folder)
    if any(leaf >= len(structure.leaves) for _, leaf in by_stream):
        raise CheckpointError(
            f"{where}: it has values of arrays that its structure does not have; use another checkpoint"
        )
    copied = [sum(piece.nbytes for piece in pieces) for pieces in by_stream.values() if len(pieces) > 1]
    require(sum(copied), "restore, for arrays that are in several pieces")
    arrays = [_array(leaf, by_stream.get((0, i), []), contents, where) for i, leaf in enumerate(structure.leaves)]
    nothing = np.empty(0, np.float32)
    slots = {
        name: [
            _array(leaf, by_stream[k, i], contents, where) if (k, i) in by_stream else nothing
            for i, leaf in enumerate(structure.leaves)
        ]
        for k, name in enumerate(manifest.slots, 1)
    }
    steps = [max((piece.step for piece in by_stream.get((0, i), [])), default=0) for i in range(len(structure.leaves))]
    highest = max(steps, default=0)
    trained = {i: steps[i] for i in structure.trained}
    all_steps = tuple(trained.get(i, highest) for i in range(len(steps)))
    rows = _rows(manifest, contents, folder)
    return Checkpoint(folder, manifest, State(structure, arrays, slots, all_steps, rows=rows))


def _rows(manifest: Manifest, contents: list[Array], folder: AnyPath) -> dict[str, SavedRows]:
    """The rows of each table, by its name."""
    found, where, n = dict[str, SavedRows](), str(folder), len(manifest.versions)
    names = names_of_tables(manifest.server.get("tables"))
    for number, name in enumerate(names):
        parts = sorted((one for one in manifest.rows if one.table == number), key=lambda one: one.shard)
        if [one.shard for one in parts] != list(range(n)):
            raise CheckpointError(f"{where}: expected the rows of {n} shards of the table `{name}`")
        found[name] = SavedRows(
            _reader(manifest, parts, contents, folder),
            sum(sum(one.counts) for one in parts),
            tuple(one.step for one in parts),
            max(1, *(one.nows[-1] for one in parts)),
        )
    if any(one.table >= len(names) for one in manifest.rows):
        raise CheckpointError(f"{where}: it has rows of tables that the server does not have")
    return found


def _reader(
    manifest: Manifest, parts: list[Rows], contents: list[Array], folder: AnyPath
) -> Callable[[TableInfo], Iterator[RowBatch]]:
    def batches(info: TableInfo) -> Iterator[RowBatch]:
        from fastps.checkpoint.tables import read_keys, read_rows  # loads pyarrow

        def where(file: int) -> str:
            return str(folder / manifest.files[file].name)

        for part in parts:
            kept = read_keys(contents[part.kept[0]], where(part.kept[0])) if part.kept else None
            for file, count, now in zip(part.files, part.counts, part.nows, strict=True):
                later = max(0, part.nows[-1] - now)
                yield from read_rows(info, contents[file], count, where(file), later, kept)

    return batches


def _array(leaf: Leaf, pieces: list[Piece], contents: list[Array], where: str) -> Array:
    """The values of an array: in place if they are one piece."""
    pieces, at = sorted(pieces, key=lambda piece: piece.start), 0
    for piece in pieces:
        if piece.start != at or piece.nbytes != piece.count * leaf.item_bytes:
            raise CheckpointError(f"{where}: pieces of `{leaf.name}` are missing, or overlap; use another checkpoint")
        at += piece.count
    if at != leaf.size:
        raise CheckpointError(
            f"{where}: expected {leaf.size:,} elements of `{leaf.name}`, got {at:,}; use another checkpoint"
        )
    parts = [contents[piece.file][piece.offset : piece.offset + piece.nbytes] for piece in pieces]
    data = parts[0] if len(parts) == 1 else np.empty(leaf.size * leaf.item_bytes, np.uint8)
    at = 0
    for part in parts if len(parts) > 1 else []:
        copy(data[at : at + part.nbytes], part)
        at += part.nbytes
    return data.view(leaf.dtype).reshape(leaf.shape) if leaf.trains else data

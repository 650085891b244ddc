"""Checkpoints that are written without a server."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa

import fastps
from fastps.checkpoint.described import consistency_to, rule_to, table_to
from fastps.checkpoint.files import NewFile, Tensor, chunks_of, write_file
from fastps.checkpoint.manifest import NAME, Manifest, Piece, Rows
from fastps.checkpoint.recorded import recorded_tables
from fastps.checkpoint.structures import structure_to
from fastps.rules.assignment import as_rule
from fastps.spec.columns import batch_of, schema_of
from fastps.spec.initial import structure_of
from fastps.spec.keys import as_keys
from fastps.spec.rule import RuleInfo
from fastps.spec.table import infos_of, with_sightings

NO_LIMITS = {"nonfinite": "apply", "clip_norm": None, "clip_value": None}


def write_checkpoint(folder, params=None, tables=None, *, rule=None, slots=None, step=7, created=1e9):
    """A checkpoint of one shard, and its manifest.

    Parameters
    ----------
    params : arrays in containers; None: none
    tables : by name, a Table and its rows: {key: one list of values for the row, and one for each slot}
    slots : by name, the values of a slot of every array that is trained
    """
    folder.mkdir(parents=True, exist_ok=True)
    files, pieces, rows, rule = [], [], [], as_rule(rule or fastps.Add(), "rule")
    described = {"leaves": [], "tree": {"made_by": "dict", "names": [], "children": []}, "constants": []}
    if params is not None:
        structure, arrays = structure_of(params)
        described = structure_to(structure)
        tensors, placed = [], []
        for stream, values in enumerate([arrays, *([value] * len(arrays) for value in (slots or {}).values())]):
            for i, (leaf, array) in enumerate(zip(structure.leaves, values, strict=True)):
                if stream and not leaf.trains:
                    continue
                data = np.ascontiguousarray(np.broadcast_to(array, leaf.shape), leaf.dtype) if stream else array
                data = data.reshape(-1).view(np.uint8)
                tensors.append(Tensor(f"{stream}/{leaf.name}", leaf.in_memory.name, leaf.shape, data))
                placed.append((stream, i, leaf.size, data.nbytes))
        chunks, offsets = chunks_of(tensors)
        files.append(write_file(folder, "arrays-00000-00000.safetensors", chunks))
        pieces = [Piece(stream, i, 0, n, 0, at, nbytes, step)
                  for (stream, i, n, nbytes), at in zip(placed, offsets, strict=True)]  # fmt: skip
    given = {(name,): table.with_rule(rule) if table.rule is None else table
             for name, (table, _) in (tables or {}).items()}  # fmt: skip
    infos = infos_of(with_sightings(given), 1)
    for number, info in enumerate(infos):
        found = {} if info.counts_for is not None else tables[info.name][1]
        rows.append(Rows(number, 0, (len(files),), (len(found),), (1,), (), step, 1, 0))
        files.append(_write_rows(folder, f"rows-00000-{number:05}.arrow", info, found))
    server = {
        "structure": described,
        "tables": [table_to(info, _hyper(given.get(info.path))) for info in infos],
        "rules": [] if params is None else [rule_to(RuleInfo.of("*", rule), _numbers(rule))],
        "consistency": consistency_to(fastps.Async()),
        "gradients": NO_LIMITS,
    }
    versions = (step if params is not None else 0,)
    manifest = Manifest(
        "0" * 32, server, tuple(slots or ()), versions, created, tuple(files), tuple(pieces), tuple(rows)
    )
    write_file(folder, NAME, [manifest.packed()])
    return manifest


def add_increment(folder, table, rows):
    """Rows of a table of a checkpoint, by its number, that have changed: in the same checkpoint."""
    manifest = Manifest.read(folder)
    info = recorded_tables(manifest.server["tables"])[table]
    file = _write_rows(folder, f"rows-00000-{len(manifest.files):05}.arrow", info, rows)
    old = manifest.rows[table]
    files, counts, nows = (*old.files, len(manifest.files)), (*old.counts, len(rows)), (*old.nows, 1)
    new = dataclasses.replace(old, files=files, counts=counts, nows=nows)
    of_tables = [*manifest.rows]
    of_tables[table] = new
    rewrite(folder, files=(*manifest.files, file), rows=tuple(of_tables))


def rewrite(folder, **changes):
    """Changes fields of a manifest, which has a right checksum then."""
    manifest = Manifest.read(folder)
    (folder / NAME).unlink()
    write_file(folder, NAME, [dataclasses.replace(manifest, **changes).packed()])


def flip(file, bit=None):
    """Changes one bit of a file, by default in the middle."""
    data = bytearray(file.read_bytes())
    bit = 4 * len(data) if bit is None else bit
    data[bit // 8] ^= 1 << bit % 8
    file.write_bytes(data)


def _numbers(rule):
    return [np.nan if name in rule.schedules else float(value) for name, value in rule.hyper.items()]


def _hyper(table):
    return _numbers(fastps.Add() if table is None else table.rule)


def _write_rows(folder, name, info, found):
    schema = schema_of(info, True)
    keys = as_keys(list(found) if found else np.empty(0, np.int64), info.keys, "test")
    streams = [
        np.array([row[k] for row in found.values()], info.dtype).reshape(len(found), n)
        for k, (_, n) in enumerate(info.streams)
    ]
    with NewFile(folder, name) as file, pa.ipc.new_file(pa.PythonFile(file, mode="w"), schema) as writer:
        writer.write_batch(batch_of(info, schema, keys, streams))
    return file.written()

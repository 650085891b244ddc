"""Checkpoints without a server: what `save` writes of two shards that had some pushes, and what is wrong with it."""

from __future__ import annotations

import dataclasses
import json

import numpy as np

import fastps
from fastps._core import crc32c
from fastps.checkpoint.described import consistency_to, rule_to
from fastps.checkpoint.files import Tensor, chunks_of, write_file
from fastps.checkpoint.manifest import NAME, Manifest, Piece
from fastps.checkpoint.structures import structure_to
from fastps.spec.initial import structure_of
from fastps.spec.rule import RuleInfo

PARAMS = {"w": np.arange(4000.0), "b": np.ones(6, np.float32), "n": np.array([7, 8])}


def write_checkpoint(folder, params=PARAMS):
    """Of a server with the rule Adam(0.5). Each array that it trains is in two pieces, with its slots."""
    folder.mkdir()
    structure, arrays = structure_of(params)
    adam = fastps.Adam(0.5)
    rule = RuleInfo.of("*", adam)
    files, pieces = [], []
    for half in range(2):
        parts = []
        for leaf, array, number in zip(structure.leaves, arrays, range(len(arrays)), strict=True):
            start, stop = half * leaf.size // 2, (half + 1) * leaf.size // 2
            data = (
                np.ascontiguousarray(array).reshape(-1).view(np.uint8)[start * leaf.item_bytes : stop * leaf.item_bytes]
            )
            for stream in range(1 + (len(rule.slots) if leaf.trains else 0)):
                name = f"{stream}/{leaf.name}[{start}:{stop}]"
                tensor = Tensor(name, leaf.dtype if leaf.trains else "uint8", (data.size // leaf.item_bytes,), data)
                parts.append((tensor, Piece(stream, number, start, stop - start, half, 0, data.nbytes, 3)))
        chunks, offsets = chunks_of([tensor for tensor, _ in parts])
        files.append(write_file(folder, f"arrays-00000-{half:05}.safetensors", chunks))
        placed = zip(parts, offsets, strict=True)
        pieces += [dataclasses.replace(piece, offset=offset) for (_, piece), offset in placed]
    server = {
        "structure": structure_to(structure),
        "tables": [],
        "rules": [rule_to(rule, adam.values)],
        "consistency": consistency_to(fastps.Async()),
        "gradients": {"clip_norm": None, "clip_value": None, "nonfinite": "apply"},
    }
    manifest = Manifest("0" * 32, server, tuple(rule.slots), (3, 3), 1.5, tuple(files), tuple(pieces), ())
    write_file(folder, NAME, [manifest.packed()])
    return folder


def change(folder, edit):
    """Edits the manifest, which gets a checksum that is right."""
    content = json.loads((folder / NAME).read_bytes())
    del content["checksum"]
    edit(content)
    content["checksum"] = crc32c(text_of(content))
    (folder / NAME).write_bytes(text_of(content))


def text_of(content):
    return json.dumps(content, sort_keys=True, indent=1).encode()

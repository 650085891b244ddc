"""The state of the shards of one node, copied without stopping anybody: for each shard, or in rounds for all of them,
parameters, slots and update counts of one moment."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fastps.arrays.types import Array
from fastps.checkpoint.files import Tensor
from fastps.client.session import Session
from fastps.deadline import deadline_after, left_until
from fastps.errors import WaitTimeoutError
from fastps.spec.arrays import Leaf
from fastps.spec.server import ServerSpec
from fastps.transport.contract import MIXED, Operation
from fastps.transport.layout import Layouts, Place
from fastps.transport.shm import ShmEndpoint


@dataclass(frozen=True)
class Part:
    """Elements of one stream of one array, with the tensor that holds them in a file.

    Attributes
    ----------
    stream : 0 for the parameters, from 1 the slots in their order
    place : which elements of which array
    step : the update count of the array
    item_bytes : of one element
    tensor : what is written
    """

    stream: int
    place: Place
    step: int
    item_bytes: int
    tensor: Tensor


@dataclass(frozen=True)
class Snapshot:
    """The state of some shards.

    Attributes
    ----------
    versions : their update counts, or the number of the round, by shard
    parts : all streams of all their arrays
    """

    versions: dict[int, int]
    parts: list[Part]


def snapshots(session: Session, together: bool, timeout: float) -> Iterator[Snapshot]:
    """Of the shards of this node, one after the other; in rounds, or if they are to be those of one moment, of all
    together. Memory: one snapshot."""
    assert session.shm is not None
    shards, deadline = session.shm.shards, deadline_after(timeout)
    if not session.spec.structure.leaves:  # tables alone
        yield Snapshot(dict.fromkeys(shards, 0), [])
        return
    rounds = session.spec.consistency.rounds
    for group in [shards] if together or rounds else [(shard,) for shard in shards]:
        yield _snapshot(session, group, together and not rounds, deadline)


def _snapshot(session: Session, shards: tuple[int, ...], together: bool, deadline: float) -> Snapshot:
    assert session.shm is not None
    spec = session.spec
    layouts = Layouts(spec, shards)
    endpoint = ShmEndpoint.of_layouts(spec, {shard: session.shm.arenas[shard] for shard in shards}, layouts)
    layout = layouts.of(None)
    slots = [] if spec.consistency.local else spec.slot_names()
    each, streams = layout.nbytes(), 1 + len(slots)
    data, counts = np.empty(streams * each, np.uint8), np.empty(8 * len(layout.places), np.uint8)
    data[:: mmap.PAGESIZE] = 0  # all pages, before the walk: pushes wait behind that
    try:
        gets = [layout.buffers(data[k * each :], None) for k in range(streams)]
        operation = Operation(
            gets=[*gets, *[None] * (1 + len(spec.slot_names()) - streams)], steps=layout.steps(counts)
        )
        while True:
            versions = endpoint.start(operation, left_until(deadline), together=together).finish()
            if MIXED not in versions.values():
                break
            if left_until(deadline) == 0:
                raise WaitTimeoutError("save: the shards did not come to one round in time; nothing was saved")
    finally:
        endpoint.close()
    parts, with_slot = [], [frozenset(spec.leaves_with(slot)) for slot in slots]
    for stream in range(streams):
        for place, step in zip(layout.places, counts.view(np.uint64).tolist(), strict=True):
            if stream and place.leaf not in with_slot[stream - 1]:
                continue
            start, stop = layout.at(place, None)
            elements = data[stream * each + start : stream * each + stop]
            item_bytes = spec.structure.leaves[place.leaf].item_bytes
            parts.append(Part(stream, place, step, item_bytes, _tensor(spec, stream, place, elements)))
    return Snapshot(versions, parts)


def _tensor(spec: ServerSpec, stream: int, place: Place, elements: Array) -> Tensor:
    leaf = spec.structure.leaves[place.leaf]
    name = f"params/{leaf.name}" if stream == 0 else f"slots/{spec.slot_names()[stream - 1]}/{leaf.name}"
    whole = place.count == leaf.size
    if not whole:
        name = f"{name}[{place.start}:{place.start + place.count}]"
    shape = leaf.shape if whole else (place.count,)
    return Tensor(name, _dtype(leaf, whole), shape, elements)


def _dtype(leaf: Leaf, whole: bool) -> str:
    """Of the tensor: that of the array, or bytes of a part of one that is carried."""
    if leaf.trains:
        return leaf.dtype
    fits = whole and math.prod(leaf.shape) * leaf.given.itemsize == leaf.size
    return leaf.given.name if fits else "uint8"

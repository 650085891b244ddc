"""How parameters look between nodes: the runs of all shards of one node, one behind the other, as bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastps.spec import ServerSpec
    from fastps.transport.contract import Arrays

ALIGNMENT = 8


@dataclass(frozen=True)
class Place:
    """One run on the wire.

    Attributes
    ----------
    offset, nbytes : on the wire
    leaf, start, count : elements of the flattened leaf
    """

    offset: int
    nbytes: int
    leaf: int
    start: int
    count: int


@dataclass(frozen=True)
class Layout:
    """The order of a node's runs on the wire. Both ends compute it from the spec."""

    places: tuple[Place, ...]
    nbytes: int
    offsets: dict[tuple[int, int], int] = field(default_factory=dict)

    def offset(self, shard: int, number: int) -> int:
        """Where the run `number` of `shard` begins."""
        return self.offsets[shard, number]


def layout(spec: ServerSpec, shards: Sequence[int]) -> Layout:
    places, offsets, position = [], {}, 0
    for shard in sorted(shards):
        for number, run in enumerate(spec.plans[shard].runs):
            nbytes = run.count * spec.structure.leaves[run.leaf].item_bytes
            places.append(Place(position, nbytes, run.leaf, run.start, run.count))
            offsets[shard, number] = position
            position += -(-nbytes // ALIGNMENT) * ALIGNMENT
    return Layout(tuple(places), position, offsets)


def as_bytes(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return array.reshape(-1).view(np.uint8)


def gather(layout: Layout, arrays: Arrays) -> np.ndarray[Any, Any]:
    """The arrays' elements as wire bytes; without a copy where they lie that way already."""
    if len(layout.places) == 1:
        place = layout.places[0]
        flat = arrays[place.leaf].reshape(-1)[place.start : place.start + place.count]
        if place.nbytes == layout.nbytes:
            return flat.view(np.uint8)
    wire = np.empty(layout.nbytes, np.uint8)
    for place in layout.places:
        flat = arrays[place.leaf].reshape(-1)[place.start : place.start + place.count]
        wire[place.offset : place.offset + place.nbytes] = flat.view(np.uint8)
    return wire


def scatter(layout: Layout, wire: np.ndarray[Any, Any], arrays: Arrays) -> None:
    """Wire bytes into the arrays."""
    for place in layout.places:
        flat = arrays[place.leaf].reshape(-1)[place.start : place.start + place.count]
        flat.view(np.uint8)[:] = wire[place.offset : place.offset + place.nbytes]


# Ray sends an argument of up to 100 KiB with the call and puts a larger one into its object store first, which costs
# more than the copy itself: up to EAGER_BYTES a payload travels as several arguments.
PART_BYTES = 96 << 10
EAGER_BYTES = 9 << 20


def split(payload: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """The payload in the pieces in which Ray carries it fastest."""
    if payload.nbytes > EAGER_BYTES:
        return [payload]
    return [payload[i : i + PART_BYTES] for i in range(0, payload.nbytes, PART_BYTES)]


def join(parts: Sequence[np.ndarray[Any, Any]], nbytes: int) -> np.ndarray[Any, Any]:
    """The payload again; without a copy where it came in one piece."""
    if len(parts) == 1:
        return parts[0]
    payload = np.empty(nbytes, np.uint8)
    np.concatenate(parts, out=payload)
    return payload

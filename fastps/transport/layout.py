"""The layout of a server's arrays in messages: the runs of all shards of one node, one after the other, as bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastps._core import copy
from fastps.arrays.types import Array, Arrays
from fastps.spec.server import ServerSpec

ALIGNMENT = 8


@dataclass(frozen=True)
class Place:
    """One run of the elements of an array.

    Attributes
    ----------
    offset, nbytes : in a message
    leaf, start, count : elements of the flattened leaf
    """

    offset: int
    nbytes: int
    leaf: int
    start: int
    count: int


@dataclass(frozen=True)
class Layout:
    """The order of a node's runs. Both ends compute it from the spec.

    Attributes
    ----------
    shards : those of the node
    places : its runs in order
    nbytes : of all runs, with padding
    offsets : where a run begins, by (shard, number of the run)
    """

    shards: tuple[int, ...]
    places: tuple[Place, ...]
    nbytes: int
    offsets: dict[tuple[int, int], int]

    def gather(self, arrays: Arrays) -> Array:
        """The arrays' elements as bytes, without a copy where they are contiguous already. What `only` leaves out is
        undefined."""
        if len(self.places) == 1 and self.places[0].nbytes == self.nbytes:
            return self._elements(self.places[0], arrays)
        data = np.empty(self.nbytes, np.uint8)
        for place in self.places:
            data[place.offset : place.offset + place.nbytes] = self._elements(place, arrays)
        return data

    def scatter(self, start: int, piece: Any, arrays: Arrays) -> None:
        """Copies bytes of `gather`, from offset `start` on, into the arrays."""
        data = np.frombuffer(piece, np.uint8)
        stop = start + data.nbytes
        for place in self.places:
            low, high = max(start, place.offset), min(stop, place.offset + place.nbytes)
            if low < high:
                elements = self._elements(place, arrays)
                copy(elements[low - place.offset : high - place.offset], data[low - start : high - start])

    @staticmethod
    def _elements(place: Place, arrays: Arrays) -> Array:
        return arrays[place.leaf].reshape(-1)[place.start : place.start + place.count].view(np.uint8)

    def only(self, leaves: Iterable[int]) -> Layout:
        """The runs of some leaves, at their offsets in the full layout."""
        wanted = set(leaves)
        return replace(self, places=tuple(place for place in self.places if place.leaf in wanted))


def layout_of(spec: ServerSpec, shards: Sequence[int]) -> Layout:
    places, offsets, position = [], {}, 0
    for shard in sorted(shards):
        for number, run in enumerate(spec.plans[shard].runs):
            nbytes = run.count * spec.structure.leaves[run.leaf].item_bytes
            places.append(Place(position, nbytes, run.leaf, run.start, run.count))
            offsets[shard, number] = position
            position += -(-nbytes // ALIGNMENT) * ALIGNMENT
    return Layout(tuple(sorted(shards)), tuple(places), position, offsets)

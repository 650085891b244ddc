"""The layout of a server's arrays in messages: the runs of all shards of one node in two buffers, those of float32 and
the others, one after the other as bytes. The elements of the first buffer may be of half precision.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fastps._core import copy
from fastps.arrays.types import HALVES, Array, Arrays, numpy_dtype
from fastps.bounded import Bounded
from fastps.spec.server import ServerSpec

ALIGNMENT = 8
NARROW, WIDE = 0, 1  # the numbers of the buffers
MOST_LAYOUTS = 4096  # of partial operations
MOST_PLACES = 1 << 17  # of all of them together; each takes about half a KiB


@dataclass(frozen=True)
class Place:
    """One run of the elements of an array.

    Attributes
    ----------
    buffer : NARROW or WIDE
    offset, nbytes : in the buffer, of elements as they are stored
    leaf, start, count : elements of the flattened leaf
    """

    buffer: int
    offset: int
    nbytes: int
    leaf: int
    start: int
    count: int


@dataclass(frozen=True)
class Layout:
    """The order of a node's runs. Both ends compute it from the spec. `half` is one of HALVES, the type of the elements
    of the buffer NARROW, or None. Arrays without elements are left out: their runs are undefined in messages.

    Attributes
    ----------
    shards : those of the node
    places : its runs in order
    sizes : the bytes of the buffers, with padding, of elements as they are stored
    offsets : where a run begins, its buffer and the byte in that, by (shard, number of the run)
    """

    shards: tuple[int, ...]
    places: tuple[Place, ...]
    sizes: tuple[int, int]
    offsets: dict[tuple[int, int], tuple[int, int]]

    @cached_property
    def runs(self) -> dict[int, int]:
        """How many runs each shard has."""
        counts = Counter(shard for shard, _ in self.offsets)
        return {shard: counts[shard] for shard in self.shards}

    def steps(self, data: Array) -> dict[int, Array]:
        """By shard, the update counts of its runs' arrays, which are one after the other in the bytes."""
        at, counts = 0, data[: 8 * len(self.places)].view(np.uint64)
        found = {}
        for shard, n in self.runs.items():
            found[shard] = counts[at : at + n]
            at += n
        return found

    def place(self, shard: int, number: int) -> tuple[int, int]:
        """Where a run begins: its buffer, and the byte in that."""
        return self.offsets[shard, number]

    def nbytes(self, half: str | None = None) -> int:
        """Of both buffers."""
        return self._wide_at(half) + self.sizes[WIDE]

    def _wide_at(self, half: str | None) -> int:
        narrow = self.sizes[NARROW] // 2 if half else self.sizes[NARROW]
        return -(-narrow // ALIGNMENT) * ALIGNMENT

    def at(self, place: Place, half: str | None) -> tuple[int, int]:
        """[start, stop) of a run in the bytes of both buffers."""
        if place.buffer == WIDE:
            start = self._wide_at(half) + place.offset
            return start, start + place.nbytes
        by = 2 if half else 1
        return place.offset // by, (place.offset + place.nbytes) // by

    def half_of(self, *streams: Arrays) -> str | None:
        """The type in which the elements of float32 travel: that of the arrays if it is the same half precision for
        all of them, otherwise None."""
        some = [arrays[place.leaf] for arrays in streams for place in self.places if place.buffer == NARROW]
        names = {array.dtype.name for array in some if array.size}
        name = names.pop() if len(names) == 1 else None
        return name if name in HALVES else None

    def buffers(self, data: Array, half: str | None) -> Arrays:
        """The two buffers in their bytes."""
        at = self._wide_at(half)
        narrow = data[: self.sizes[NARROW] // 2 if half else self.sizes[NARROW]]
        return [narrow.view(numpy_dtype(half)) if half else narrow, data[at : at + self.sizes[WIDE]]]

    def gather(self, arrays: Arrays, half: str | None = None) -> Array:
        """The arrays' elements as bytes, without a copy where they are contiguous already. Without `half`, elements of
        half precision are widened."""
        nbytes = self.nbytes(half)
        first = self.places[0] if len(self.places) == 1 else None
        if first is not None and arrays[first.leaf].size and self.at(first, half) == (0, nbytes):
            return self._elements(first, arrays, half)
        data = np.empty(nbytes, np.uint8)
        for place in self.places:
            if arrays[place.leaf].size:
                start, stop = self.at(place, half)
                data[start:stop] = self._elements(place, arrays, half)
        return data

    def scatter(self, start: int, piece: Any, arrays: Arrays, half: str | None = None) -> None:
        """Copies bytes of `gather`, from offset `start` on, into the arrays, which have the types that travel."""
        data = np.frombuffer(piece, np.uint8)
        stop = start + data.nbytes
        for place in self.places:
            first, end = self.at(place, half)
            low, high = max(start, first), min(stop, end)
            if low < high and arrays[place.leaf].size:
                elements = self._elements(place, arrays, half)
                copy(elements[low - first : high - first], data[low - start : high - start])

    def assign(self, arrays: Arrays, read: Arrays) -> None:
        """Copies the node's runs into arrays of other types."""
        for place in self.places:
            to, source = arrays[place.leaf], read[place.leaf]
            if to is not source:
                own = slice(place.start, place.start + place.count)
                with np.errstate(over="ignore"):  # infinite, as everywhere
                    to.reshape(-1)[own] = source.reshape(-1)[own]

    @staticmethod
    def _elements(place: Place, arrays: Arrays, half: str | None) -> Array:
        elements = arrays[place.leaf].reshape(-1)
        if place.nbytes == place.count:  # carried: counted in bytes
            elements = elements.view(np.uint8)
        elements = elements[place.start : place.start + place.count]
        if half is None and elements.dtype.name in HALVES:
            elements = elements.astype(np.float32)
        return elements.view(np.uint8)


class Layouts:
    """Those of a node: of all arrays, and of the arrays of partial operations, of which MOST_LAYOUTS with MOST_PLACES
    are kept.

    Threads: any number; two may make the same one.
    """

    def __init__(self, spec: ServerSpec, shards: Sequence[int]) -> None:
        self._spec, self._shards = spec, tuple(sorted(shards))
        self._whole = layout_of(spec, shards)
        self._some = Bounded[tuple[int, ...], Layout](MOST_LAYOUTS, MOST_PLACES)

    @property
    def size(self) -> int:
        """The places of the layouts that are kept for partial operations."""
        return self._some.size

    def of(self, leaves: tuple[int, ...] | None) -> Layout:
        if leaves is None:
            return self._whole
        found = self._some.get(leaves)
        if found is None:
            layout = layout_of(self._spec, self._shards, leaves)
            found = self._some.keep(leaves, layout, len(layout.places))
        return found


def layout_of(spec: ServerSpec, shards: Sequence[int], leaves: Sequence[int] | None = None) -> Layout:
    places, offsets, ends = [], {}, [0, 0]
    wanted = frozenset(range(len(spec.structure.leaves)) if leaves is None else leaves)
    for shard in sorted(shards):
        for number, run in enumerate(spec.plans[shard].runs):
            if run.leaf not in wanted:
                continue
            leaf = spec.structure.leaves[run.leaf]
            buffer, nbytes = NARROW if leaf.item_bytes == 4 else WIDE, run.count * leaf.item_bytes
            places.append(Place(buffer, ends[buffer], nbytes, run.leaf, run.start, run.count))
            offsets[shard, number] = buffer, ends[buffer]
            ends[buffer] += -(-nbytes // ALIGNMENT) * ALIGNMENT
    return Layout(tuple(sorted(shards)), tuple(places), (ends[NARROW], ends[WIDE]), offsets)

"""Which shard owns which elements, and where they lie in its arena. Pure.

The leaves, concatenated, have n elements; shard i of k owns [i n // k, (i + 1) n // k), so that no two shards differ by
more than one element. A leaf can span several shards.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastps.errors import OptionError
from fastps.scalars import whole
from fastps.spec.arrays import Structure

PAGE_BYTES = 4096
LINE_BYTES = 64
WORD_BYTES = 4  # runs begin at whole words and have room up to the next, also of what is carried as bytes
# From this size on, a run keeps its leaf's offset modulo a page, so that parameters and the user's array stay at the
# distance that csrc/layout.h describes.
LARGE_BYTES = 32768
MAX_SHARDS = 2**31 - 1


@dataclass(frozen=True)
class Run:
    """Contiguous elements of one leaf on one shard.

    Attributes
    ----------
    position : bytes from the start of the shard's parameters
    leaf : index of the leaf
    start, count : elements of the flattened leaf
    """

    position: int
    leaf: int
    start: int
    count: int


@dataclass(frozen=True)
class ShardPlan:
    """What one shard holds: its runs, sorted by position, and the bytes of parameters that they span."""

    index: int
    runs: tuple[Run, ...]
    params_bytes: int


def partition(structure: Structure, num_shards: int, at_least_one: bool = True) -> tuple[ShardPlan, ...]:
    """Raises OptionError when there are fewer elements than shards, unless they may have none."""
    count = whole("num_shards", num_shards, 1, MAX_SHARDS)
    size = structure.size
    if count > size and at_least_one:
        raise OptionError(f"num_shards: expected at most one per element, {size}, got {num_shards}")
    return tuple(_plan(structure, i, i * size // count, (i + 1) * size // count) for i in range(count))


def _plan(structure: Structure, index: int, start: int, stop: int) -> ShardPlan:
    runs = []
    position = first = 0
    for number, leaf in enumerate(structure.leaves):
        low, high = max(start, first), min(stop, first + leaf.size)
        if low < high:
            offset_bytes, run_bytes = (low - first) * leaf.item_bytes, (high - low) * leaf.item_bytes
            whole_words = offset_bytes - offset_bytes % WORD_BYTES
            step, wanted = (PAGE_BYTES, whole_words) if run_bytes >= LARGE_BYTES else (LINE_BYTES, 0)
            position += (wanted - position) % step
            runs.append(Run(position, number, low - first, high - low))
            position += run_bytes
        first += leaf.size
    return ShardPlan(index, tuple(runs), position + -position % WORD_BYTES)

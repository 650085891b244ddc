"""Shards on the caller's node: their arenas are mapped and the caller executes operations itself.

Called by sessions, from any thread. The arenas belong to the shards' processes; this process maps them and keeps them
mapped for as long as a view refers to them.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from fastps._core import Arena, Group
from fastps.errors import ArenaError, ClosedError, ShardDiedError
from fastps.kernels.loader import address_of
from fastps.spec import ServerSpec, ShardAddress
from fastps.transport.contract import Arrays


def open_arena(address: ShardAddress, label: str) -> Arena:
    """Maps a shard's arena through the file descriptor of its process.

    Raises ShardDiedError when the process is gone, ArenaError when this process may not look into it.
    """
    path = f"/proc/{address.pid}/fd/{address.fd}"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        raise ShardDiedError(f"{label}: its process {address.pid} is gone; create the server again") from None
    except OSError as error:
        raise ArenaError(
            error.errno, f"{label}: cannot open {path}: {error.strerror}; run workers as the user of the shard"
        ) from error
    try:
        arena = Arena.open(fd, address.arena_id, label)
    except BaseException:
        os.close(fd)
        raise
    arena.check()
    return arena


def group_of(spec: ServerSpec, arenas: dict[int, Arena], *, buffers: int, offset: Any, direct: bool = False) -> Group:
    """The arenas with their spans and rules. `offset(shard, number of the run)` gives (buffer, byte offset)."""
    spans = []
    for shard in arenas:
        rows = []
        for number, run in enumerate(spec.plans[shard].runs):
            leaf = spec.structure.leaves[run.leaf]
            rule = spec.dtypes.index(leaf.dtype)
            rows.append((run.position, run.count * leaf.item_bytes, *offset(shard, number), rule, leaf.item_bytes))
        spans.append(rows)
    images = spec.addresses[next(iter(arenas))].kernels
    rules = [(address_of(image), np.array(spec.rule.hyper, np.float64)) for image in images]
    leaves = spec.structure.leaves
    if not direct:
        return Group(list(arenas.values()), spans, rules, buffers, spec.timeout)
    kinds = [(np.dtype(leaf.dtype), leaf.shape) for leaf in leaves]
    names = None if spec.structure.is_array else [leaf.path[0] for leaf in leaves]
    return Group(list(arenas.values()), spans, rules, buffers, spec.timeout, kinds, names)


class Done:
    """An operation that ended before `start` returned."""

    def finish(self) -> None:
        pass


class ShmTransport:
    """Reaches the shards of one node from a process on it. See contract.Transport."""

    def __init__(self, spec: ServerSpec, shards: tuple[int, ...]) -> None:
        self.shards = shards
        self.arenas = {shard: open_arena(spec.addresses[shard], spec.label(shard)) for shard in shards}

        def offset(shard: int, number: int) -> tuple[int, int]:
            run = spec.plans[shard].runs[number]
            return run.leaf, run.start * spec.structure.leaves[run.leaf].item_bytes

        # All shards here, and no mapping in a mapping: the group can take arguments as they come.
        whole = len(shards) == len(spec.plans) and all(len(leaf.path) < 2 for leaf in spec.structure.leaves)
        self.group = group_of(spec, self.arenas, buffers=len(spec.structure.leaves), offset=offset, direct=whole)

    def start(self, grads: Arrays | None, outs: Arrays | None, timeout: float | None, resume: Any = None) -> Done:
        self.group.run(grads, outs, timeout, resume)
        return Done()

    def counters(self, timeout: float | None) -> dict[int, dict[str, int]]:
        return {shard: arena.counters() for shard, arena in self.arenas.items()}

    def alive(self) -> bool:
        """Whether nobody has closed an arena and no owner has died."""
        try:
            for arena in self.arenas.values():
                arena.check()
        except (ClosedError, ShardDiedError):
            return False
        return True

    def close(self) -> None:
        self.group.close()

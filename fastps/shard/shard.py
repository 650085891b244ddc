"""A shard: creates its arena, keeps it alive, and has a gateway that executes operations for other nodes. One message
is about all shards of a node, so it also maps its neighbours' arenas, as any worker does. It does not know Ray: see
`actor`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from fastps._core import Arena, Outcome, table_row_bytes
from fastps.arrays.types import Array
from fastps.consistency import Consistency
from fastps.kernels.cache import image_of
from fastps.kernels.image import KernelImage
from fastps.kernels.loader import host_cpu
from fastps.machine import capacity
from fastps.rules import Rule
from fastps.rules.assignment import Assignment
from fastps.shard.eviction import Eviction
from fastps.shard.gateway import Gateway
from fastps.spec.arrays import Structure
from fastps.spec.server import NodeAddress, ServerSpec, ShardAddress, kernels_of, rules_of_leaves
from fastps.spec.table import MAX_ROWS, Life, TableInfo
from fastps.transport.arenas import open_arena, require_alive, this_machine
from fastps.transport.contract import Buffer
from fastps.transport.layout import Layouts
from fastps.transport.shm import ShmEndpoint

Tables = tuple[tuple[TableInfo, Rule, Life], ...]


class Shard:
    """One shard of a server. Threads: one caller; evictions have threads of their own.

    Parameters
    ----------
    index, count : which shard, of how many
    node_id, actor_id : by which handles find its process
    """

    def __init__(self, index: int, count: int, node_id: str, actor_id: str) -> None:
        self._index, self._count, self._node_id, self._actor_id = index, count, node_id, actor_id
        self._label = f"shard {index} of {count}"
        self._arena: Arena | None = None
        self._arenas: dict[int, Arena] = {}
        self._gateway: Gateway | None = None
        self._initial: list[list[float]] = []  # values of the slots, per kernel
        self._lives: dict[int, Life] = {}
        self._evictions: dict[int, Eviction] = {}
        self._kernels: tuple[KernelImage, ...] = ()
        self._array_values: list[tuple[Any, ...]] = []  # of the hyper-parameters of the rules of arrays
        self._table_values: list[tuple[Any, ...]] = []  # and of tables

    def prepare(
        self,
        structure: Structure,
        params_bytes: int,
        assignment: Assignment,
        tables: Tables,
        clips: bool,
        max_sessions: int,
        isolated: bool,
        max_workers: int,
        consistency: Consistency,
    ) -> capacity.Need:
        """Compiles the rules for this node. Returns the memory that the arena needs, and that is available."""
        needed = kernels_of(structure, rules_of_leaves(structure, assignment.of_leaf))
        self._kernels = tuple(image_of(assignment.rules[rule], dtype, clips=clips) for rule, dtype in needed)
        self._kernels += tuple(
            image_of(rule, info.dtype, "row" if rule.family.for_rows else "dense", clips) for info, rule, _ in tables
        )
        local = consistency.local  # workers apply the rule, and have the slots
        n_slots = 0 if local else assignment.n_slots
        self._initial = [[] if local else list(assignment.rules[rule].slots.values()) for rule, _ in needed]
        self._initial.append([])  # of arrays that are carried
        self._lives = {i: life for i, (_, _, life) in enumerate(tables) if life.ends}
        self._table_values = [rule.values for _, rule, _ in tables]
        layouts = [info.layout(self._most_rows(info)) for info, _, _ in tables]
        self._array_values = [rule.values for rule in assignment.rules]
        self._create = partial(
            Arena.create, label=self._label, shard_index=self._index, params_bytes=params_bytes,
            max_sessions=max_sessions, isolated=isolated, n_slots=n_slots, max_workers=max_workers,
            policy=consistency.policy, tables=layouts, n_leaves=len(structure.leaves),
        )  # fmt: skip
        size = Arena.size(
            params_bytes, max_sessions, n_slots, max_workers, consistency.policy, layouts, len(structure.leaves)
        )
        return capacity.Need(self._label, self._node_id, size, capacity.available_bytes())

    def create(self) -> tuple[NodeAddress, ShardAddress]:
        """Allocates the arena and returns its address, in which the number of the node is still to be set."""
        arena_id = os.urandom(16)
        self._arena = self._create(arena_id, shard_count=self._count)
        for row, values in enumerate(self._array_values):
            self._arena.configure(row, numbered(values), 1.0)
        node = NodeAddress(self._node_id, this_machine(), host_cpu(), self._kernels)
        return node, ShardAddress(self._index, 0, self._actor_id, os.getpid(), self._arena.fd, arena_id)

    def _most_rows(self, info: TableInfo) -> int:
        """The most rows that a table may have here: its capacity, or what the memory has room for."""
        row_bytes = table_row_bytes(info.layout(1))
        if info.capacity is not None:
            capacity.require(info.capacity * row_bytes, f"{self._label}, table `{info.name}` of {info.capacity:,} rows")
            return info.capacity
        return max(1, min(MAX_ROWS, capacity.available_bytes() // row_bytes))

    def join(self, spec: ServerSpec, verbs: Mapping[str, Callable[..., Any]]) -> None:
        """Learns of the whole server and maps the arenas of its own node. `verbs` are further ones for the gateway."""
        assert self._arena is not None
        shards = spec.shards_of_node(spec.addresses[self._index].node)
        self._arenas = {i: self._arena if i == self._index else open_arena(spec, i) for i in shards}
        layouts = Layouts(spec, shards)
        endpoint = ShmEndpoint.of_layouts(spec, self._arenas, layouts)
        endpoint.group.begin(shards.index(self._index), self._initial)
        for number, values in enumerate(self._table_values):
            endpoint.verbs.configure(number, 0, numbered(values), 1.0, Outcome())
        tables = endpoint.verbs.tables
        self._evictions = {i: Eviction(tables[i], self._index, life) for i, life in self._lives.items()}
        for eviction in self._evictions.values():
            eviction.start()
        self._gateway = Gateway(spec, self._label, layouts, endpoint, {"make_room": self._make_room, **verbs})

    def serve(self, head: Buffer, *parts: Buffer) -> Buffer:
        """Serves a message, by the gateway."""
        assert self._gateway is not None
        return self._gateway.serve(head, *parts)

    def require_alive(self) -> None:
        require_alive(self._arenas)

    def _make_room(self, table: int, rows: int, kept: Array, timeout: float) -> int:
        return self._evictions[table].make_room(rows, kept, timeout)

    def close(self) -> None:
        """Marks the arena as closed and frees its memory, and that of neighbours that have died."""
        if self._arena is not None:
            self._arena.retire()
        for arena in self._arenas.values():
            arena.discard()


def numbered(values: tuple[Any, ...]) -> dict[int, float]:
    """Hyper-parameters by their index; NaN stands for a schedule."""
    return {i: value if isinstance(value, float) else math.nan for i, value in enumerate(values)}

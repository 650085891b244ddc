"""The Ray actor that owns an arena.

It creates the arena, keeps it alive, and executes operations for workers on other nodes: on its own shard, and, since
all shards of one node are asked in one call, on its neighbours' too, whose arenas it maps like any worker does. Methods
run one at a time on the actor's main thread.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import Any

import numpy as np
import ray

from fastps import capacity
from fastps._core import Arena, Group, Lane
from fastps.kernels.cache import image_of
from fastps.rules.base import Rule
from fastps.spec import ServerSpec, ShardAddress, dtypes_of
from fastps.structure import Structure
from fastps.transport import wire
from fastps.transport.shm import group_of, open_arena

# Remote workers whose last sequence number is remembered. A worker needs it only while a push of its is under way.
REMEMBERED = 64


class Shard:
    """State of the actor. Wrapped by `shard_actor`, so that importing this module starts nothing."""

    def __init__(self, index: int, count: int) -> None:
        self._index = index
        self._label = f"shard {index} of {count}"
        self._count = count
        self._arena: Arena | None = None
        self._spec: ServerSpec | None = None
        self._group: Group | None = None
        self._arenas: dict[int, Arena] = {}
        self._layout = wire.Layout((), 0)
        self._handle: Any = None
        self._lanes: OrderedDict[int, Lane] = OrderedDict()

    def create(
        self, structure: Structure, params_bytes: int, rule: Rule, max_sessions: int, isolated: bool
    ) -> ShardAddress:
        """Compiles the rule for this node, allocates the arena, says where it is."""
        kernels = tuple(image_of(rule, dtype) for dtype in dtypes_of(structure))
        arena_id = os.urandom(16)
        capacity.require(Arena.size(params_bytes, max_sessions), self._label)
        self._arena = Arena.create(
            arena_id, self._label, self._index, self._count, params_bytes, max_sessions, isolated
        )
        node = ray.get_runtime_context().get_node_id()
        return ShardAddress(self._index, node, os.getpid(), self._arena.fd, arena_id, kernels)

    def join(self, spec: ServerSpec) -> None:
        """Learns of the whole server and maps the arenas of its own node."""
        self._spec = spec
        self._arenas = {}
        for address in spec.addresses:
            if address.node_id == spec.addresses[self._index].node_id:
                mine = address.index == self._index
                assert self._arena is not None
                self._arenas[address.index] = self._arena if mine else open_arena(address, spec.label(address.index))
        self._layout = wire.layout(spec, tuple(self._arenas))
        self._group = group_of(
            spec, self._arenas, buffers=1, offset=lambda shard, number: (0, self._layout.offset(shard, number))
        )

    def spec(self) -> ServerSpec | None:
        """What `fastps.get` makes a handle from."""
        return self._spec

    def fill(self, *parts: Any) -> None:
        """Sets the parameters of all shards of this node, before anybody uses them."""
        assert self._group is not None
        self._group.fill([wire.join(parts, self._layout.nbytes)])

    def pull(self, timeout: float) -> Any:
        """All shards of this node as bytes in wire order."""
        assert self._group is not None
        out = np.empty(self._layout.nbytes, np.uint8)
        self._group.run(None, [out], timeout)
        return out

    def push(self, worker: int, seq: int, pulls: bool, timeout: float, *parts: Any) -> Any:
        """Applies a push to all shards of this node, once for each (worker, seq), and answers the result if asked."""
        assert self._group is not None
        grad = wire.join(parts, self._layout.nbytes)
        out = np.empty(self._layout.nbytes, np.uint8) if pulls else None
        self._group.run([grad], None if out is None else [out], timeout, lane=self._lane(worker), seq=seq)
        return out

    def _lane(self, worker: int) -> Lane:
        assert self._group is not None
        lane = self._lanes.pop(worker, None)
        if lane is None:
            while len(self._lanes) >= REMEMBERED:
                self._lanes.popitem(last=False)
            lane = self._group.lane()
        self._lanes[worker] = lane
        return lane

    def get_params(self) -> Any:
        """A copy of all parameters of the server, for programs written for an actor."""
        return self._server().pull()

    def update_params(self, grads: Any) -> None:
        """A push to all shards of the server, for programs written for an actor."""
        self._server().push(grads)

    def _server(self) -> Any:
        # Ray pickles this class by reference, but the server's module needs this one first.
        from fastps.server import ParameterServer

        if self._handle is None:
            assert self._spec is not None
            self._handle = ParameterServer._handle(self._spec)
        return self._handle

    def counters(self) -> dict[int, dict[str, int]]:
        """Of all shards of this node."""
        return {shard: arena.counters() for shard, arena in self._arenas.items()}

    def close(self) -> None:
        """Tells everybody that the arena is closed and gives its memory back."""
        if self._arena is not None:
            self._arena.retire()


def shard_actor() -> Any:
    """The Ray actor class."""
    return ray.remote(max_restarts=0, max_task_retries=0)(Shard)

"""The Ray actor of a shard: its life, and Ray's calls. Methods run one at a time on its main thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray

from fastps.cluster import pickled
from fastps.cluster import ray as cluster
from fastps.consistency import Consistency
from fastps.machine import capacity
from fastps.shard.coordinator import MAX_PARKED, Coordinator
from fastps.shard.shard import Shard
from fastps.spec.arrays import Structure
from fastps.spec.server import NodeAddress, ServerSpec, ShardAddress
from fastps.transport import ray as carrier
from fastps.transport.contract import Buffer


class ShardActor:
    """State of the actor. Wrapped by `shard_actor`, so that importing this module starts nothing."""

    def __init__(self, index: int, count: int) -> None:
        here = ray.get_runtime_context()
        self._node_id: str = here.get_node_id()
        self._shard, self._index = Shard(index, count, self._node_id, here.get_actor_id()), index
        self._spec: ServerSpec | None = None
        self._whole, self._containing = b"", None  # the spec with the containers of parameters, packed and unpacked
        self._published = False
        self._coordinator: Any = None
        self._coordinators = 0  # started so far

    def prepare(
        self, structure: Structure, params_bytes: int, functions: bytes, clips: bool, max_sessions: int,
        isolated: bool, max_workers: int, consistency: Consistency,
    ) -> capacity.Need:  # fmt: skip
        """As `Shard.prepare`; `functions` are the rules of the arrays and of the tables."""
        assignment, tables = pickled.functions(functions)
        return self._shard.prepare(
            structure, params_bytes, assignment, tables, clips, max_sessions, isolated, max_workers, consistency
        )

    def create(self) -> tuple[NodeAddress, ShardAddress]:
        """As `Shard.create`."""
        return self._shard.create()

    def join(self, spec: ServerSpec, whole: bytes) -> None:
        """As `Shard.join`. `whole`: the spec with its containers, whose classes this process may be unable to load."""
        self._spec, self._whole = spec, whole
        self._shard.join(spec, {"coordinator": self._find_coordinator})

    def publish(self) -> None:
        """The initial values are in place: others may find the server by its name."""
        self._published = True

    def spec(self) -> bytes | None:
        """What `fastps.get` makes a handle from, packed; None until the server is complete."""
        return self._whole if self._published else None

    def serve(self, head: Buffer, *parts: Buffer) -> Buffer:
        """Serves a message, by the gateway."""
        return carrier.reply(self._shard.serve(head, *parts))

    def _find_coordinator(self, lost: str, timeout: float) -> tuple[str, str]:
        """Name and id of the coordinator, the actor that represents workers of other nodes. It is started when the
        first of them joins, and again when the one with the id `lost` has died."""
        assert self._spec is not None
        self._shard.require_alive()
        if self._coordinator is None or cluster.id_of(self._coordinator) == lost:
            self._coordinators += 1
            name = cluster.generated(self._spec.server_id, f"coordinator/{self._coordinators}")
            self._coordinator = cluster.start_on(self._node_id, Coordinator, MAX_PARKED, name)(self._spec)
        name = cluster.generated(self._spec.server_id, f"coordinator/{self._coordinators}")
        return name, cluster.id_of(self._coordinator)

    def perform(self, call: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
        """Runs a call from `fastps.server.actor_style`, with the whole spec and this process's gateway."""
        if self._containing is None:
            self._containing = pickled.spec(self._whole, "remote")
        return call(self._containing, self._index, self._shard.serve, *args, **options)

    def close(self) -> None:
        """As `Shard.close`."""
        self._shard.close()


def shard_actor(reached_from_elsewhere: bool) -> Any:
    """The Ray actor class. To be reached from other nodes, its process needs an environment, which costs 0.3 s."""
    environment = {"runtime_env": {"env_vars": carrier.ENVIRONMENT}} if reached_from_elsewhere else {}
    return ray.remote(max_restarts=0, max_task_retries=0, enable_task_events=False, **environment)(ShardActor)

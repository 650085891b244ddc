"""Ray as a carrier: a message is a call of an actor's `serve`.

How Ray carries a payload fastest, measured between two raylets of one machine (`python -m bench dense`, remote):

- Each argument of a call is serialized separately, at 50 us, and `bytes` fastest: small payloads are joined to the
  header.
- A reply below `max_direct_call_object_size` travels with the call; a larger one is written to the object store of one
  node and fetched by the other. Shards are started with that limit at REPLY_BYTES. For much larger replies the object
  store is faster; it is used above INLINE_BYTES.
- An argument of up to PART_BYTES travels with the call, up to 10 MiB of them in one call. These limits are those of the
  caller's process, which fastps does not configure, so larger payloads are cut; above EAGER_BYTES the object store is
  faster.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastps.cluster import ray as cluster
from fastps.spec.server import ServerSpec
from fastps.transport.contract import Buffer, Limits

JOINED_BYTES = 100_000
PART_BYTES = 102_400
PARTS = 20
EAGER_BYTES = 10_000_000
REPLY_BYTES = 4 << 20
INLINE_BYTES = 12 << 20
ENVIRONMENT = {  # of processes that reply
    "RAY_max_direct_call_object_size": str(REPLY_BYTES + 65536),
    "RAY_task_rpc_inlined_bytes_limit": str(64 << 20),
    # Buffers of replies are reused from the heap, not mapped and faulted in for each reply.
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_TOP_PAD_": str(16 << 20),
}


class RayCarrier:
    """A carrier to the actor with this name, if it still has this id. See contract.Carrier.

    Parameters
    ----------
    name, actor_id : of the actor
    what : names it in errors
    """

    limits = Limits(JOINED_BYTES, PART_BYTES, PARTS, EAGER_BYTES, REPLY_BYTES, INLINE_BYTES)

    def __init__(self, name: str, actor_id: str, what: str) -> None:
        self._name, self._actor_id, self._what = name, actor_id, what

    @classmethod
    def to_shard(cls, spec: ServerSpec, shard: int) -> RayCarrier:
        return cls(spec.actors[shard], spec.addresses[shard].actor_id, spec.label(shard))

    def send(self, messages: Sequence[Sequence[Buffer]]) -> RayCall:
        actor = cluster.actor(self._name, self._actor_id, self._what)
        return RayCall([actor.serve.remote(*parts) for parts in messages], self._what)


class RayCall:
    """Calls of an actor. See contract.Call."""

    def __init__(self, refs: list[Any], what: str) -> None:
        self._refs, self._what = refs, what

    def replies(self, timeout: float) -> list[Buffer]:
        replies: list[Buffer] = cluster.get(self._refs, timeout, self._what)
        return replies


def reply(data: Buffer) -> Buffer:
    """The value that an actor returns: small replies as bytes, which Ray does not pickle."""
    return data if isinstance(data, bytes) or data.nbytes > JOINED_BYTES else data.tobytes()

"""Which node has which shards and workers. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.harness.arguments import ArgumentError
from fastps.messages import binary

PLACEMENTS = ("local", "spread", "remote")


@dataclass(frozen=True)
class Node:
    """One of Ray's nodes.

    Attributes
    ----------
    id : Ray's
    host : the address of its machine; raylets on one machine share it
    memory : bytes that Ray grants there
    """

    id: str
    host: str
    memory: float


@dataclass(frozen=True)
class Places:
    """The node of each shard and of each worker, by Ray's ids."""

    shards: tuple[str, ...]
    workers: tuple[str, ...]

    def local(self) -> bool:
        """Whether all are on one node."""
        return len({*self.shards, *self.workers}) == 1

    def share_elsewhere(self, worker: int) -> float:
        """The part of the shards that are on another node than a worker."""
        return sum(node != self.workers[worker] for node in self.shards) / len(self.shards)


def places(placement: str, nodes: Sequence[Node], shards: int, workers: int) -> Places:
    """The nodes of shards and workers; `nodes` begins with the driver's.

    local : all on the driver's node
    spread : shards, and workers, over all nodes by turns
    remote : shards on the driver's node, workers over the others by turns; raises ArgumentError where there are none
    """
    ids = [node.id for node in nodes]
    if placement == "local":
        return Places((ids[0],) * shards, (ids[0],) * workers)
    if placement == "spread":
        return Places(_by_turns(ids, shards), _by_turns(ids, workers))
    if len(ids) < 2:
        raise ArgumentError("--placement remote: the cluster has one node; name a larger one, or use --local-cluster 2")
    return Places((ids[0],) * shards, _by_turns(ids[1:], workers))


def _by_turns(ids: Sequence[str], count: int) -> tuple[str, ...]:
    return tuple(ids[i % len(ids)] for i in range(count))


def require_memory(nodes: Sequence[Node], needs: dict[str, int]) -> None:
    """Raises ArgumentError when a node's share, in bytes by node id, is more than Ray grants there."""
    for node in nodes:
        if needs.get(node.id, 0) > node.memory:
            raise ArgumentError(
                f"sizes: the share of node {node.id[:8]} at {node.host} takes about {binary(needs[node.id])}, and it "
                f"has {binary(node.memory)}; omit the largest size"
            )

"""Where the actors of a server are placed, and what is released when it ends."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.util.placement_group import get_placement_group, placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from fastps.cluster import ray as cluster
from fastps.deadline import deadline_after, left_until
from fastps.errors import FastPSError, PlacementError
from fastps.spec.placement import PlacementRequest, amounts


@dataclass
class Placed:
    """How to start each shard's actor, and the placement group to remove when the shards are gone."""

    options: list[dict[str, Any]] = field(default_factory=list)
    group: Any = None
    name: str = ""  # of a group that may be there although an exception has lost it

    def reserve(self, bundles: list[dict[str, float]], strategy: str) -> Any:
        """Asks Ray for a placement group, and returns it."""
        self.name = f"{cluster.NAMESPACE}/{os.urandom(16).hex()}"
        self.group = placement_group(bundles, strategy=strategy, name=self.name)
        return self.group

    def release(self) -> None:
        """Removes the group, if there is one. Idempotent."""
        if self.group is None and self.name:
            with contextlib.suppress(ValueError):  # Ray was not asked for it
                self.group = get_placement_group(self.name)
        if self.group is not None:
            remove_placement_group(self.group)
        self.group, self.name = None, ""


@dataclass
class Owned:
    """What ends with a server: the actors of its shards, which live as long as their owner has these handles, and their
    placement."""

    connection: cluster.Connection
    placed: Placed
    actors: list[Any]

    def end(self, timeout: float) -> None:
        """Closes the shards, then ends their processes, also when an exception of a signal handler ends the wait for
        them. Does nothing if Ray has ended."""
        if cluster.connection() != self.connection:
            return
        deadline = deadline_after(timeout)
        try:
            for closing in [actor.close.remote() for actor in self.actors]:  # one that is gone ends no other's wait
                with contextlib.suppress(FastPSError):  # a shard that is gone or stuck is killed all the same
                    cluster.get(closing, left_until(deadline), "close")
        finally:
            self.kill()

    def kill(self) -> None:
        """Ends all processes and releases their place, whatever is raised meanwhile. Idempotent."""
        with contextlib.ExitStack() as stack:
            stack.callback(self.placed.release)
            for actor in reversed(self.actors):
                stack.callback(ray.kill, actor)


def place(request: PlacementRequest, num_shards: int, timeout: float, placed: Placed) -> None:
    """Finds out how to start the actors of a server's shards. Resources are reserved where Ray supports that; whatever
    is raised, `placed.release` removes the reservation.

    Raises PlacementError for resources that no node has, and when a placement group is not ready within `timeout`
    seconds.
    """
    known = cluster.nodes()
    if request.strategy is not None:
        placed.options = _by_strategy(request.strategy, num_shards, known, timeout, placed)
    elif request.shards:
        placed.options = [_one(entry, shard, known) for shard, entry in enumerate(request.shards)]
    else:
        # Not soft: Ray ignores a soft affinity of actors that ask for no resources.
        here = NodeAffinitySchedulingStrategy(cluster.this_node(), soft=False)
        placed.options = [{"num_cpus": 0, "scheduling_strategy": here} for _ in range(num_shards)]


def _one(entry: str | Mapping[str, Any], shard: int, known: dict[str, dict[str, float]]) -> dict[str, Any]:
    if isinstance(entry, str):
        if entry not in known:
            raise PlacementError(
                f"placement of shard {shard}: no live node has the id {entry!r}; the live nodes are {sorted(known)}"
            )
        return {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(entry, soft=False)}
    wanted = amounts(entry)
    if not any(all(has.get(name, 0) >= amount for name, amount in wanted.items()) for has in known.values()):
        have = {node[:8]: {n: has.get(n, 0) for n in wanted} for node, has in known.items()}
        raise PlacementError(f"placement of shard {shard}: no node has {wanted}; the live nodes have {have}")
    return dict(entry)


def _by_strategy(
    strategy: str, num_shards: int, known: dict[str, dict[str, float]], timeout: float, placed: Placed
) -> list[dict[str, Any]]:
    if strategy == "STRICT_SPREAD" and num_shards > len(known):
        raise PlacementError(
            f"placement: STRICT_SPREAD puts {num_shards} shards on different nodes, but only {len(known)} live"
        )
    # A bundle must ask for something: a thousandth of a CPU.
    group = placed.reserve([{"CPU": 0.001}] * num_shards, strategy)
    if not _wait(group, deadline_after(timeout)):
        raise PlacementError(
            f"placement: the cluster could not reserve {strategy} for {num_shards} shards within {timeout:g} s; it has "
            f"{cluster.available()} left"
        )
    return [
        {"num_cpus": 0.001, "scheduling_strategy": PlacementGroupSchedulingStrategy(group, i)}
        for i in range(num_shards)
    ]


def _wait(group: Any, deadline: float) -> bool:
    """In short steps: Ray checks for signals only between them."""
    while left_until(deadline) > 0:
        if group.wait(min(0.5, left_until(deadline))):
            return True
    return False

"""Where the actors of a server go, and what is given back when it ends."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from fastps.cluster import ray as cluster
from fastps.deadline import deadline_after, left_until
from fastps.errors import FastPSError, PlacementError

STRATEGIES = ("SPREAD", "PACK", "STRICT_SPREAD", "STRICT_PACK")
Placement = str | Mapping[str, Any] | Sequence[Any] | None


@dataclass
class Placed:
    """How to start each shard's actor, and the placement group to remove when the shards are gone."""

    options: list[dict[str, Any]]
    group: Any = None

    def release(self) -> None:
        if self.group is not None:
            remove_placement_group(self.group)
            self.group = None


@dataclass
class Owned:
    """What ends with a server: the actors of its shards, which live as long as their owner has these handles, and
    where they were placed."""

    connection: cluster.Connection
    placed: Placed
    actors: list[Any]

    def end(self, timeout: float) -> None:
        """Tells the shards, then ends their processes. What has gone with Ray is gone."""
        if cluster.connection() != self.connection:
            return
        with contextlib.suppress(FastPSError):  # a shard that is gone or stuck is killed all the same
            cluster.get([actor.close.remote() for actor in self.actors], timeout, "close")
        self.kill()

    def kill(self) -> None:
        for actor in self.actors:
            ray.kill(actor)
        self.placed.release()


def place(placement: Placement, num_shards: int, timeout: float) -> Placed:
    """Turns a `placement` argument into options of Ray actors.

    None puts all shards on this process's node. A strategy's name spreads or packs them by a placement group; a mapping
    (or a sequence of them, one a shard) asks for resources, `{"num_cpus": 1, "resources": {"label": 0.1}}`; a sequence
    of strings names nodes by id. Raises PlacementError for what no node of the cluster has, and when a placement group
    is not ready within `timeout` seconds.
    """
    known = cluster.nodes()
    if placement is None:
        # Not a soft one: Ray ignores those of actors that ask for no resources.
        here = NodeAffinitySchedulingStrategy(cluster.this_node(), soft=False)
        return Placed([{"num_cpus": 0, "scheduling_strategy": here} for _ in range(num_shards)])
    if isinstance(placement, str):
        return _by_strategy(placement, num_shards, known, timeout)
    if not isinstance(placement, (Mapping, Sequence)):
        raise PlacementError(
            f"placement: expected None, one of {STRATEGIES}, a mapping of resources, or a sequence with one entry a "
            f"shard, got {type(placement).__name__} {placement!r}"
        )
    each = [placement] * num_shards if isinstance(placement, Mapping) else list(placement)
    if len(each) != num_shards:
        raise PlacementError(f"placement: expected one entry for each of {num_shards} shards, got {len(each)}")
    return Placed([_one(entry, shard, known) for shard, entry in enumerate(each)])


def _one(entry: Any, shard: int, known: dict[str, dict[str, float]]) -> dict[str, Any]:
    if isinstance(entry, str):
        if entry not in known:
            raise PlacementError(
                f"placement of shard {shard}: no live node has the id {entry!r}; the live nodes are {sorted(known)}"
            )
        return {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(entry, soft=False)}
    if not isinstance(entry, Mapping):
        raise PlacementError(
            f"placement of shard {shard}: expected one of {STRATEGIES}, a mapping of resources or node ids, got "
            f"{type(entry).__name__} {entry!r}"
        )
    unknown = set(entry) - {"num_cpus", "num_gpus", "memory", "resources"}
    if unknown:
        raise PlacementError(
            f"placement of shard {shard}: unknown {sorted(unknown)}; expected num_cpus, num_gpus, memory or resources"
        )
    options = {"num_cpus": 0, **entry}
    asked = {"CPU": options["num_cpus"], "GPU": options.get("num_gpus"), "memory": options.get("memory")}
    asked |= options.get("resources") or {}
    try:
        wanted = {name: float(amount) for name, amount in asked.items() if amount}
    except (TypeError, ValueError):
        raise PlacementError(f"placement of shard {shard}: expected numbers as amounts, got {dict(entry)}") from None
    if not any(all(has.get(name, 0) >= amount for name, amount in wanted.items()) for has in known.values()):
        have = {node[:8]: {n: has.get(n, 0) for n in wanted} for node, has in known.items()}
        raise PlacementError(f"placement of shard {shard}: no node has {wanted}; the live nodes have {have}")
    return options


def _by_strategy(strategy: str, num_shards: int, known: dict[str, dict[str, float]], timeout: float) -> Placed:
    if strategy not in STRATEGIES:
        raise PlacementError(f"placement: unknown strategy {strategy!r}; expected one of {STRATEGIES}")
    if strategy == "STRICT_SPREAD" and num_shards > len(known):
        raise PlacementError(
            f"placement: STRICT_SPREAD puts {num_shards} shards on different nodes, but only {len(known)} live"
        )
    # A bundle must ask for something: a thousandth of a CPU.
    group = placement_group([{"CPU": 0.001}] * num_shards, strategy=strategy)
    try:
        ready = _wait(group, deadline_after(timeout))
    except BaseException:
        remove_placement_group(group)
        raise
    if not ready:
        remove_placement_group(group)
        raise PlacementError(
            f"placement: the cluster could not reserve {strategy} for {num_shards} shards within {timeout:g} s; it has "
            f"{cluster.available()} left"
        )
    return Placed(
        [
            {"num_cpus": 0.001, "scheduling_strategy": PlacementGroupSchedulingStrategy(group, i)}
            for i in range(num_shards)
        ],
        group,
    )


def _wait(group: Any, deadline: float) -> bool:
    """In short steps: Ray looks at signals only between them."""
    while left_until(deadline) > 0:
        if group.wait(min(0.5, left_until(deadline))):
            return True
    return False

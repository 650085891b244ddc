"""What a `placement` argument asks for, checked as far as that needs no cluster. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastps.errors import PlacementError
from fastps.messages import brief

STRATEGIES = ("SPREAD", "PACK", "STRICT_SPREAD", "STRICT_PACK")
AMOUNTS = ("num_cpus", "num_gpus", "memory", "resources")
Placement = str | Mapping[str, Any] | Sequence[Any] | None


@dataclass(frozen=True)
class PlacementRequest:
    """Where the shards of a server should go. With neither: on the node of the process that creates it.

    Attributes
    ----------
    strategy : the strategy of the placement group that they are in, or None
    shards : per shard the id of its node, or the amounts of resources that it asks for; empty with a strategy
    """

    strategy: str | None = None
    shards: tuple[str | Mapping[str, Any], ...] = ()


def placement_request(placement: Any, num_shards: int) -> PlacementRequest:
    """Raises PlacementError for what no cluster could do."""
    if placement is None:
        return PlacementRequest()
    if isinstance(placement, str):
        if placement not in STRATEGIES:
            raise PlacementError(f"placement: unknown strategy {placement!r}; expected one of {STRATEGIES}")
        return PlacementRequest(strategy=placement)
    if not isinstance(placement, (Mapping, Sequence)):
        raise PlacementError(
            f"placement: expected None, one of {STRATEGIES}, a mapping of resources, or a sequence with one entry a "
            f"shard, got {type(placement).__name__} {brief(placement)}"
        )
    each = [placement] * num_shards if isinstance(placement, Mapping) else list(placement)
    if len(each) != num_shards:
        raise PlacementError(f"placement: expected one entry for each of {num_shards} shards, got {len(each)}")
    for shard, entry in enumerate(each):
        if not isinstance(entry, str):
            _require_amounts(entry, shard)
    return PlacementRequest(shards=tuple(each))


def amounts(entry: Mapping[str, Any]) -> dict[str, float]:
    """What a shard asks for, by the names that Ray's nodes have for it. Raises TypeError or ValueError."""
    asked = {"CPU": entry.get("num_cpus"), "GPU": entry.get("num_gpus"), "memory": entry.get("memory")}
    asked |= entry.get("resources") or {}
    return {name: float(amount) for name, amount in asked.items() if amount}


def _require_amounts(entry: Any, shard: int) -> None:
    if not isinstance(entry, Mapping):
        raise PlacementError(
            f"placement of shard {shard}: expected one of {STRATEGIES}, a mapping of resources or node ids, got "
            f"{type(entry).__name__} {brief(entry)}"
        )
    unknown = set(entry) - set(AMOUNTS)
    if unknown:
        raise PlacementError(
            f"placement of shard {shard}: unknown {sorted(unknown, key=str)}; expected num_cpus, num_gpus, memory or "
            f"resources"
        )
    try:
        amounts(entry)
    except (TypeError, ValueError):
        raise PlacementError(f"placement of shard {shard}: expected numbers as amounts, got {dict(entry)}") from None

"""The `placement` argument, checked as far as possible without a cluster. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastps.errors import OptionError, PlacementError
from fastps.messages import brief
from fastps.scalars import finite

STRATEGIES = ("SPREAD", "PACK", "STRICT_SPREAD", "STRICT_PACK")
AMOUNTS = ("num_cpus", "num_gpus", "memory")
Placement = str | Mapping[str, Any] | Sequence[Any] | None


@dataclass(frozen=True)
class PlacementRequest:
    """Where the shards of a server should go. With neither: on the node of the process that creates it.

    Attributes
    ----------
    strategy : the strategy of their placement group, or None
    shards : per shard, the id of its node, or its resources as options of a Ray actor; empty with a strategy
    """

    strategy: str | None = None
    shards: tuple[str | Mapping[str, Any], ...] = ()


def placement_request(placement: Any, num_shards: int) -> PlacementRequest:
    """Raises PlacementError for what no cluster could provide."""
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
    return PlacementRequest(shards=tuple(_one(entry, shard) for shard, entry in enumerate(each)))


def amounts(options: Mapping[str, Any]) -> dict[str, float]:
    """The resources of a shard, by the names that nodes use."""
    asked = {"CPU": options.get("num_cpus"), "GPU": options.get("num_gpus"), "memory": options.get("memory")}
    asked |= options.get("resources", {})
    return {name: amount for name, amount in asked.items() if amount}


def _one(entry: Any, shard: int) -> str | dict[str, Any]:
    """The id of a node, or options of a Ray actor."""
    what = f"placement of shard {shard}"
    if isinstance(entry, str):
        return entry
    if not isinstance(entry, Mapping):
        raise PlacementError(
            f"{what}: expected one of {STRATEGIES}, a mapping of resources or node ids, got {type(entry).__name__} "
            f"{brief(entry)}"
        )
    unknown = set(entry) - {*AMOUNTS, "resources"}
    if unknown:
        raise PlacementError(
            f"{what}: unknown {sorted(unknown, key=str)}; expected num_cpus, num_gpus, memory or resources"
        )
    options: dict[str, Any] = {"num_cpus": 0.0}
    options |= {name: _amount(entry[name], f"{what} {name}") for name in AMOUNTS if entry.get(name) is not None}
    if entry.get("resources") is not None:
        options["resources"] = _resources(entry["resources"], what)
    return options


def _resources(value: Any, what: str) -> dict[str, float]:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise PlacementError(f"{what} resources: expected a mapping of names to amounts, got {brief(value)}")
    taken = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
    for name in value:
        if name in taken:
            raise PlacementError(f"{what} resources: expected others than {name!r}; pass {{{taken[name]!r}: ...}}")
    return {name: _amount(amount, f"{what} {name}") for name, amount in value.items() if amount is not None}


def _amount(value: Any, what: str) -> float:
    expected = "a finite number, 0 or more"
    try:
        number = finite(what, value, expected)
    except OptionError as error:
        raise PlacementError(str(error)) from None
    if number < 0:
        raise PlacementError(f"{what}: expected {expected}, got {brief(value)}")
    return number

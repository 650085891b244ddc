"""The table of carriers."""

from __future__ import annotations

from collections.abc import Callable

from fastps.spec.server import ServerSpec
from fastps.transport.contract import Carrier
from fastps.transport.ray import RayCarrier

# By name, the function that makes a carrier to the process of a shard.
CARRIERS: dict[str, Callable[[ServerSpec, int], Carrier]] = {
    "ray": RayCarrier.to_shard,
}

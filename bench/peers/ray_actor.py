"""A parameter server as one writes it with Ray: an actor that applies what it is sent."""

from __future__ import annotations

from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from bench.peers.update import zeros


@ray.remote(num_cpus=0)
class RayActorServer:
    def __init__(self, elements: int, rule: str = "add") -> None:
        self.state = zeros(rule, elements)

    def get_params(self) -> Any:
        return self.state.params

    def update_params(self, grad: Any) -> None:
        self.state.push(grad)


def create(elements: int, workers: int, node: str, rule: str) -> Any:
    here = NodeAffinitySchedulingStrategy(node, soft=False)
    return RayActorServer.options(scheduling_strategy=here).remote(elements, rule)


def pull(actor: Any, out: Any = None) -> Any:
    """Read-only memory of Ray's object store: as one uses it, without a copy to `out`."""
    return ray.get(actor.get_params.remote())


def push(actor: Any, grad: Any) -> None:
    ray.get(actor.update_params.remote(grad))

"""The floor: a parameter server as one writes it with Ray, an actor that adds what it is sent."""

from __future__ import annotations

from typing import Any

import numpy as np
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


@ray.remote(num_cpus=0)
class RayActorServer:
    def __init__(self, elements: int) -> None:
        self.params = np.zeros(elements, np.float32)

    def get_params(self) -> Any:
        return self.params

    def update_params(self, grad: Any) -> None:
        self.params += grad


def create(elements: int, workers: int, node: str) -> Any:
    here = NodeAffinitySchedulingStrategy(node, soft=False)
    return RayActorServer.options(scheduling_strategy=here).remote(elements)


def pull(actor: Any, out: Any = None) -> Any:
    """Read-only memory of Ray's object store: as one uses it, without a copy to `out`."""
    return ray.get(actor.get_params.remote())


def push(actor: Any, grad: Any) -> None:
    ray.get(actor.update_params.remote(grad))

"""The two servers that the demo compares, behind one contract, so that one training loop serves both.

A client is created in the process that uses it: it owns the buffers.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import ray

from fastps import ParameterServer
from fastps.programs.demo.network import SIZE, Array, Named, named


class Client(Protocol):
    """A worker's side of a server. When `pull` or `push` returns, the operation is complete."""

    @property
    def grads(self) -> Named:
        """Where the gradients of the next push are written."""

    def pull(self) -> Named:
        """The parameters, valid until the next pull."""

    def push(self) -> None:
        """One step of gradient descent by `grads`."""


class FastpsClient:
    """A fastps server with the rule SGD: gradients are pushed as they are."""

    def __init__(self, server: ParameterServer) -> None:
        self._server = server
        self._params = named(np.zeros(SIZE, np.float32))
        self.grads = named(np.zeros(SIZE, np.float32))

    def pull(self) -> Named:
        params: Named = self._server.pull(out=self._params)
        return params

    def push(self) -> None:
        self._server.push(self.grads)


@ray.remote(num_cpus=0)
class PlainActor:
    """A parameter server in the fewest lines: a Ray actor with a float32 vector and two methods."""

    def __init__(self, params: Array) -> None:
        self.params = params.copy()  # Ray passes read-only arrays

    def get_params(self) -> Array:
        return self.params

    def update_params(self, update: Array) -> None:
        self.params += update


class ActorClient:
    """The plain actor adds what it is sent, so the gradient is scaled by the learning rate here.

    One flat vector, because Ray sends one array faster than four.
    """

    def __init__(self, actor: Any, lr: float) -> None:
        self._actor, self._scale = actor, np.float32(-lr)
        self._flat = np.zeros(SIZE, np.float32)
        self.grads = named(self._flat)

    def pull(self) -> Named:
        return named(ray.get(self._actor.get_params.remote()))

    def push(self) -> None:
        ray.get(self._actor.update_params.remote(self._scale * self._flat))

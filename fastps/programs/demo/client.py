"""A worker's side of either server, behind one contract, so that one training loop serves both.

A client is made in the process that uses it: it owns the buffers.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import ray

from fastps.programs.demo.network import SIZE, Named, named
from fastps.server.handle import ParameterServer


class Client(Protocol):
    """Pulls parameters and pushes what is in `grads`. When either returns, it has happened."""

    @property
    def grads(self) -> Named:
        """Where the gradients of the next push are written."""

    def pull(self) -> Named:
        """The parameters, valid until the next pull."""

    def push(self) -> None:
        """One step of gradient descent by `grads`."""


class FastpsClient:
    """A fastps server with the rule SGD: what is pushed is the gradient."""

    def __init__(self, server: ParameterServer) -> None:
        self._server = server
        self._params = named(np.zeros(SIZE, np.float32))
        self.grads = named(np.zeros(SIZE, np.float32))

    def pull(self) -> Named:
        params: Named = self._server.pull(out=self._params)
        return params

    def push(self) -> None:
        self._server.push(self.grads)


class ActorClient:
    """The plain actor, which adds what it is sent: the gradient, scaled here.

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

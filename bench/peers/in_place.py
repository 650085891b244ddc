"""The reference of a push: the rule in place, on an array of the worker's own that nobody shares."""

from __future__ import annotations

import numpy as np

from bench.peers.memory import SLOT_PLACES, array
from bench.peers.update import UPDATES, Parameters


class Unshared:
    def __init__(self, rule: str, elements: int) -> None:
        self.rule, self.elements = rule, elements
        self.state: Parameters | None = None

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.rule, self.elements)  # each worker has its own

    def mine(self) -> Parameters:
        if self.state is None:
            slots = [array(self.elements, place) for place in SLOT_PLACES[: UPDATES[self.rule].slots]]
            self.state = Parameters(self.rule, array(self.elements, "params"), slots)
        return self.state


def create(elements: int, workers: int, node: str, rule: str) -> Unshared:
    return Unshared(rule, elements)


def pull(server: Unshared, out: np.ndarray) -> None:
    np.copyto(out, server.mine().params)


def push(server: Unshared, grad: np.ndarray) -> None:
    server.mine().push(grad)

"""The reference of memory: the triad of STREAM, a = b + q * c, on arrays of the worker.

Whatever the rule, both operations read two arrays and write a third: 3 bytes of traffic for each of the parameters.
McCalpin, Memory Bandwidth and Machine Balance in Current High Performance Computers, 1995.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from bench.peers.memcpy import Memory
from bench.peers.memory import array

STREAMS = 3


@numba.njit
def triad(a: Any, b: Any, c: Any, q: Any) -> None:
    for i in range(a.size):
        a[i] = b[i] + q * c[i]


class Arrays(Memory):
    def __init__(self, elements: int) -> None:
        super().__init__(elements)
        self.other: np.ndarray | None = None

    def more(self) -> np.ndarray:
        if self.other is None:
            self.other = array(self.elements, "other", 1)
        return self.other


def create(elements: int, workers: int, node: str, rule: str) -> Arrays:
    return Arrays(elements)


def pull(server: Arrays, out: np.ndarray) -> None:
    triad(out, server.mine(), server.more(), np.float32(3))


def push(server: Arrays, grad: np.ndarray) -> None:
    triad(server.mine(), server.more(), grad, np.float32(3))

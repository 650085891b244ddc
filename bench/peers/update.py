"""The rules of a sweep without fastps: loops in numba, one pass over the memory. All peers that apply gradients use
these, so that all do the same work."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

LR, BETA1, BETA2, EPS = 1e-3, 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class Update:
    """A rule.

    Attributes
    ----------
    slots : arrays of the parameters' size that it keeps beside them
    apply : (params, grad, slots, step), in place; `step` counts from 1
    """

    slots: int
    apply: Callable[[np.ndarray, np.ndarray, Sequence[np.ndarray], int], object]


def _add(params: np.ndarray, grad: np.ndarray, slots: Sequence[np.ndarray], step: int) -> None:
    np.add(params, grad, out=params)


def _sgd(params: np.ndarray, grad: np.ndarray, slots: Sequence[np.ndarray], step: int) -> None:
    sgd(params, grad, np.float32(LR))


def _adam(params: np.ndarray, grad: np.ndarray, slots: Sequence[np.ndarray], step: int) -> None:
    size, root = LR / (1 - BETA1**step), math.sqrt(1 - BETA2**step)
    adam(params, grad, slots[0], slots[1], *map(np.float32, (BETA1, 1 - BETA1, BETA2, 1 - BETA2, size, 1 / root, EPS)))


# Divisions by zero are numpy's: the check that Python makes keeps a loop from using vectors.
@numba.njit(error_model="numpy", nogil=True)
def sgd(params: Any, grad: Any, lr: Any) -> None:
    for i in range(params.size):
        params[i] -= lr * grad[i]


@numba.njit(error_model="numpy", nogil=True)
def adam(
    params: Any, grad: Any, m: Any, v: Any, beta1: Any, rest1: Any, beta2: Any, rest2: Any, size: Any, scale: Any,
    eps: Any,
) -> None:  # fmt: skip
    """Kingma and Ba, Adam: a Method for Stochastic Optimization, 2015; the corrections of both means in `size` and
    `scale`."""
    for i in range(params.size):
        g = grad[i]
        m[i] = beta1 * m[i] + rest1 * g
        v[i] = beta2 * v[i] + rest2 * g * g
        params[i] -= size * m[i] / (np.sqrt(v[i]) * scale + eps)


UPDATES = {"add": Update(0, _add), "sgd": Update(0, _sgd), "adam": Update(2, _adam)}


class Parameters:
    """An array with the slots of a rule, in memory of the caller."""

    def __init__(self, rule: str, params: np.ndarray, slots: Sequence[np.ndarray]) -> None:
        self.update, self.params, self.slots, self.steps = UPDATES[rule], params, slots, 0

    def push(self, grad: np.ndarray) -> None:
        self.steps += 1
        self.update.apply(self.params, grad, self.slots, self.steps)


def zeros(rule: str, elements: int) -> Parameters:
    """Parameters of zeros, in memory of numpy's."""
    slots = [np.zeros(elements, np.float32) for _ in range(UPDATES[rule].slots)]
    return Parameters(rule, np.zeros(elements, np.float32), slots)

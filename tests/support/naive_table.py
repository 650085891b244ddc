"""A table as a dict of rows: the oracle of the compiled one.

The rule's own Python function is called for one element after the other, as `fastps.testing.Naive` does it, and agrees
as closely. How a row begins is told from outside.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastps.rules.base import MEAN_SQUARE, Rule
from fastps.schedules import Schedule

Array = np.ndarray[Any, np.dtype[Any]]
LANES = 8  # partial sums of a mean of squares, as in fastps/kernels/shapes.py


class NaiveTable:
    """Rows by key.

    Attributes
    ----------
    rows : by key, {"row": values, slot: values}; a slot of one value a row has one
    version : pushes so far
    """

    def __init__(self, rule: Rule, dim: int, dtype: str, first: Callable[[Any], Array], version: int = 0) -> None:
        self.rule, self.dim, self.dtype, self.first, self.version = rule, dim, np.dtype(dtype), first, version
        self.rows: dict[Any, dict[str, Array]] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def contains(self, keys: Any) -> Array:
        return np.array([key in self.rows for key in keys], bool)

    def pull(self, keys: Any) -> Array:
        found = [self._row(key)["row"] for key in keys]
        return np.array(found, self.dtype).reshape(len(found), self.dim)

    def peek(self, keys: Any) -> Array:
        found = [self.rows[key]["row"] if key in self.rows else self.first(key) for key in keys]
        return np.array(found, self.dtype).reshape(len(found), self.dim)

    def push(self, keys: Any, grads: Array, scale: float = 1.0, limit: float = math.inf) -> None:
        """Gradients of one key are added in their order; then scaled, clipped, and given to the rule."""
        self.version += 1
        summed: dict[Any, Array] = {}
        for key, grad in zip(keys, grads, strict=True):
            summed[key] = summed[key] + grad if key in summed else grad
        number = self.dtype.type
        with np.errstate(all="ignore"):
            for key, grad in summed.items():
                self._apply(self._row(key), np.clip(grad * number(scale), -number(limit), number(limit)))

    def push_pull(self, keys: Any, grads: Array) -> Array:
        self.push(keys, grads)
        return self.pull(keys)

    def set(self, keys: Any, **streams: Array) -> None:
        """The values are `row`; of a repeated key the last one counts."""
        for place, key in enumerate(keys):
            for name, values in streams.items():
                self._row(key)[name] = np.array(values[place], self.dtype)

    def evict(self, keys: Any) -> int:
        return sum(self.rows.pop(key, None) is not None for key in keys)

    def _row(self, key: Any) -> dict[str, Array]:
        if key not in self.rows:
            alone = self.rule.family.row_slots
            slots = {name: np.full(1 if name in alone else self.dim, at) for name, at in self.rule.slots.items()}
            born = {"row": self.first(key), **slots}
            self.rows[key] = {name: np.array(values, self.dtype) for name, values in born.items()}
        return self.rows[key]

    def _apply(self, row: dict[str, Array], grad: Array) -> None:
        family, slots = self.rule.family, list(self.rule.slots)
        uniform = {name: self._at_this_push(value) for name, value in self.rule.hyper.items()}
        if family.uses_step:
            uniform["step"] = float(self.version)
        known = {**row, MEAN_SQUARE: self._mean_square(grad)}
        behind = [name for name in inspect.signature(family.function).parameters if name in known]
        new = []
        for i in range(self.dim):
            elements = [known[name][i % len(known[name])] for name in behind]
            result = family.function(row["row"][i], grad[i], *elements, **uniform)
            new.append(result if slots else (result,))
        for name, values in zip(["row", *slots], zip(*new, strict=True), strict=True):
            row[name] = np.array(values[-len(row[name]) :], self.dtype)

    def _mean_square(self, grad: Array) -> Array:
        lanes, whole = np.zeros(LANES, self.dtype), self.dim - self.dim % LANES
        for i in range(0, whole, LANES):
            lanes = lanes + grad[i : i + LANES] * grad[i : i + LANES]
        for g in grad[whole:]:
            lanes[0] += g * g
        pairs = lanes.reshape(-1, 2).sum(axis=1)
        total = (pairs[0] + pairs[1]) + (pairs[2] + pairs[3])
        return np.array([total / self.dtype.type(self.dim)])

    def _at_this_push(self, value: float | Schedule) -> float:
        return float(value(self.version - 1.0) if isinstance(value, Schedule) else value)

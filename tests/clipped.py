"""An update rule as a user writes one, in a module that workers can import."""

from __future__ import annotations

from dataclasses import dataclass

from fastps.rules import Rule


@dataclass(frozen=True)
class Clipped(Rule):
    """Gradient descent with every element of the gradient clipped."""

    lr: float
    limit: float

    @staticmethod
    def step(p: float, g: float, lr: float, limit: float) -> float:
        return p - lr * min(max(g, -limit), limit)

"""Stochastic gradient descent."""

from __future__ import annotations

from dataclasses import dataclass

from fastps.rules.base import Rule


@dataclass(frozen=True)
class SGD(Rule):
    """Stochastic gradient descent with weight decay: ``p - lr * (g + weight_decay * p)``.

    Parameters
    ----------
    lr : float
        Learning rate.
    weight_decay : float
        Factor of an L2 penalty that is added to the gradient. As in torch.optim.SGD; no momentum, no slots.

    Examples
    --------
    >>> SGD.step(1.0, 0.5, lr=0.1, weight_decay=0.0)
    0.95
    """

    lr: float
    weight_decay: float = 0.0

    @staticmethod
    def step(p: float, g: float, lr: float, weight_decay: float) -> float:  # type: ignore[override]  # see Add
        return p - lr * (g + weight_decay * p)

"""`params += grad`."""

from __future__ import annotations

from dataclasses import dataclass

from fastps.rules.base import Rule


@dataclass(frozen=True)
class Add(Rule):
    """Adds what is pushed: ``p + g``.

    The rule for updates that are already scaled by a learning rate, for counters and for sums. No slots, no
    hyper-parameters.

    Examples
    --------
    >>> Add.step(2.0, 0.5)
    2.5
    """

    @staticmethod
    def step(p: float, g: float) -> float:  # type: ignore[override]  # a rule names its own hyper-parameters
        return p + g

"""The loss over time of one run."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Curve:
    """Samples in temporal order.

    Attributes
    ----------
    seconds : since the workers began
    losses : over all training images
    """

    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def add(self, seconds: float, loss: float) -> None:
        self.seconds.append(seconds)
        self.losses.append(loss)

    def at(self, seconds: float) -> float:
        """The loss of the last sample that is not later."""
        return next(loss for t, loss in zip(self.seconds[::-1], self.losses[::-1], strict=True) if t <= seconds)

    def reached(self, loss: float) -> float | None:
        """The time of the first sample that is as low; None: never."""
        return next((t for t, own in zip(self.seconds, self.losses, strict=True) if own <= loss), None)

"""Local steps, then an average of parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastps.consistency.base import BSP_KIND, REDUCTIONS, Consistency
from fastps.scalars import whole


@dataclass(frozen=True)
class LocalSGD(Consistency):
    """Every worker has a copy of the parameters and of the rule's slots, and applies its pushes to it. After `steps`
    pushes of each worker, a round replaces the parameters of all copies by their mean. Slots stay with their workers.

    Parameters
    ----------
    steps : int
        Pushes between two averages, 1 or more.

    References
    ----------
    Stich, Local SGD Converges Fast and Communicates Little, ICLR 2019. As torch's `PeriodicModelAverager`, which also
    leaves the optimizers' state alone.
    """

    steps: int

    kind: ClassVar[int] = BSP_KIND

    def __post_init__(self) -> None:
        super().__post_init__()
        self._keep("steps", whole("steps", self.steps, 1, 2**31 - 1))

    @property
    def bound(self) -> int:
        return 0

    @property
    def local(self) -> bool:
        return True

    @property
    def policy(self) -> tuple[int, int, int, int, float, int]:
        kind, staleness, backup, workers, straggler, _ = super().policy
        return kind, staleness, backup, workers, straggler, REDUCTIONS["params"]

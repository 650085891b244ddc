"""Rounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastps.consistency.base import BSP_KIND, REDUCTIONS, Consistency
from fastps.errors import OptionError
from fastps.scalars import choice, flag, whole


@dataclass(frozen=True, kw_only=True)
class BSP(Consistency):
    """Bulk synchronous parallel: a round collects one gradient of each live worker, applies the rule once, and
    publishes a new set of parameters, which never changes: every worker of a round reads the same one, and a view of it
    costs no copy.

    Parameters
    ----------
    reduce : "mean" or "sum"
        What the rule gets: the sum of the round's gradients, taken in the order of ranks, or their mean. A worker that
        accumulates k gradients in a step counts k times.
    backup : int
        0 or more: a round closes when all but this many workers have contributed. A late gradient counts on no shard;
        its worker sees that in `Reply.counted` and continues with the newest parameters.
    deterministic : bool
        Refuses everything that would let the result depend on time: backup workers, a straggler timeout, and workers
        that do not pass a rank below `workers`. The sum is always taken in the order of ranks. No round closes before
        all `workers` have joined.

    References
    ----------
    Valiant, A Bridging Model for Parallel Computation, CACM 1990. Chen et al., Revisiting Distributed Synchronous SGD,
    2016 (backup workers).
    """

    reduce: str = "mean"
    backup: int = 0
    deterministic: bool = False

    kind: ClassVar[int] = BSP_KIND

    def __post_init__(self) -> None:
        super().__post_init__()
        self._keep("reduce", choice("reduce", self.reduce, ("mean", "sum")))
        self._keep("backup", whole("backup", self.backup, 0, 255))
        if 1 < self.workers <= self.backup:
            raise OptionError(f"backup: expected fewer than the {self.workers} workers, got {self.backup}")
        self._keep("deterministic", flag("deterministic", self.deterministic))
        if self.deterministic and (self.backup or self.straggler_timeout is not None):
            raise OptionError(
                "deterministic: with backup= or straggler_timeout= it depends on time which gradients count; omit them"
            )

    @property
    def bound(self) -> int:
        return 0

    @property
    def policy(self) -> tuple[int, int, int, int, float, int]:
        kind, staleness, _, workers, straggler, _ = super().policy
        return kind, staleness, self.backup, workers, straggler, REDUCTIONS[self.reduce]

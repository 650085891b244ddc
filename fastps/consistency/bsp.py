"""Rounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastps.consistency.base import BSP_KIND, REDUCTIONS, Consistency
from fastps.errors import OptionError
from fastps.scalars import choice, flag, whole


@dataclass(frozen=True, kw_only=True)
class BSP(Consistency):
    """Bulk synchronous parallel: a round gathers one gradient of each live worker, applies the rule once, and makes a
    new version of the parameters. A version never changes: every worker of a round reads the same one, and a view of it
    costs no copy.

    Parameters
    ----------
    reduce : "mean" or "sum"
        What the rule gets: the sum of the round's gradients, in the order of ranks, or that divided by their number.
        A worker that accumulates k gradients in a step counts k times.
    backup : int
        A round closes without the last so many gradients, 0 or more. A late one counts on no shard; its worker is told
        (`Reply.counted`) and goes on with the newest version.
    deterministic : bool
        The sum is always in the order of ranks. This refuses what would let the result depend on time all the same:
        backup workers, a straggler timeout, and workers without a rank of their own below `workers`, all of which must
        be there before the first round closes.

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

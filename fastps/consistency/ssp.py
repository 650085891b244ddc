"""Bounded staleness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastps.consistency.base import SSP_KIND, Consistency
from fastps.scalars import whole


@dataclass(frozen=True)
class SSP(Consistency):
    """Stale synchronous parallel: pushes are applied when they arrive, and a worker at clock c begins its step when the
    clock of every live worker is at least c - staleness. So its pull sees all their updates of clocks below that, and
    those later ones that have been applied already.

    ``SSP(0)`` is lock-step: no worker begins a step before all have ended the previous one.

    Parameters
    ----------
    staleness : int
        Clocks that a worker may be ahead of the slowest live one, 0 or more.

    References
    ----------
    Ho et al., More Effective Distributed ML via a Stale Synchronous Parallel Parameter Server, NIPS 2013.
    """

    staleness: int

    kind: ClassVar[int] = SSP_KIND

    def __post_init__(self) -> None:
        super().__post_init__()
        self._keep("staleness", whole("staleness", self.staleness, 0, 2**31 - 1))

    @property
    def bound(self) -> int:
        return self.staleness

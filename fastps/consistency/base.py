"""The settings of every policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastps.scalars import positive, whole

ASYNC, SSP_KIND, BSP_KIND = 0, 1, 2  # fps_consistency in csrc/layout.h
MAX_SECONDS = 1e9  # clocks count nanoseconds in 64 bits
REDUCTIONS = {"sum": 0, "mean": 1, "params": 2}  # fps_reduce


@dataclass(frozen=True, kw_only=True)
class Consistency:
    """How far workers may be apart.

    Attributes
    ----------
    workers : expected workers; until this many have been connected at once, each missing one counts as at clock 0
    straggler_timeout : seconds after which a worker that the others wait for is expelled, if its session has executed
        no operation in that time; None: never, as long as it lives
    lease : seconds after which a worker on another node than shard 0 counts as dead, unless its session renews the
        lease. It does so three times per lease, also while the worker computes; this does not count as an operation
        for `straggler_timeout`
    """

    workers: int = 1
    straggler_timeout: float | None = None
    lease: float = 10.0

    kind: ClassVar[int]

    def __post_init__(self) -> None:
        self._keep("workers", whole("workers", self.workers, 1, 256))
        for name, value in (("straggler_timeout", self.straggler_timeout), ("lease", self.lease)):
            if value is None and name == "straggler_timeout":
                continue
            self._keep(name, positive(name, value, MAX_SECONDS, "seconds"))

    def _keep(self, name: str, value: float | str) -> None:
        """Stores a checked setting."""
        object.__setattr__(self, name, value)

    @property
    def bound(self) -> int | None:
        """Clocks that a worker may be ahead of the slowest; None: any number."""
        return None

    @property
    def rounds(self) -> bool:
        """Whether updates are applied in rounds, out of place."""
        return self.kind == BSP_KIND

    @property
    def local(self) -> bool:
        """Whether workers apply the rule to copies of their own."""
        return False

    @property
    def policy(self) -> tuple[int, int, int, int, float, int]:
        """(kind, staleness, backup, workers, straggler timeout or 0, reduction), as fps_policy has them."""
        return self.kind, self.bound or 0, 0, self.workers, float(self.straggler_timeout or 0.0), 0

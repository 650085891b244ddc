"""What the coordinator says of the board to workers elsewhere, without Ray."""

from __future__ import annotations

from fastps._core import Decision
from fastps.shard.coordinator import Coordinator


class Moving:
    """A member whose board moves on whenever it is looked at, as workers of this node make it."""

    def __init__(self):
        self._round = 5

    def _next(self):
        self._round += 1
        return self._round

    def decision(self):
        return Decision.unpack(self._next().to_bytes(8, "little"))

    def state(self):
        now = self._next()
        return now, now


def test_a_worker_elsewhere_never_hears_of_progress_without_the_round_behind_it():
    """It would read, and write over, what the round has not been applied to."""
    _, progress, decision = Coordinator._reached(Moving())
    assert Decision.unpack(decision).round >= progress

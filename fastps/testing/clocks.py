"""Which workers take part, their clocks, and which rounds have closed: the oracle of csrc/clock.c.

After every event, everything is recomputed from the history, by the definitions. No waiting, no time: events that a
gate should have delayed are accepted, so that the test decides the order.
"""

from __future__ import annotations

from typing import Literal

ASYNC, SSP, BSP = 0, 1, 2

State = Literal["free", "live", "out"]
Decision = tuple[int, tuple[tuple[int, int], ...]]


class ModelBoard:
    """Ranks, their clocks, and the common progress.

    Every method raises ValueError, and changes nothing, if the rank is not in a valid state for it.

    Parameters
    ----------
    kind : ASYNC, SSP or BSP
    staleness : clocks that a worker may be ahead of the slowest; SSP only
    backup : a round closes without the last `backup` gradients; BSP only
    workers : how many must be live at once before there is progress
    members : number of ranks

    Attributes
    ----------
    progress : the clock of the slowest live worker, or under BSP the rounds that have closed; never decreases
    started : whether `workers` workers have been live at once
    """

    def __init__(self, kind: int, staleness: int, backup: int, workers: int, members: int) -> None:
        self._kind, self._staleness, self._backup, self._workers = kind, staleness, backup, workers
        self._states: list[State] = ["free"] * members
        self._clocks = [0] * members
        self._given: dict[int, int] = {}  # what is in the open round: weight by rank
        self._decision: Decision = (0, ())
        self.progress, self.started = 0, False

    @property
    def live(self) -> list[int]:
        return [rank for rank, state in enumerate(self._states) if state == "live"]

    def clock(self, rank: int) -> int:
        """Steps that the rank has ended; those of its last worker if no worker is live."""
        self._require(rank, "free", "live", "out")
        return self._clocks[rank]

    def may_go(self, rank: int) -> bool:
        """Whether the rank may begin the step at its clock."""
        ahead = self.clock(rank) - self.progress
        return self._kind == ASYNC or ahead <= (self._staleness if self._kind == SSP else 0)

    def decision(self) -> Decision:
        """(rounds closed, (rank, weight) of each that is in the last of them); (0, ()) before the first closes."""
        return self._decision

    def join(self, rank: int) -> int:
        self._require(rank, "free", "out")
        return self._enter(rank)

    def rejoin(self, rank: int) -> int:
        """An expelled worker rejoins."""
        self._require(rank, "out")
        return self._enter(rank)

    def leave(self, rank: int) -> None:
        self._require(rank, "live", "out")
        self._states[rank] = "free"
        self._settle()

    def evict(self, rank: int) -> None:
        self._require(rank, "live")
        self._states[rank] = "out"
        self._settle()

    def end_step(self, rank: int) -> int:
        """Async and SSP: the rank's new clock."""
        if self._kind == BSP:
            raise ValueError("under BSP a step ends with `arrive`")
        self._require(rank, "live")
        self._clocks[rank] += 1
        self._settle()
        return self._clocks[rank]

    def arrive(self, rank: int, weight: int) -> bool:
        """BSP: gives `weight` gradients to the open round. False if they are for one that has closed."""
        if self._kind != BSP or weight < 0:
            raise ValueError(f"expected BSP and a weight of 0 or more, got {weight}")
        self._require(rank, "live")
        if self._clocks[rank] > self.progress:
            raise ValueError(f"rank {rank}: its round {self._clocks[rank]} is not open yet")
        in_time = self._clocks[rank] == self.progress
        if in_time:
            self._given[rank] = weight
            self._clocks[rank] += 1
        else:
            self._clocks[rank] = self.progress
        self._settle()
        return in_time

    def catch_up(self, rank: int, round: int) -> int:
        """BSP: the rank has read the parameters after `round` rounds. Returns its clock, which is then at least
        that."""
        if self._kind != BSP or not 0 <= round <= self.progress:
            raise ValueError(f"expected BSP and a round from 0 to {self.progress}, got {round}")
        self._require(rank, "live")
        self._clocks[rank] = max(self._clocks[rank], round)
        return self._clocks[rank]

    def _enter(self, rank: int) -> int:
        # A rank gives once to a round: a worker that takes the rank of one that has given begins with the next round.
        self._clocks[rank] = self.progress + (rank in self._given)
        self._states[rank] = "live"
        self._settle()
        return self._clocks[rank]

    def _settle(self) -> None:
        live = self.live
        self.started = self.started or len(live) >= self._workers
        if not self.started:
            return
        if self._kind != BSP:
            self.progress = max(self.progress, min((self._clocks[rank] for rank in live), default=0))
        elif self._given and len(self._given) + self._backup >= len({*live, *self._given}):
            self.progress += 1
            self._decision = (self.progress, tuple(sorted(self._given.items())))
            self._given = {}

    def _require(self, rank: int, *states: State) -> None:
        if not 0 <= rank < len(self._states):
            raise ValueError(f"expected a rank from 0 to {len(self._states) - 1}, got {rank}")
        if self._states[rank] not in states:
            raise ValueError(f"rank {rank}: expected {' or '.join(states)}, it is {self._states[rank]}")

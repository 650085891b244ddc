"""What a transport promises. tests/conformance runs one suite over all of them.

- A pull reads, and a push writes, a whole number of pushes of every shard.
- When `finish` returns it has happened; when it raises, the error says on which shards it has.
- A push happens at most once, whatever is retried inside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from fastps._core import Decision, Outcome
    from fastps._core.core import Deposit

Arrays = list[np.ndarray[Any, np.dtype[Any]]]
MIXED = 2**64 - 1  # in the place of a version: nothing was read, the shards were at different rounds


@dataclass(frozen=True)
class Work:
    """One operation. The arrays are one a leaf, checked, C-contiguous; they stay untouched and alive until `finish`.

    Attributes
    ----------
    grads : makes it a push
    outs : makes it a pull, or a push_pull
    pulled : the parameters that the worker had, for rules that want them
    scale : of the gradients, by their global norm
    slot : makes it about this slot: `grads` are its new values; arrays of leaves without the slot are not looked at
    streams : where each kernel's rule keeps the slot
    decision : where updates are applied in rounds: the one that is to be there first
    deposit : makes `grads` go to a worker's rows; the fields of fps_deposit
    """

    grads: Arrays | None = None
    outs: Arrays | None = None
    pulled: Arrays | None = None
    scale: float = 1.0
    slot: str | None = None
    streams: list[int | None] | None = None
    decision: Decision | None = None
    deposit: Deposit | None = None


@dataclass(frozen=True)
class TableWork:
    """One operation on the rows of a table. The arrays are checked, C-contiguous, of n rows; they stay untouched and
    alive until `finish`.

    Attributes
    ----------
    keys : uint64[n], all of the transport's shards
    grads : [n, dim], makes it a push
    outs : [n, dim], makes it a pull, or a push_pull
    sets : for the values and each slot, an array [n, ...] or None: sets them
    create : a pull: rows that are missing are born
    scale : of the gradients
    """

    keys: np.ndarray[Any, np.dtype[np.uint64]]
    grads: np.ndarray[Any, np.dtype[Any]] | None = None
    outs: np.ndarray[Any, np.dtype[Any]] | None = None
    sets: list[Any] | None = None
    create: bool = True
    scale: float = 1.0


class Pending(Protocol):
    """An operation under way."""

    def finish(self) -> dict[int, int]:
        """Waits for the end. Answers, per shard, the version that was read, or made, or MIXED. Raises WaitTimeoutError,
        ShardDiedError or ClosedError."""


class Membership(Protocol):
    """A worker's place among those that share clocks. Raises PutOutError when the others went on without it.

    Attributes
    ----------
    rank : its number
    generation : how many workers have had that number, this one included
    """

    @property
    def rank(self) -> int: ...

    @property
    def generation(self) -> int: ...

    def begin(self, timeout: float) -> tuple[int, int]:
        """Waits until the worker may begin its step: (its clock, the clock of the slowest live worker)."""

    def end_step(self, clock: int, timeout: float) -> None:
        """Ends the step that the worker began at this clock; twice is as good as once."""

    def give(self, round: int, weight: int, timeout: float) -> bool:
        """Gives what is in the worker's rows, `weight` gradients, to a round; False when that had closed already. Twice
        is as good as once."""

    def catch_up(self, round: int, timeout: float) -> None:
        """The worker has read what `round` rounds have made: its next gradient is for the one behind them."""

    def decision(self) -> Decision:
        """The last round that closed, as it was last heard of."""

    def state(self) -> tuple[int, int]:
        """(its clock, the clock of the slowest live worker), as they were last heard of."""

    def rejoin(self, timeout: float) -> None:
        """Back among the others, at their clock."""

    def leave(self) -> None:
        """Twice is as good as once."""


class TableTransport(Protocol):
    """Reaches the part of a table that is on some of the shards of one server.

    Attributes
    ----------
    shards : those shards
    """

    shards: tuple[int, ...]

    def start(
        self, work: TableWork, timeout: float | None, resume: Any = None, outcome: Outcome | None = None
    ) -> Pending:
        """Begins an operation. `resume` comes from a WaitTimeoutError of this transport for the same work. `outcome` is
        told what is applied, by the call that does it."""

    def find(self, keys: Any, timeout: float | None) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Whether keys, all of its shards, have a row."""

    def seen(self, keys: Any, timeout: float | None) -> tuple[Any, Any]:
        """How many seconds ago rows were asked for, and how often; NaN and 0 without a row."""

    def remove(
        self, keys: Any, wanted: list[bool], timeout: float | None, outcome: Outcome | None = None
    ) -> tuple[Any, list[Any]]:
        """Removes rows: bool[n], which there were, and what they held, for the values and each slot, if wanted."""

    def scan(
        self, shard: int, cursor: int, most: int, wanted: list[bool], timeout: float | None
    ) -> tuple[Any, list[Any], int]:
        """Up to `most` rows of a shard from `cursor` on: keys, values and slots if wanted, and the next cursor. None at
        the end."""

    def configure(self, values: dict[int, float], timeout: float, outcome: Outcome) -> None: ...

    def hyper(self, count: int, timeout: float) -> list[float]: ...

    def counters(self, timeout: float | None) -> dict[int, dict[str, int]]: ...


class Transport(Protocol):
    """Reaches some of the shards of one server.

    Attributes
    ----------
    shards : the shards that it reaches
    """

    @property
    def shards(self) -> tuple[int, ...]: ...

    def start(self, work: Work, timeout: float | None, resume: Any = None, outcome: Outcome | None = None) -> Pending:
        """Begins an operation. `timeout` is in seconds, None for the server's; `resume` comes from a WaitTimeoutError
        of this transport. `outcome` is told what is applied, by the call that does it."""

    def reach(self, decision: Decision, timeout: float) -> bool:
        """Brings its shards to a round that has closed. False when a newer decision knows more."""

    def decision(self, timeout: float) -> Decision:
        """The last round that closed. Only where shard 0 is one of its shards."""

    def skipped(self) -> None:
        """Counts a push that was not applied."""

    def configure(self, row: int, values: dict[int, float], timeout: float, outcome: Outcome) -> None:
        """Changes hyper-parameters on all of its shards."""

    def hyper(self, row: int, count: int, timeout: float) -> list[float]:
        """Hyper-parameters as one of its shards has them."""

    def counters(self, timeout: float | None) -> dict[int, dict[str, int]]:
        """Per shard what its arena counted."""

    def table(self, number: int) -> TableTransport:
        """The part of a table on its shards."""

    def close(self) -> None:
        """Gives back what idle operations hold. Handles that are still in use go on."""

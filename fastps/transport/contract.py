"""What a transport promises. tests/conformance runs one suite over all of them.

- A pull reads, and a push writes, a whole number of pushes of every shard.
- When `finish` returns it has happened; when it raises, the error says on which shards it has.
- A push happens at most once, whatever is retried inside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

Arrays = list[np.ndarray[Any, np.dtype[Any]]]


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
    """

    grads: Arrays | None = None
    outs: Arrays | None = None
    pulled: Arrays | None = None
    scale: float = 1.0
    slot: str | None = None
    streams: list[int | None] | None = None


class Pending(Protocol):
    """An operation under way."""

    def finish(self) -> dict[int, int]:
        """Waits for the end. Answers, per shard, the version that was read, or made. Raises WaitTimeoutError,
        ShardDiedError or ClosedError."""


class Membership(Protocol):
    """A worker's place among those that share clocks. Raises PutOutError when the others went on without it.

    Attributes
    ----------
    rank : its number
    """

    @property
    def rank(self) -> int: ...

    def begin(self, timeout: float) -> tuple[int, int]:
        """Waits until the worker may begin its step: (its clock, the clock of the slowest live worker)."""

    def end_step(self, timeout: float) -> None: ...

    def state(self) -> tuple[int, int]:
        """(its clock, the clock of the slowest live worker), as they were last heard of."""

    def rejoin(self, timeout: float) -> None:
        """Back among the others, at their clock."""

    def leave(self) -> None:
        """Twice is as good as once."""


class Transport(Protocol):
    """Reaches some of the shards of one server.

    Attributes
    ----------
    shards : the shards that it reaches
    """

    @property
    def shards(self) -> tuple[int, ...]: ...

    def start(self, work: Work, timeout: float | None, resume: Any = None) -> Pending:
        """Begins an operation. `timeout` is in seconds, None for the server's; `resume` comes from a WaitTimeoutError
        of this transport."""

    def skipped(self) -> None:
        """Counts a push that was not applied."""

    def configure(self, row: int, values: dict[int, float], timeout: float) -> None:
        """Changes hyper-parameters on all of its shards."""

    def hyper(self, row: int, count: int, timeout: float) -> list[float]:
        """Hyper-parameters as one of its shards has them."""

    def counters(self, timeout: float | None) -> dict[int, dict[str, int]]:
        """Per shard what its arena counted."""

    def close(self) -> None:
        """Gives back what idle operations hold. Handles that are still in use go on."""

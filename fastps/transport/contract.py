"""What a transport promises. tests/conformance runs one suite over all of them.

- A pull reads, and a push writes, a whole number of pushes of every shard.
- When `finish` returns it has happened; when it raises, the error says on which shards it has.
- A push happens at most once, whatever is retried inside.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

Arrays = list[np.ndarray[Any, np.dtype[Any]]]


class Pending(Protocol):
    """An operation under way."""

    def finish(self) -> None:
        """Waits for the end. Raises WaitTimeoutError, ShardDiedError or ClosedError."""


class Transport(Protocol):
    """Reaches some of the shards of one server.

    Attributes
    ----------
    shards : the shards that it reaches
    """

    @property
    def shards(self) -> tuple[int, ...]: ...

    def start(self, grads: Arrays | None, outs: Arrays | None, timeout: float | None, resume: Any = None) -> Pending:
        """Begins a push (`grads`), a pull (`outs`) or both.

        The arrays are one a leaf, checked, C-contiguous; they stay untouched and alive until `finish`. `timeout` is in
        seconds, None for the server's. `resume` comes from a WaitTimeoutError of this transport.
        """

    def counters(self, timeout: float | None) -> dict[int, dict[str, int]]:
        """Per shard what its arena counted."""

    def close(self) -> None:
        """Gives back what idle operations hold. Handles that are still in use go on."""

"""One operation, and what executes it: an `Endpoint` reaches the shards of one node, in this process or over a
`Carrier`.

What every endpoint guarantees; `fastps.testing.conformance` runs one suite over all of them:

- Each shard, and each row of a table, is read and written atomically: a pull sees it between two pushes.
- When `finish` returns, the operation has been applied; when it raises, the error says on which shards.
- A push is applied at most once, even when messages are sent again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fastps._core import Decision, Outcome
from fastps.arrays.types import Array, Arrays

Buffer = Any  # bytes, or what has the buffer protocol
Deposit = tuple[int, int, int, int, int]  # rank, number, generation, attempt, round: fps_deposit
ARRAYS = None  # the target of operations that are not about a table
MIXED = 2**64 - 1  # in place of an update count: nothing was read, the shards were at different rounds


@dataclass(frozen=True)
class Operation:
    """One operation on the arrays of a server, or on rows of one of its tables. Its arrays are checked and
    C-contiguous; nobody else changes or frees them before `Pending.finish` returns.

    Attributes
    ----------
    table : the number of the table, or ARRAYS
    leaves : of arrays, a partial operation: on those with these numbers, sorted; None: on all. What the lists of arrays
        have for others is ignored
    keys : of rows, uint64[n]
    grads : makes it a push: one array per leaf, or [n, dim] of rows
    outs : makes it a pull, or with `grads` a push_pull: the same shapes
    sets : what is set without the rule, for the values and each slot, or None. Of rows, an array [n, ...]; of arrays,
        for the parameters and each of `ServerSpec.slot_names` one array per leaf, where those of leaves without this
        slot are ignored
    gets : of arrays, what is read: as `sets`
    steps : of arrays, by shard the update count of the array of each run, uint64[runs]: read with `gets`, or set with
        `sets`; None: neither
    initial : of arrays, `sets` are the values with which the server begins, before anybody uses it
    pulled : the parameters that the worker had, for rules that use them
    scale : of the gradients
    create : missing rows are created
    decision : where updates are applied in rounds: the round to which the shards are brought first
    deposit : `grads` go to a worker's tray, described by the fields of fps_deposit
    """

    table: int | None = ARRAYS
    keys: Array | None = None
    grads: Arrays | None = None
    outs: Arrays | None = None
    sets: list[Any] | None = None
    gets: list[Any] | None = None
    steps: dict[int, Array] | None = None
    initial: bool = False
    pulled: Arrays | None = None
    scale: float = 1.0
    create: bool = True
    decision: Decision | None = None
    deposit: Deposit | None = None
    leaves: tuple[int, ...] | None = None

    @property
    def writes(self) -> bool:
        """Whether it changes what others read. A gradient in a worker's tray has no effect until it is given."""
        return (self.grads is not None and self.deposit is None) or self.sets is not None

    def rows(self, places: Array) -> Operation:
        """The part of an operation on rows for the keys at these positions, with `outs` of its own."""

        def some(arrays: list[Any] | None) -> list[Any] | None:
            if arrays is None:
                return None
            return [None if array is None else np.ascontiguousarray(array[places]) for array in arrays]

        assert self.keys is not None
        outs = self.outs and [np.empty((len(places), *out.shape[1:]), out.dtype) for out in self.outs]
        return Operation(
            self.table, self.keys[places], some(self.grads), outs, some(self.sets), scale=self.scale, create=self.create
        )


class Pending(Protocol):
    """An operation under way."""

    def finish(self) -> dict[int, int]:
        """Waits until it has ended. Returns, per shard, the update count (in rounds, the number of the round) that was
        read or made, or MIXED.

        Raises WaitTimeoutError, TableFullError, ShardDiedError or ClosedError; SessionsExhaustedError and
        ArenaMemoryError, of another node, and RayRequiredError, when this process is not connected any more. A push
        whose error has `resume` can be started again from that; otherwise `outcome` says what was applied."""


class Endpoint(Protocol):
    """Reaches the shards of one node. Threads: any number.

    Attributes
    ----------
    shards : those that it reaches
    """

    @property
    def shards(self) -> tuple[int, ...]: ...

    def start(
        self, operation: Operation, timeout: float, resume: Any = None, outcome: Outcome | None = None
    ) -> Pending:
        """Begins an operation that ends within `timeout` seconds. `resume` comes from an error of this endpoint for the
        same operation. The call that applies the operation records that in `outcome`. Raises what `finish` does, on
        this node: then it has ended."""

    def ask(self, verb: str, *arguments: Any, timeout: float, outcome: Outcome | None = None) -> Any:
        """Calls a method of `fastps.transport.shm.Verbs` or, over a carrier, of the gateway. `outcome`: for verbs that
        change something, records what was applied."""

    def tell(self, verb: str, *arguments: Any) -> None:
        """The same without a reply or a guarantee that it arrives."""

    def close(self) -> None:
        """Frees what idle operations hold. Handles that are still in use keep working."""


class Call(Protocol):
    """Messages under way."""

    def replies(self, timeout: float) -> list[Buffer]:
        """One per message. Raises WaitTimeoutError when they are not there after `timeout` seconds; UnavailableError
        when the connection was lost, so that it is unknown which messages have arrived; ShardDiedError or ClosedError
        when the process at the other end is gone."""


@dataclass(frozen=True)
class Limits:
    """The sizes, in bytes, in which a carrier transfers payloads.

    Attributes
    ----------
    joined : payloads of at most this size are sent in one buffer with the header
    part : larger ones are sent in parts of this size,
    parts : at most this many parts per message; None: any number
    eager : payloads larger than this are sent in one part
    reply : replies are fetched in pieces of this size;
    inline : those larger than this in one piece
    """

    joined: int
    part: int
    parts: int | None
    eager: int
    reply: int
    inline: int


class Carrier(Protocol):
    """Sends bytes to one process, where a gateway serves them, and returns its replies. It knows nothing of
    parameters. A new one is a file here, a row in `fastps.transport.carriers`, and a subclass of the conformance suite.

    Attributes
    ----------
    limits : the sizes in which it transfers payloads
    """

    @property
    def limits(self) -> Limits: ...

    def send(self, messages: Sequence[Sequence[Buffer]]) -> Call:
        """Sends messages, each a header and parts of a payload; those of one process are served in order. Raises
        RayRequiredError or ShardDiedError when there is no process to send them to."""


class Membership(Protocol):
    """A worker's membership among the workers that share clocks. Raises WorkerExpelledError once it is expelled.

    Attributes
    ----------
    rank : its number
    generation : how many workers have had this rank, this one included
    """

    @property
    def rank(self) -> int: ...

    @property
    def generation(self) -> int: ...

    def begin(self, timeout: float) -> tuple[int, int]:
        """Waits until the worker may begin its step: (its clock, the clock of the slowest live worker)."""

    def end_step(self, clock: int, timeout: float) -> None:
        """Ends the step that the worker began at this clock. Idempotent."""

    def give(self, round: int, weight: int, timeout: float) -> bool:
        """Gives what is in the worker's trays, `weight` gradients, to a round; False when that had closed already.
        Idempotent."""

    def catch_up(self, round: int, timeout: float) -> None:
        """The worker has read the parameters after `round` rounds: its next gradient is for the next round."""

    def decision(self) -> Decision:
        """The last round known to have closed."""

    def state(self) -> tuple[int, int]:
        """The last known (clock of this worker, clock of the slowest live worker)."""

    def rejoin(self, timeout: float) -> None:
        """Joins again, at the clock of the others."""

    def leave(self) -> None:
        """Idempotent."""

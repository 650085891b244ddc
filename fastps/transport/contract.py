"""One operation, and what carries it: an `Endpoint` reaches the shards of one node, in this process or over a
`Carrier`.

What every endpoint promises; `fastps.testing.conformance` runs one suite over all of them:

- A pull reads, and a push writes, a whole number of pushes of every shard, and of every row of a table.
- When `finish` returns it has happened; when it raises, the error says on which shards it has.
- A push happens at most once, whatever is sent again inside.
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
MIXED = 2**64 - 1  # in the place of a version: nothing was read, the shards were at different rounds


@dataclass(frozen=True)
class Operation:
    """One operation on the arrays of a server, or on rows of one of its tables. Its arrays are checked, C-contiguous;
    they stay untouched and alive until `Pending.finish`.

    Attributes
    ----------
    table : the number of the table, or ARRAYS
    keys : of rows, uint64[n]
    grads : makes it a push: an array a leaf, or [n, dim] of rows
    outs : makes it a pull, or with `grads` a push_pull: the same
    sets : what is set without the rule: of a slot an array a leaf; of rows for the values and each slot an array
        [n, ...] or None. Without `slot`, the first values of all parameters, before anybody uses them
    slot : of arrays, what is read or set in place of the parameters. Arrays of leaves without it are not looked at
    pulled : the parameters that the worker had, for rules that use them
    scale : of the gradients
    create : rows that are missing are created
    decision : where updates are applied in rounds: the round that is to be there first
    deposit : `grads` go to the tray of a worker, by the fields of fps_deposit
    """

    table: int | None = ARRAYS
    keys: Array | None = None
    grads: Arrays | None = None
    outs: Arrays | None = None
    sets: list[Any] | None = None
    slot: str | None = None
    pulled: Arrays | None = None
    scale: float = 1.0
    create: bool = True
    decision: Decision | None = None
    deposit: Deposit | None = None

    @property
    def writes(self) -> bool:
        """Whether it changes what others read. A gradient in a worker's tray counts for nothing until it is given."""
        return (self.grads is not None and self.deposit is None) or self.sets is not None

    def rows(self, places: Array) -> Operation:
        """The part of an operation on rows that is about the keys at some places, with `outs` of its own."""

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
        """Waits for the end. Answers, per shard, the version that was read, or made, or MIXED. Raises WaitTimeoutError,
        TableFullError, ShardDiedError or ClosedError."""


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
        same operation. `outcome` is told what is applied, by the call that does it."""

    def ask(self, verb: str, *arguments: Any, timeout: float, outcome: Outcome | None = None) -> Any:
        """Anything else, by the methods of `fastps.transport.shm.Verbs` and, over a carrier, of the gateway. `outcome`:
        the verb changes something, and it is told of that."""

    def tell(self, verb: str, *arguments: Any) -> None:
        """The same without an answer; it need not arrive."""

    def close(self) -> None:
        """Gives back what idle operations hold. Handles that are still in use go on."""


class Call(Protocol):
    """Messages on their way."""

    def answers(self, timeout: float) -> list[Buffer]:
        """One a message. Raises WaitTimeoutError when they are not there after `timeout` seconds; UnavailableError when
        the connection was lost, so that it is not known which of the messages have arrived; ShardDiedError or
        ClosedError when the process at the other end is gone."""


@dataclass(frozen=True)
class Limits:
    """How a carrier wants payloads, in bytes.

    Attributes
    ----------
    joined : payloads of up to so many travel in one buffer with the header
    part : above that they come in parts of so many,
    parts : so many of them in a message; None: any number
    eager : payloads of more than so many come in one part all the same
    answer : answers are fetched in pieces of so many,
    inline : but for those of more than so many, which come in one
    """

    joined: int
    part: int
    parts: int | None
    eager: int
    answer: int
    inline: int


class Carrier(Protocol):
    """Takes bytes to one process, where a gateway serves them, and brings bytes back. It knows nothing of parameters.
    A new one is a file here, a row in `fastps.transport.carriers`, and a subclass of the conformance suite.

    Attributes
    ----------
    limits : how it wants payloads
    """

    @property
    def limits(self) -> Limits: ...

    def send(self, messages: Sequence[Sequence[Buffer]]) -> Call:
        """Sends messages, each a header and parts of a payload; those of one process are served in their order. Raises
        RayRequiredError or ShardDiedError when there is nobody to send them to."""


class Membership(Protocol):
    """A worker's place among those that share clocks. Raises WorkerExpelledError when the others went on without it.

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
        """Ends the step that the worker began at this clock. Idempotent."""

    def give(self, round: int, weight: int, timeout: float) -> bool:
        """Gives what is in the worker's trays, `weight` gradients, to a round; False when that had closed already.
        Idempotent."""

    def catch_up(self, round: int, timeout: float) -> None:
        """The worker has read what `round` rounds have made: its next gradient is for the one behind them."""

    def decision(self) -> Decision:
        """The last round that closed, as it was last heard of."""

    def state(self) -> tuple[int, int]:
        """(its clock, the clock of the slowest live worker), as they were last heard of."""

    def rejoin(self, timeout: float) -> None:
        """Back among the others, at their clock."""

    def leave(self) -> None:
        """Idempotent."""

"""Shards on another node: a carrier takes the operation to one of the node's processes, whose gateway executes it for
all shards of the node.

Called by sessions, from any thread. An operation has a client's random number and a sequence number, so that a push
that is sent again after a lost connection is applied once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from fastps._core import Outcome
from fastps.arrays.types import HALVES
from fastps.deadline import deadline_after, left_until
from fastps.errors import TableFullError, WaitTimeoutError
from fastps.spec.server import ServerSpec
from fastps.transport import message, values
from fastps.transport.contract import Call, Carrier, Operation
from fastps.transport.layout import Layouts
from fastps.transport.once import Numbers, Sending


class RemoteEndpoint:
    """Reaches the shards of one node over a carrier. See contract.Endpoint."""

    def __init__(self, spec: ServerSpec, shards: tuple[int, ...], carrier: Carrier) -> None:
        self.shards, self.spec, self.carrier = shards, spec, carrier
        self.layouts, self.numbers, self.what = Layouts(spec, shards), Numbers(), spec.labels(shards)

    def start(self, operation: Operation, timeout: float, resume: Any = None, outcome: Outcome | None = None) -> Sent:
        return Sent(self, operation, timeout, resume, outcome if operation.writes else None)

    def ask(self, verb: str, *arguments: Any, timeout: float, outcome: Outcome | None = None) -> Any:
        return ask(self.carrier, verb, arguments, timeout, f"{verb} of {self.what}", self.shards, outcome)

    def tell(self, verb: str, *arguments: Any) -> None:
        question(self.carrier, verb, arguments, 0.0)

    def close(self) -> None:
        pass


def question(
    carrier: Carrier, verb: str, arguments: tuple[Any, ...], timeout: float, client: int | None = None
) -> Call:
    """Sends a verb and its arguments. `client` identifies the question where it is sent again."""
    payload = np.frombuffer(values.pack((verb, list(arguments))), np.uint8)
    client = Numbers().take()[0] if client is None else client
    return carrier.send(message.pieces(message.Header(message.QUESTION, client, 1, timeout), payload, carrier.limits))


def ask(
    carrier: Carrier,
    verb: str,
    arguments: tuple[Any, ...],
    timeout: float,
    what: str,
    shards: tuple[int, ...] = (),
    outcome: Outcome | None = None,
) -> Any:
    """Returns what the verb returned. One whose reply was lost is sent again: it is idempotent, or the receiver
    remembers its reply."""
    deadline, (client, _) = deadline_after(timeout), Numbers().take()

    def send() -> Call:
        return question(carrier, verb, arguments, left_until(deadline), client)

    sending = Sending(send, deadline, 0, shards, outcome)
    return values.unpack(sending.replies(send, lambda text: WaitTimeoutError(f"{what}: {text}"))[-1])


class Sent:
    """An operation under way."""

    def __init__(
        self, endpoint: RemoteEndpoint, operation: Operation, timeout: float, resume: Any, outcome: Outcome | None
    ) -> None:
        self._endpoint, self._operation, self._deadline = endpoint, operation, deadline_after(timeout)
        limits = endpoint.carrier.limits
        self._layout = endpoint.layouts.of(operation.leaves)
        self._payload = message.payload_of(operation, self._layout)
        self._client: int
        self._number: int
        self._client, self._number = endpoint.numbers.take() if resume is None else resume
        self._head = message.reply_head(self._layout)
        nbytes, self._outs = 0, message.read(operation)
        self._half: str | None = None
        if operation.outs is not None and operation.table is not None:
            nbytes = operation.outs[0].nbytes
        else:
            self._half = self._layout.half_of(*self._outs)
            nbytes = self._layout.nbytes(self._half) * len(self._outs)
            nbytes += 8 * len(self._layout.places) if operation.gets is not None and operation.steps is not None else 0
            if self._half is None:  # outputs of several types are converted here
                self._outs = [
                    [np.empty(out.shape, np.float32) if out.dtype.name in HALVES else out for out in outs]
                    for outs in self._outs
                ]
        self._cuts = message.cuts(self._head + nbytes, limits)
        self._sending = Sending(self._send, self._deadline, len(self._cuts) - 1, endpoint.shards, outcome)

    def _send(self) -> Call:
        """Sends all messages at once: those of one process are served in order."""
        carrier, (first, *rest) = self._endpoint.carrier, self._cuts
        header = message.header_of(
            self._operation, self._endpoint.spec, self._layout, self._client, self._number, left_until(self._deadline)
        )
        messages = message.pieces(replace(header, stop=first[1]), self._payload, carrier.limits)
        further = replace(header, kind=message.REST, decision=b"", flags=0, n=0, leaves=None)
        return carrier.send([*messages, *([replace(further, start=a, stop=b).pack()] for a, b in rest)])

    def finish(self) -> dict[int, int]:
        outs = self._operation.outs
        try:
            replies = self._sending.replies(self._send, self._timed_out)[-len(self._cuts) :]
        except TableFullError as error:
            told = getattr(error, "fastps_outcome", None)
            if isinstance(told, Outcome) and (told.applied or told.partial):  # the push is resumed under its number
                error.resume = (self._client, self._number)
            else:
                self._endpoint.numbers.give_back(self._client, self._number)
            raise
        self._endpoint.numbers.give_back(self._client, self._number)
        first, *rest = replies
        head = self._head - len(message.DONE)
        if outs is not None and self._operation.table is not None:
            rows, at = outs[0].reshape(-1).view(np.uint8), 0
            for piece in (first[head:], *rest):
                rows[at : at + piece.nbytes] = np.frombuffer(piece, np.uint8)
                at += piece.nbytes
        else:
            starts = [start - self._head for start, _ in self._cuts[1:]]
            self._take_arrays([(0, first[head:]), *zip(starts, rest, strict=True)])
        return message.versions_of(first, self._layout)

    def _take_arrays(self, pieces: list[tuple[int, Any]]) -> None:
        """Takes what was read from the pieces of the reply, given with where they begin: the streams one after the
        other, and the update counts."""
        each, layout, steps = self._layout.nbytes(self._half), self._layout, self._operation.steps
        for k, (read, wanted) in enumerate(zip(self._outs, message.read(self._operation), strict=True)):
            for start, piece in pieces:
                layout.scatter(start - k * each, piece, read, self._half)
            layout.assign(wanted, read)
        if steps is not None and self._operation.gets is not None:
            data, at = np.empty(8 * len(layout.places), np.uint8), len(self._outs) * each
            for start, piece in pieces:
                part = np.frombuffer(piece, np.uint8)
                low, high = max(start, at), min(start + part.nbytes, at + data.nbytes)
                if low < high:
                    data[low - at : high - at] = part[low - start : high - start]
            for shard, counts in layout.steps(data).items():
                steps[shard][:] = counts

    def _timed_out(self, text: str) -> WaitTimeoutError:
        """Whether the push was or will be applied is not known; resuming it sends it again under the same number."""
        operation, endpoint = self._operation, self._endpoint
        reads = operation.grads is None and operation.sets is None
        what = f"{'pull from' if reads else 'push to'} {endpoint.what}"
        if operation.table is not None:
            what = f"{what}, table `{endpoint.spec.tables[operation.table].name}`"
        if not operation.writes:
            return WaitTimeoutError(f"{what}: {text}")
        given = "gradients" if operation.table is None else "keys and gradients"
        return WaitTimeoutError(
            f"{what}: {text}; the push may be applied later: push the same {given} with resume=error.resume to be sure",
            partial=endpoint.shards,
            resume=(self._client, self._number),
        )

"""The receiver's half of operations between nodes, which are executed once however often they are sent: what has
arrived, and what was applied. The other half: `fastps.transport.once`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from fastps.arrays.types import Array
from fastps.errors import FastPSError, OptionError, TableFullError, UnavailableError
from fastps.transport.contract import Buffer
from fastps.transport.message import Header, Inbox

T = TypeVar("T")
# Clients whose last push is remembered, at a few bytes each; incomplete payloads, and replies, of at most 12 MiB each;
# pushes that stopped in the middle. Older ones are dropped.
CLIENTS, PAYLOADS, STALLED = 100_000, 128, 64


class Recent(OrderedDict[int, T], Generic[T]):
    """Values by client. The oldest are dropped when there are more than `most`."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def put(self, client: int, value: T) -> list[tuple[int, T]]:
        """Returns what was dropped."""
        self[client] = value
        self.move_to_end(client)
        return [self.popitem(last=False) for _ in range(len(self) - self._most)]


class Once:
    """What a shard's process remembers of operations from other nodes. They are executed one at a time.

    Parameters
    ----------
    label : names the shard in errors
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._inboxes: Recent[tuple[tuple[int, int], Inbox]] = Recent(PAYLOADS)  # and (number, piece) to come
        self._applied: Recent[tuple[int, tuple[int, ...]]] = Recent(CLIENTS)  # (number, versions) by client
        self._stalled: Recent[tuple[int, Any]] = Recent(STALLED)
        self._lost: Recent[int] = Recent(CLIENTS)  # numbers of pushes that cannot be resumed
        self._replies: Recent[tuple[int, bytes]] = Recent(PAYLOADS)  # (number, reply) to a client's last question

    def payload(self, header: Header, buffer: Buffer, parts: Sequence[Buffer], nbytes: int) -> Array | None:
        """A payload of `nbytes`; None while pieces of it are missing. Raises ValueError, before anything is kept, when
        the header says another length."""
        if header.nbytes != nbytes:
            raise ValueError(f"a payload of {header.nbytes} bytes where {nbytes} are expected")
        expected, inbox = self._inboxes.pop(header.client, ((0, 0), None))
        if header.piece == 0:
            inbox = Inbox(nbytes)
        elif inbox is None or expected != (header.number, header.piece):
            raise UnavailableError(f"{self._label}: a part of a push is missing; send it again")
        inbox.add(memoryview(buffer)[header.size :], parts)
        if header.piece + 1 < header.pieces:
            self._inboxes.put(header.client, ((header.number, header.piece + 1), inbox))
            return None
        return inbox.payload()

    def reply(self, header: Header, make: Callable[[], bytes]) -> bytes:
        """The reply to a question that changes something, made once: sent again, it would find the change made."""
        number, reply = self._replies.get(header.client, (None, b""))
        if number != header.number:
            reply = make()
            self._replies.put(header.client, (header.number, reply))
        return reply

    def applied(self, header: Header) -> tuple[int, ...] | None:
        """The update counts that this push made when it was sent before, or None."""
        number, versions = self._applied.get(header.client, (0, ()))
        return versions if header.number <= number else None

    def run(self, header: Header, apply: Callable[[Any], tuple[int, ...]]) -> tuple[int, ...]:
        """Applies a push and returns its update counts. `apply` gets what an earlier attempt left to resume, or
        None."""
        client = header.client
        number, token = self._stalled.pop(client, (0, None))
        if self._lost.get(client, 0) == header.number:
            raise OptionError(
                f"{self._label}: resume= is of a push that was given up, after an error or since more than {STALLED} "
                f"others had stopped in the middle; some of it may be applied, and nothing more was"
            )
        resumes = token is not None and number == header.number
        try:
            versions = apply(token if resumes else None)
        except BaseException as error:
            left = getattr(error, "resume", None)
            if left is None and resumes and isinstance(error, FastPSError) and not isinstance(error, TableFullError):
                left = token  # it has not begun; a token that was used is refused next time
            if left is not None:
                for other, (lost, _) in self._stalled.put(client, (header.number, left)):
                    self._lost.put(other, lost)
            elif resumes and not isinstance(error, TableFullError):  # which says that nothing was applied
                self._lost.put(client, header.number)
            raise
        self._applied.put(client, (header.number, versions))
        return versions

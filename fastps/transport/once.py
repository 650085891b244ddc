"""The sender's half of pushes between nodes, which are applied once however often they are sent: sequence numbers, and
messages that are sent again when a connection is lost. The other half: `fastps.shard.once`."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from fastps._core import Outcome
from fastps.deadline import left_until
from fastps.errors import FastPSError, UnavailableError, WaitTimeoutError
from fastps.transport.contract import Buffer, Call
from fastps.transport.message import opened

RESEND_SECONDS = 0.1


class Numbers:
    """Sequence numbers for concurrent operations: each concurrent sender is a client of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[tuple[int, int]] = []

    def take(self) -> tuple[int, int]:
        """(client, number), a pair that was not used before."""
        with self._lock:
            client, last = self._idle.pop() if self._idle else (int.from_bytes(os.urandom(7), "big") + 1, 0)
        return client, last + 1

    def give_back(self, client: int, number: int) -> None:
        with self._lock:
            self._idle.append((client, number))


class Sending:
    """Messages under way that carry one operation or question. Their sender keeps this object, which therefore keeps
    nothing of the sender: it would live, with its gradients, until the next garbage collection.

    Parameters
    ----------
    send : sends the messages
    deadline : of the whole
    bare : how many of the last replies are pieces without a status word; an empty one was dropped
    shards, outcome : which shards it changes, and where that is recorded; None: it changes nothing
    """

    def __init__(
        self,
        send: Callable[[], Call],
        deadline: float,
        bare: int,
        shards: tuple[int, ...],
        outcome: Outcome | None,
    ) -> None:
        self._deadline, self._bare, self._shards, self._outcome = deadline, bare, shards, outcome
        if outcome is not None:
            outcome.begin(shards)
        try:
            self._call = send()
        except FastPSError:  # nothing was sent
            if outcome is not None:
                outcome.stop(shards)
            raise

    def replies(self, send: Callable[[], Call], timed_out: Callable[[str], WaitTimeoutError]) -> list[memoryview]:
        """The replies without their status words. When a connection is lost, it is unknown which messages have arrived:
        all are sent again. `timed_out` makes the error for a reply that is late, from a text."""
        while True:
            try:
                replies = self._opened(self._call.replies(left_until(self._deadline)))
                if self._outcome is not None:
                    self._outcome.end(self._shards)
                return replies
            except UnavailableError as error:
                if left_until(self._deadline) == 0:
                    raise timed_out(str(error)) from error
                time.sleep(RESEND_SECONDS)
                self._call = send()
            except WaitTimeoutError as error:
                self._learn(error)
                raise timed_out(str(error)) from None
            except FastPSError as error:
                self._learn(error)
                raise

    def _opened(self, replies: list[Buffer]) -> list[memoryview]:
        last = len(replies) - self._bare
        pieces = [memoryview(reply).cast("B") for reply in replies[last:]]
        bodies = [opened(reply) for reply in replies[:last]]
        if not all(piece.nbytes for piece in pieces):
            raise UnavailableError("the rest of a reply was dropped")
        return bodies + pieces

    def _learn(self, error: FastPSError) -> None:
        if self._outcome is not None:
            self._outcome.learn(error, self._shards)

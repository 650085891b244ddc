"""Pushes between nodes, each applied once however often it is sent: the numbers that a process gives them, calls that
are sent again when a connection is lost, and, in a shard's process, what has arrived."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from fastps.cluster import ray as cluster
from fastps.deadline import left_until
from fastps.errors import FastPSError, OptionError, TableFullError, UnavailableError, WaitTimeoutError
from fastps.transport import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastps._core import Outcome

T = TypeVar("T")
RESEND_SECONDS = 0.1
# Workers whose last push is remembered, at a few bytes each; payloads and answers on their way, of at most 12 MiB each;
# pushes that stopped half-way. What is older gives way.
WORKERS, PAYLOADS, STALLED = 100_000, 128, 64


class Numbers:
    """Sequence numbers for concurrent pushes: each thread that pushes at a time has a worker number of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[tuple[int, int]] = []

    def take(self) -> tuple[int, int]:
        """(worker, sequence number), both new to the shard."""
        with self._lock:
            worker, last = self._idle.pop() if self._idle else (int.from_bytes(os.urandom(7), "big") + 1, 0)
        return worker, last + 1

    def give_back(self, worker: int, seq: int) -> None:
        with self._lock:
            self._idle.append((worker, seq))


class Sending:
    """Calls under way that carry one operation.

    Parameters
    ----------
    send : makes the calls, any number of times
    deadline : of the whole
    what : for messages
    timed_out : makes the error when there is no answer in time, from a text
    shards, outcome : where it changes something, and what is told of that; None: it changes nothing
    """

    def __init__(
        self,
        send: Callable[[], list[Any]],
        deadline: float,
        what: str,
        timed_out: Callable[[str], WaitTimeoutError],
        shards: tuple[int, ...],
        outcome: Outcome | None,
    ) -> None:
        self._send, self._deadline, self._what, self._timed_out = send, deadline, what, timed_out
        self._shards, self._outcome = shards, outcome
        if outcome is not None:
            outcome.begin(shards)
        try:
            self._refs = send()
        except FastPSError:  # there is nobody to send it to
            if outcome is not None:
                outcome.stop(shards)
            raise

    def answers(self) -> list[Any]:
        """One a call. Whether calls have arrived is not known when a connection is lost: they are made again."""
        while True:
            try:
                answers: list[Any] = cluster.get(self._refs, left_until(self._deadline), self._what)
                if self._outcome is not None:
                    self._outcome.end(self._shards)
                return answers
            except UnavailableError as error:
                if left_until(self._deadline) == 0:
                    raise self._timed_out(str(error)) from error
                time.sleep(RESEND_SECONDS)
                self._refs = self._send()
            except WaitTimeoutError as error:
                self._learn(error)
                raise self._timed_out(str(error)) from None
            except FastPSError as error:
                self._learn(error)
                raise

    def _learn(self, error: FastPSError) -> None:
        if self._outcome is not None:
            self._outcome.learn(error, self._shards)


class Recent(OrderedDict[int, T], Generic[T]):
    """By worker. What was put there first gives way when there are more than `most`."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def put(self, worker: int, value: T) -> list[tuple[int, T]]:
        """Answers what gave way."""
        self[worker] = value
        self.move_to_end(worker)
        return [self.popitem(last=False) for _ in range(len(self) - self._most)]


class Numbered(Protocol):
    """The header of a call."""

    @property
    def worker(self) -> int: ...

    @property
    def seq(self) -> int: ...


class Once:
    """What a shard's process knows of pushes from other nodes. One at a time is at work.

    Parameters
    ----------
    label : of the shard, for messages
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._inboxes: Recent[tuple[tuple[int, int], wire.Inbox]] = Recent(PAYLOADS)  # and (seq, message) to come
        self._applied: Recent[tuple[int, bytes]] = Recent(WORKERS)  # (seq, versions) by worker
        self._stalled: Recent[tuple[int, Any]] = Recent(STALLED)
        self._lost: Recent[int] = Recent(WORKERS)  # seq of pushes that could not go on

    def payload(self, header: Any, head: bytes, parts: Sequence[Any], nbytes: int) -> Any:
        """Of nbytes; None when messages of it are still to come."""
        expected, inbox = self._inboxes.pop(header.worker, ((0, 0), None))
        if header.message == 0:
            inbox = wire.Inbox(nbytes)
        elif inbox is None or expected != (header.seq, header.message):
            raise UnavailableError(f"{self._label}: a part of a push is missing; send it again")
        inbox.add(header, head, parts)
        if header.message + 1 < header.messages:
            self._inboxes.put(header.worker, ((header.seq, header.message + 1), inbox))
            return None
        return inbox.payload()

    def applied(self, header: Numbered) -> bytes | None:
        """The versions that a push has made already: it was sent again."""
        seq, versions = self._applied.get(header.worker, (0, b""))
        return versions if header.seq <= seq else None

    def run(self, header: Numbered, apply: Callable[[Any], tuple[Any, bytes]]) -> tuple[Any, bytes]:
        """Applies a push: an answer, and the versions. `apply` is given what an earlier attempt has left to be resumed,
        or None."""
        worker = header.worker
        seq, token = self._stalled.pop(worker, (0, None))
        if self._lost.get(worker, 0) == header.seq:
            raise OptionError(
                f"{self._label}: resume= is of a push that was given up, after an error or since more than {STALLED} "
                f"others had stopped half-way; some of it may be applied, and nothing more was"
            )
        resumes = token is not None and seq == header.seq
        try:
            answer, versions = apply(token if resumes else None)
        except BaseException as error:
            left = getattr(error, "resume", None)
            if left is not None:
                for other, (lost, _) in self._stalled.put(worker, (header.seq, left)):
                    self._lost.put(other, lost)
            elif resumes and not isinstance(error, TableFullError):  # which says that nothing was applied
                self._lost.put(worker, header.seq)
            raise
        self._applied.put(worker, (header.seq, versions))
        return answer, versions

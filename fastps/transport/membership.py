"""A worker's place among the others, from another node than that of shard 0: the coordinator there speaks for it."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable
from typing import Any

from fastps._core import Decision
from fastps.deadline import deadline_after, left_until
from fastps.errors import FastPSError, ShardDiedError, UnavailableError
from fastps.spec.server import ServerSpec
from fastps.transport.contract import Carrier
from fastps.transport.remote import ask, question

GRACE_SECONDS = 1.0  # the coordinator keeps to the timeout; its answer takes a moment


class RemoteMembership:
    """See contract.Membership.

    A thread sends a word three times a lease, so that a worker that computes for long counts as alive. What is known of
    the others' progress can only have grown: no call is made for a step that it allows.

    Parameters
    ----------
    spec : the server
    rank : the one that is wanted, or None
    timeout : in seconds
    find : answers a carrier to the coordinator, within a timeout; to a new one when the process of the one that it
        answered last has died
    """

    def __init__(
        self, spec: ServerSpec, rank: int | None, timeout: float, find: Callable[[float, bool], Carrier]
    ) -> None:
        self._spec, self._bound, self._find = spec, spec.consistency.bound, find
        deadline = deadline_after(timeout)
        self._what = f"worker on {spec.label(0)}"
        self._coordinator, self._known = find(left_until(deadline), False), True
        self._stop = threading.Event()
        self._join(rank, left_until(deadline))
        # The thread knows the membership by a weak reference: one that is dropped ends with its lease at the latest.
        arguments = (weakref.ref(self), self._stop, spec.consistency.lease / 3)
        threading.Thread(target=_stay, args=arguments, name="fastps lease", daemon=True).start()

    def _join(self, rank: int | None, timeout: float) -> None:
        answer = self._ask("join", rank, self._spec.consistency.lease, timeout)
        self._token, self.rank, self.generation, reached = answer
        self._hear(reached)

    def _hear(self, reached: tuple[int, int, Decision]) -> None:
        self._clock, self._progress, self._decision = reached

    def _ask(self, verb: str, *arguments: Any) -> Any:
        """What the coordinator answers; the last argument is the timeout. Where its process has died, another one takes
        its place, learns of this worker and is asked: verbs are idempotent."""
        deadline = deadline_after(arguments[-1] + GRACE_SECONDS)
        while True:
            try:
                if not self._known:
                    place = (self._token, self.rank, self.generation, self._spec.consistency.lease)
                    self._call("adopt", place, deadline)
                    self._known = True
                return self._call(verb, arguments, deadline)
            except UnavailableError:
                raise
            except ShardDiedError:
                self._coordinator = self._find(left_until(deadline), True)
                self._known = verb == "join"

    def _call(self, verb: str, arguments: tuple[Any, ...], deadline: float) -> Any:
        return ask(self._coordinator, verb, arguments, left_until(deadline), self._what)

    def renew(self) -> None:
        question(self._coordinator, "renew", (self._token,), 0.0)

    def begin(self, timeout: float) -> tuple[int, int]:
        if self._bound is not None and self._clock - self._bound > self._progress:
            self._hear(self._ask("begin", self._token, timeout))
        return self._clock, self._progress

    def end_step(self, clock: int, timeout: float) -> None:
        self._hear(self._ask("end_step", self._token, clock, timeout))

    def give(self, round: int, weight: int, timeout: float) -> bool:
        counted, reached = self._ask("give", self._token, round, weight, timeout)
        self._hear(reached)
        return bool(counted)

    def catch_up(self, round: int, timeout: float) -> None:
        self._hear(self._ask("catch_up", self._token, round, timeout))

    def decision(self) -> Decision:
        return self._decision

    def state(self) -> tuple[int, int]:
        return self._clock, self._progress

    def rejoin(self, timeout: float) -> None:
        self.generation, reached = self._ask("rejoin", self._token, timeout)
        self._hear(reached)

    def leave(self) -> None:
        if not self._stop.is_set():
            self._stop.set()
            with contextlib.suppress(FastPSError):  # what has gone with Ray has left
                question(self._coordinator, "leave", (self._token,), 0.0)

    def __del__(self) -> None:
        stop = getattr(self, "_stop", None)
        if stop is not None:
            stop.set()


def _stay(membership: weakref.ref[RemoteMembership], stop: threading.Event, interval: float) -> None:
    while not stop.wait(interval):
        here = membership()
        if here is None:
            return
        try:
            here.renew()
        except FastPSError:  # Ray has ended, and the server with it
            return
        del here

"""The membership of a worker on another node than that of shard 0: the coordinator there represents it."""

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

GRACE_SECONDS = 1.0  # the coordinator keeps to the timeout; its reply takes a moment


class RemoteMembership:
    """See contract.Membership.

    A thread renews the lease three times per lease, so that a worker in a long computation counts as alive. Progress
    only grows: for a step that the last known progress allows, no call is made.

    Parameters
    ----------
    spec : the server
    rank : the requested one, or None
    timeout : in seconds
    find : within a timeout, returns a carrier to the coordinator; with True, the last one's process has died, and the
        carrier is to a new one
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
        # The thread has a weak reference: a membership that is dropped ends at the latest with its lease.
        arguments = (weakref.ref(self), self._stop, spec.consistency.lease / 3)
        threading.Thread(target=_stay, args=arguments, name="fastps lease", daemon=True).start()

    def _join(self, rank: int | None, timeout: float) -> None:
        reply = self._ask("join", rank, self._spec.consistency.lease, timeout)
        self._token, self.rank, self.generation, reached = reply
        self._hear(reached)

    def _hear(self, reached: tuple[int, int, Decision]) -> None:
        self._clock, self._progress, self._decision = reached

    def _ask(self, verb: str, *arguments: Any) -> Any:
        """Returns the coordinator's reply; the last argument is the timeout. If its process has died, a new one is
        started, adopts this worker and is asked again: verbs are idempotent."""
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
            with contextlib.suppress(FastPSError):  # Ray has ended, and the server with it
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

"""The membership of a worker on another node than that of shard 0: the coordinator there represents it."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

from fastps._core import Decision
from fastps.deadline import deadline_after, left_until
from fastps.errors import (
    ClosedError,
    FastPSError,
    RayRequiredError,
    ShardDiedError,
    UnavailableError,
    WaitTimeoutError,
)
from fastps.spec.server import ServerSpec
from fastps.transport.contract import Carrier
from fastps.transport.remote import ask, question

GRACE_SECONDS = 1.0  # the coordinator keeps to the timeout; its reply takes a moment


class RemoteMembership:
    """See contract.Membership.

    A thread renews the lease three times per lease, so that a worker in a long computation counts as alive, and finds
    the new coordinator if the process of the last one has died. Progress only grows: for a step that the last known
    progress allows, no call is made.

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
        self._finding = threading.Lock()
        self._coordinator = find(left_until(deadline), False)
        self._known_to: Carrier | None = None  # the coordinator that knows this worker
        self._stop = threading.Event()
        self._join(rank, left_until(deadline))
        # The thread has a weak reference: a membership that is dropped ends at the latest with its lease.
        arguments = (weakref.ref(self), self._stop, spec.consistency.lease / 3)
        threading.Thread(target=_stay, args=arguments, name="fastps lease", daemon=True).start()

    def _join(self, rank: int | None, timeout: float) -> None:
        self._token = int.from_bytes(os.urandom(7), "big")  # a join that is sent again is known by it
        arguments = (self._token, rank, self._spec.consistency.lease, timeout)
        self.rank, self.generation, reached = self._ask("join", arguments, timeout + GRACE_SECONDS)
        self._hear(reached)

    def _hear(self, reached: tuple[int, int, Decision]) -> None:
        self._clock, self._progress, self._decision = reached

    def _ask(self, verb: str, arguments: tuple[Any, ...], timeout: float) -> Any:
        """Returns the coordinator's reply. If its process has died, a new one is started, adopts this worker and is
        asked again: verbs are idempotent. Called by the worker, and by the thread that renews the lease."""
        deadline = deadline_after(timeout)
        while True:
            coordinator = self._coordinator
            try:
                if verb != "join" and self._known_to is not coordinator:
                    place = (self._token, self.rank, self.generation, self._spec.consistency.lease)
                    self._call(coordinator, "adopt", place, deadline)
                reply = self._call(coordinator, verb, arguments, deadline)
                self._known_to = coordinator
                return reply
            except UnavailableError:
                raise
            except ShardDiedError:
                self._replace(coordinator, deadline)

    def _ask_within(self, verb: str, *arguments: Any) -> Any:
        """The same for a verb whose last argument is the timeout."""
        return self._ask(verb, (self._token, *arguments), arguments[-1] + GRACE_SECONDS)

    def _call(self, coordinator: Carrier, verb: str, arguments: tuple[Any, ...], deadline: float) -> Any:
        return ask(coordinator, verb, arguments, left_until(deadline), self._what)

    def _replace(self, died: Carrier, deadline: float) -> None:
        """Finds the coordinator that comes after one that has died, unless another thread has found it."""
        if not self._finding.acquire(timeout=min(left_until(deadline), threading.TIMEOUT_MAX)):
            raise WaitTimeoutError(
                f"{self._what}: another thread looks for the new coordinator, and is not done in time"
            )
        try:
            if self._coordinator is died:
                self._coordinator = self._find(left_until(deadline), True)
        finally:
            self._finding.release()

    def renew(self, timeout: float) -> None:
        """Says that this worker lives. Raises RayRequiredError, and ClosedError or ShardDiedError when the server is
        gone; other errors may pass."""
        self._ask("renew", (self._token,), timeout)

    def begin(self, timeout: float) -> tuple[int, int]:
        if self._bound is not None and self._clock - self._bound > self._progress:
            self._hear(self._ask_within("begin", timeout))
        return self._clock, self._progress

    def end_step(self, clock: int, timeout: float) -> None:
        self._hear(self._ask_within("end_step", clock, timeout))

    def give(self, round: int, weight: int, timeout: float) -> bool:
        counted, reached = self._ask_within("give", round, weight, timeout)
        self._hear(reached)
        return bool(counted)

    def catch_up(self, round: int, timeout: float) -> None:
        self._hear(self._ask_within("catch_up", round, timeout))

    def decision(self) -> Decision:
        return self._decision

    def state(self) -> tuple[int, int]:
        return self._clock, self._progress

    def rejoin(self, timeout: float) -> None:
        self.generation, reached = self._ask_within("rejoin", timeout)
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
    """Renews the lease until the worker leaves, Ray ends, or the server does."""
    next_one = deadline_after(interval)
    while not stop.wait(left_until(next_one)):
        next_one = deadline_after(interval)
        here = membership()
        if here is None:
            return
        try:
            here.renew(interval)
        except UnavailableError:
            pass
        except (RayRequiredError, ClosedError, ShardDiedError):
            return
        except Exception:  # WorkerExpelledError included: its next operation rejoins
            pass
        del here

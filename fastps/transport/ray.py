"""Shards on another node: Ray carries the operation to one of the node's shard processes, which executes it for all
shards of its node.

Called by sessions, from any thread. A push carries this process's random number and a sequence number, so that one sent
twice, after a lost connection, is applied once.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from fastps._core import Decision
from fastps.cluster import ray as cluster
from fastps.deadline import deadline_after, left_until
from fastps.errors import FastPSError, ShardDiedError, UnavailableError, WaitTimeoutError
from fastps.spec.server import ServerSpec
from fastps.transport import wire
from fastps.transport.contract import MIXED, Arrays, Work
from fastps.transport.once import Numbers, Sending
from fastps.transport.ray_table import RayTable

if TYPE_CHECKING:
    from fastps._core import Outcome

GRACE_SECONDS = 1.0  # the coordinator keeps to the timeout; its answer takes a moment


class RayTransport:
    """Reaches the shards of one other node. See contract.Transport."""

    def __init__(self, spec: ServerSpec, shards: tuple[int, ...]) -> None:
        self.shards = shards
        self._spec = spec
        self._number = shards[os.getpid() % len(shards)]  # processes spread over the node's shards, each with one
        self._layout = wire.layout(spec, shards)
        self._numbers = Numbers()
        self._what = spec.labels(shards)

    @property
    def _gateway(self) -> Any:
        return cluster.actor_of(self._spec, self._number)

    def start(
        self, work: Work, timeout: float | None, resume: Any = None, outcome: Outcome | None = None
    ) -> Operation | SlotOperation:
        limit = self._spec.timeout if timeout is None else timeout
        cluster.actor_of(self._spec, self._number)  # raises before anything has begun
        if work.slot is not None:
            return SlotOperation(self, work, limit, outcome)
        return Operation(self, work, limit, resume, outcome)

    def reach(self, decision: Decision, timeout: float) -> bool:
        ref = self._gateway.reach.remote(decision.pack(), timeout)
        return bool(cluster.get(ref, timeout, f"rounds of {self._what}"))

    def decision(self, timeout: float) -> Decision:
        return Decision.unpack(cluster.get(self._gateway.decision.remote(), timeout, f"rounds of {self._what}"))

    def skipped(self) -> None:
        self._gateway.skipped.remote()

    def configure(self, row: int, values: dict[int, float], timeout: float, outcome: Outcome) -> None:
        gateway = self._gateway
        outcome.begin(self.shards)
        cluster.get(gateway.configure.remote(row, values, timeout), timeout, f"configure {self._what}")
        outcome.end(self.shards)

    def hyper(self, row: int, count: int, timeout: float) -> list[float]:
        values: list[float] = cluster.get(self._gateway.hyper.remote(row, count), timeout, f"hyper of {self._what}")
        return values

    def fill(self, arrays: Arrays, timeout: float) -> None:
        """The initial values, before anybody uses the server."""
        cluster.get(self._gateway.fill.remote(wire.gather(self._layout, arrays)), timeout, f"create: {self._what}")

    def counters(self, timeout: float | None) -> dict[int, dict[str, int]]:
        limit = self._spec.timeout if timeout is None else timeout
        counted: dict[int, dict[str, int]] = cluster.get(self._gateway.counters.remote(), limit, self._what)
        return counted

    def table(self, number: int) -> RayTable:
        return RayTable(self._spec, number, self.shards, self._number, self._what)

    def close(self) -> None:
        pass


class RayMembership:
    """A worker's place, kept by the coordinator on the node of shard 0. See contract.Membership.

    A thread sends a word three times a lease, so that a worker that computes for long counts as alive. What is known of
    the others' progress can only have grown: no call is made for a step that it allows.
    """

    def __init__(self, spec: ServerSpec, rank: int | None, timeout: float) -> None:
        self._spec, self._bound = spec, spec.consistency.bound
        deadline = deadline_after(timeout)
        self._what = f"worker on {spec.label(0)}"
        self._coordinator, self._known = self._find_coordinator(deadline), True
        self._stop = threading.Event()
        self._join(rank, left_until(deadline))
        # The thread knows the membership by a weak reference: one that is dropped ends with its lease at the latest.
        arguments = (weakref.ref(self), self._stop, spec.consistency.lease / 3)
        threading.Thread(target=_stay, args=arguments, name="fastps lease", daemon=True).start()

    def _join(self, rank: int | None, timeout: float) -> None:
        answer = self._ask("join", rank, self._spec.consistency.lease, timeout)
        self._token, self.rank, self.generation, reached = answer
        self._hear(reached)

    def _find_coordinator(self, deadline: float, lost: str = "") -> tuple[str, str]:
        """Its name and id; of a new one where the process of the one with the id `lost` has died."""
        ref = cluster.actor_of(self._spec, 0).coordinator.remote(lost)
        found: tuple[str, str] = cluster.get(ref, left_until(deadline), self._what)
        return found

    def _hear(self, reached: tuple[int, int, bytes]) -> None:
        self._clock, self._progress, self._decision = reached

    def _ask(self, verb: str, *arguments: Any) -> Any:
        """What the coordinator answers; the last argument is the timeout. Where its process has died, another one takes
        its place, learns of this worker and is asked: whatever is asked twice is done once."""
        deadline = deadline_after(arguments[-1] + GRACE_SECONDS)
        while True:
            try:
                if not self._known:
                    place = (self._token, self.rank, self.generation, self._spec.consistency.lease)
                    cluster.get(self._call("adopt", *place), left_until(deadline), self._what)
                    self._known = True
                return cluster.get(self._call(verb, *arguments), left_until(deadline), self._what)
            except UnavailableError:
                raise
            except ShardDiedError:
                self._coordinator = self._find_coordinator(deadline, lost=self._coordinator[1])
                self._known = verb == "join"

    def _call(self, verb: str, *arguments: Any) -> Any:
        return getattr(cluster.actor(*self._coordinator, self._what), verb).remote(*arguments)

    def renew(self) -> None:
        self._call("renew", self._token)

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
        return Decision.unpack(self._decision)

    def state(self) -> tuple[int, int]:
        return self._clock, self._progress

    def rejoin(self, timeout: float) -> None:
        self.generation, reached = self._ask("rejoin", self._token, timeout)
        self._hear(reached)

    def leave(self) -> None:
        if not self._stop.is_set():
            self._stop.set()
            with contextlib.suppress(FastPSError):  # what has gone with Ray has left
                self._call("leave", self._token)

    def __del__(self) -> None:
        stop = getattr(self, "_stop", None)
        if stop is not None:
            stop.set()


def _stay(membership: weakref.ref[RayMembership], stop: threading.Event, interval: float) -> None:
    while not stop.wait(interval):
        here = membership()
        if here is None:
            return
        try:
            here.renew()
        except FastPSError:  # Ray has ended, and the server with it
            return
        del here


class SlotOperation:
    """A pull or a set of one slot: rare, one call, whatever the size. Setting twice is setting once."""

    def __init__(self, transport: RayTransport, work: Work, timeout: float, outcome: Outcome | None) -> None:
        assert work.slot is not None
        self._outcome = outcome if work.grads is not None else None
        self._what = f"slot `{work.slot}` of {transport._what}"
        self._deadline, self._outs = deadline_after(timeout), work.outs
        self._layout = wire.only(transport._layout, transport._spec.leaves_with(work.slot))
        if work.grads is None:
            self._ref = transport._gateway.slot.remote(work.slot, timeout)
        else:
            payload, gateway = wire.gather_some(self._layout, work.grads), transport._gateway
            if outcome is not None:
                outcome.begin(transport.shards)
            self._ref = gateway.set_slot.remote(work.slot, timeout, payload)

    def finish(self) -> dict[int, int]:
        answer = cluster.get(self._ref, left_until(self._deadline), self._what)
        if self._outcome is not None:
            self._outcome.end(self._layout.shards)
        if self._outs is None:
            return {}
        versions, values = answer
        if not versions:
            return dict.fromkeys(self._layout.shards, MIXED)
        wire.scatter(self._layout, 0, values, self._outs)
        return dict(zip(self._layout.shards, versions, strict=True))


class Operation:
    """A call under way, or a few that carry one payload."""

    def __init__(
        self, transport: RayTransport, work: Work, timeout: float, resume: Any, outcome: Outcome | None
    ) -> None:
        self._transport, self._work, self._outs = transport, work, work.outs
        self._deadline = deadline_after(timeout)
        self._payload = None if work.grads is None else wire.gather(transport._layout, work.grads)
        if self._payload is not None and work.pulled is not None:
            self._payload = np.concatenate([self._payload, wire.gather(transport._layout, work.pulled)])
        self._worker: int
        self._seq: int
        self._worker, self._seq = transport._numbers.take() if resume is None else resume
        self._chunks = (
            [] if work.outs is None else wire.chunks(transport._layout.head_nbytes + transport._layout.nbytes)
        )
        what = f"{'pull from' if self._payload is None else 'push to'} {transport._what}"
        changes = work.grads is not None and work.deposit is None
        self._sending = Sending(
            self._send, self._deadline, what, self._timed_out, transport.shards, outcome if changes else None
        )

    def _send(self) -> list[Any]:
        """Calls of one process to one actor arrive in order, so they can all be under way at once."""
        gateway = self._transport._gateway
        header = wire.Header(
            self._worker, self._seq, left_until(self._deadline), bool(self._chunks),
            pulled=self._work.pulled is not None, scale=self._work.scale, deposit=self._work.deposit,
            decision=b"" if self._work.decision is None else self._work.decision.pack(),
        )  # fmt: skip
        if self._payload is None:
            refs = [gateway.pull.remote(header.pack())]
        else:
            refs = [gateway.push.remote(*parts) for parts in wire.messages(self._payload, header)]
        return refs + [gateway.chunk.remote(self._worker, number) for number in range(1, len(self._chunks))]

    def finish(self) -> dict[int, int]:
        transport, layout = self._transport, self._transport._layout
        answers = self._sending.answers()
        transport._numbers.give_back(self._worker, self._seq)
        if self._outs is None:
            return layout.versions(answers[-1])
        first, *rest = answers[-len(self._chunks) :]
        wire.scatter(layout, 0, memoryview(first)[layout.head_nbytes :], self._outs)
        for (start, _), piece in zip(self._chunks[1:], rest, strict=True):
            wire.scatter(layout, start - layout.head_nbytes, piece, self._outs)
        return layout.versions(first)

    def _timed_out(self, text: str) -> WaitTimeoutError:
        """Whether the push was or will be applied is not known; resuming it sends it again under the same number."""
        if self._payload is None or self._work.deposit is not None:
            return WaitTimeoutError(text)
        return WaitTimeoutError(
            f"{text}; the push may be applied later: push the same gradients with resume=error.resume to be sure",
            partial=self._transport.shards,
            resume=(self._worker, self._seq),
        )

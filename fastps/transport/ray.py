"""Shards on another node: Ray carries the operation to one of the node's shard processes, which executes it for all
shards of its node.

Called by sessions, from any thread. A push carries this process's random number and a sequence number, so that one sent
twice, after a lost connection, is applied once.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from fastps import cluster
from fastps.errors import UnavailableError, WaitTimeoutError
from fastps.spec import ServerSpec
from fastps.transport import wire
from fastps.transport.contract import Arrays

RESEND_SECONDS = 0.1


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


class RayTransport:
    """Reaches the shards of one other node. See contract.Transport."""

    def __init__(self, spec: ServerSpec, shards: tuple[int, ...]) -> None:
        self.shards = shards
        self._spec = spec
        # Processes spread over the node's shards, each staying with one.
        self._gateway = spec.actors[shards[os.getpid() % len(shards)]]
        self._layout = wire.layout(spec, shards)
        self._numbers = Numbers()
        self._what = f"shards {list(shards)} on node {spec.addresses[shards[0]].node_id[:8]}"

    def start(self, grads: Arrays | None, outs: Arrays | None, timeout: float | None, resume: Any = None) -> Operation:
        limit = self._spec.timeout if timeout is None else timeout
        return Operation(self, grads, outs, limit, resume)

    def fill(self, arrays: Arrays, timeout: float) -> None:
        """The initial values, before anybody uses the server."""
        cluster.get(self._gateway.fill.remote(wire.gather(self._layout, arrays)), timeout, f"create: {self._what}")

    def counters(self, timeout: float | None) -> dict[int, dict[str, int]]:
        limit = self._spec.timeout if timeout is None else timeout
        counted: dict[int, dict[str, int]] = cluster.get(self._gateway.counters.remote(), limit, self._what)
        return counted

    def close(self) -> None:
        pass


class Operation:
    """A call under way, or a few that carry one payload."""

    def __init__(
        self, transport: RayTransport, grads: Arrays | None, outs: Arrays | None, timeout: float, resume: Any
    ) -> None:
        self._transport, self._outs = transport, outs
        self._deadline = cluster.deadline_after(timeout)
        self._payload = None if grads is None else wire.gather(transport._layout, grads)
        self._worker: int
        self._seq: int
        self._worker, self._seq = transport._numbers.take() if resume is None else resume
        self._chunks = [] if outs is None else wire.chunks(transport._layout.nbytes)
        self._refs = self._send()

    def _send(self) -> list[Any]:
        """Calls of one process to one actor arrive in order, so they can all be under way at once."""
        gateway = self._transport._gateway
        header = wire.Header(self._worker, self._seq, cluster.left_until(self._deadline), bool(self._chunks))
        if self._payload is None:
            refs = [gateway.pull.remote(header.pack())]
        else:
            refs = [gateway.push.remote(*parts) for parts in wire.messages(self._payload, header)]
        return refs + [gateway.chunk.remote(self._worker, number) for number in range(1, len(self._chunks))]

    def finish(self) -> None:
        transport = self._transport
        answers = self._answers()
        transport._numbers.give_back(self._worker, self._seq)
        if self._outs is not None:
            for (start, _), piece in zip(self._chunks, answers[-len(self._chunks) :], strict=True):
                wire.scatter(transport._layout, start, piece, self._outs)

    def _answers(self) -> list[Any]:
        what = f"{'pull from' if self._payload is None else 'push to'} {self._transport._what}"
        while True:
            try:
                answers: list[Any] = cluster.get(self._refs, cluster.left_until(self._deadline), what)
                return answers
            except UnavailableError as error:
                # The calls may or may not have arrived: sent again under its number, a push is applied once.
                if cluster.left_until(self._deadline) == 0:
                    raise self._timed_out(str(error)) from error
                time.sleep(RESEND_SECONDS)
                self._refs = self._send()
            except WaitTimeoutError as error:
                raise self._timed_out(str(error)) from None

    def _timed_out(self, text: str) -> WaitTimeoutError:
        """Whether the push was or will be applied is not known; resuming it sends it again under the same number."""
        if self._payload is None:
            return WaitTimeoutError(text)
        return WaitTimeoutError(
            f"{text}; the push may be applied later: push the same gradients with resume=error.resume to be sure",
            partial=self._transport.shards,
            resume=(self._worker, self._seq),
        )

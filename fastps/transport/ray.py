"""Shards on another node: Ray carries the operation to one of the node's shard processes, which executes it for all
shards of its node.

Called by sessions, from any thread. A push carries this process's random number and a sequence number, so that one sent
twice, after a lost connection, is applied once.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np

from fastps import cluster
from fastps.errors import WaitTimeoutError
from fastps.spec import ServerSpec
from fastps.transport import wire
from fastps.transport.contract import Arrays


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
        parts = wire.split(wire.gather(self._layout, arrays))
        cluster.get(self._gateway.fill.remote(*parts), timeout, f"create: {self._what}")

    def counters(self, timeout: float | None) -> dict[int, dict[str, int]]:
        limit = self._spec.timeout if timeout is None else timeout
        counted: dict[int, dict[str, int]] = cluster.get(self._gateway.counters.remote(), limit, self._what)
        return counted

    def close(self) -> None:
        pass


class Operation:
    """A call under way."""

    def __init__(
        self, transport: RayTransport, grads: Arrays | None, outs: Arrays | None, timeout: float, resume: Any
    ) -> None:
        self._transport, self._outs, self._timeout = transport, outs, timeout
        self._deadline = cluster.deadline_after(timeout)
        self._pushes = grads is not None
        self._parts: list[np.ndarray[Any, Any]] = []
        self._worker = self._seq = 0
        if grads is not None:
            self._parts = wire.split(wire.gather(transport._layout, grads))
            self._worker, self._seq = resume or transport._numbers.take()
        self._ref = self._send()

    def _send(self) -> Any:
        gateway, left = self._transport._gateway, cluster.left_until(self._deadline)
        if not self._pushes:
            return gateway.pull.remote(left)
        return gateway.push.remote(self._worker, self._seq, self._outs is not None, left, *self._parts)

    def finish(self) -> None:
        transport = self._transport
        answer = self._answer()
        if self._pushes:
            transport._numbers.give_back(self._worker, self._seq)
        if self._outs is not None:
            wire.scatter(transport._layout, answer, self._outs)

    def _answer(self) -> Any:
        what = f"{'push to' if self._pushes else 'pull from'} {self._transport._what}"
        while True:
            try:
                return cluster.get(self._ref, cluster.left_until(self._deadline), what)
            except cluster.UnavailableError as error:
                # The call may or may not have arrived: sent again under its number, it is applied once.
                if cluster.left_until(self._deadline) == 0:
                    raise self._timed_out(f"{what}: the connection was lost and did not come back") from error
                self._ref = self._send()
            except WaitTimeoutError as error:
                raise self._timed_out(str(error)) from None

    def _timed_out(self, text: str) -> WaitTimeoutError:
        """Whether the push was or will be applied is not known; resuming it sends it again under the same number."""
        if not self._pushes:
            return WaitTimeoutError(text)
        return WaitTimeoutError(
            f"{text}; the push may be applied later: push the same gradients with resume=error.resume to be sure",
            partial=self._transport.shards,
            resume=(self._worker, self._seq),
        )

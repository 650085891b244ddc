"""A worker process of a sweep: it has buffers of its own, and times one operation at a time."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import ray

from bench import peers
from bench.harness.loop import Operation, stamps, wait_until
from bench.peers.memory import array
from fastps import ParameterServer
from fastps.client.attach import new_session

LONGEST_LEAD = 1.0  # seconds; a node's clock may be wrong


def attach_over_ray(server: ParameterServer) -> None:
    """Makes a handle work as if this process were on no shard's node."""
    server.attachment.use(new_session(server.attachment.spec, ""))


class Work:
    """A worker's subjects, buffers and operations. One thread: calls happen one after the other."""

    def __init__(self) -> None:
        self.subjects: dict[str, Any] = {}

    def take(self, elements: int, subjects: dict[str, Any], transport: str = "auto") -> None:
        """Receives the subjects that are measured next, by the name of a peer, or "fastps"."""
        self.subjects = subjects
        self.out, self.grad = array(elements, "out"), array(elements, "grad", 1)
        if transport == "ray":
            attach_over_ray(subjects["fastps"])

    def operation(self, subject: str, op: str) -> Operation:
        server, out, grad = self.subjects[subject], self.out, self.grad
        if subject == "fastps":
            return {
                "pull": lambda: server.pull(out=out),
                "push": lambda: server.push(grad),
                "push_pull": lambda: server.push_pull(grad, out=out),
            }[op]
        peer = peers.module(subject)
        if op == "pull":
            return lambda: peer.pull(server, out)
        if op == "push":
            return lambda: peer.push(server, grad)

        def push_pull() -> None:
            peer.push(server, grad)
            peer.pull(server, out)

        return push_pull

    def run(self, subject: str, op: str, seconds: float, start: float) -> tuple[np.ndarray, float, int]:
        """Stamps from `start` of the wall clock on; CPU seconds; calls made, warm-up included."""
        operation = self.operation(subject, op)
        operation()  # finds its memory and its connections
        warm, count = 1, None
        if subject in peers.PEERS and peers.PEERS[subject].in_step:
            pace = float(np.median(np.diff(stamps(operation, 0, calls=3))))
            warm, count = 4, self.subjects[subject].agree(max(3, round(seconds * 1e9 / pace)))
        wait_until(min(start, time.time() + LONGEST_LEAD))
        cpu = time.process_time()
        found = stamps(operation, seconds, calls=count)
        return found, time.process_time() - cpu, warm + len(found) - 1

    def look(self, subject: str) -> tuple[float, float]:
        """The smallest and the largest of the parameters, as this worker pulls them."""
        if subject == "fastps":
            self.subjects[subject].pull(out=self.out)
            return float(self.out.min()), float(self.out.max())
        pulled = peers.module(subject).pull(self.subjects[subject], self.out)
        found = self.out if pulled is None else pulled
        return float(found.min()), float(found.max())

    def drop(self) -> None:
        for server in self.subjects.values():
            if hasattr(server, "close"):
                server.close()
        self.subjects = {}
        del self.out, self.grad


Worker = ray.remote(num_cpus=0)(Work)

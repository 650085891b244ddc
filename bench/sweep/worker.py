"""A worker process of a sweep: it has buffers of its own, and times one operation at a time."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import ray

from bench.sweep.loop import stamps

Operation = Callable[[], object]


@ray.remote(num_cpus=0)
class Worker:
    """Threads: one; calls happen one after the other."""

    def __init__(self) -> None:
        self.subjects: dict[str, Any] = {}

    def where(self) -> str:
        """Ray's id of its node."""
        node: str = ray.get_runtime_context().get_node_id()
        return node

    def take(self, elements: int, subjects: dict[str, Any]) -> None:
        """What is measured next: by the name of its peer in bench/peers, or "fastps"."""
        self.subjects = subjects
        self.out, self.grad = np.zeros(elements, np.float32), np.ones(elements, np.float32)

    def operation(self, subject: str, op: str) -> Operation:
        server, out, grad = self.subjects[subject], self.out, self.grad
        if subject == "fastps":
            return {
                "pull": lambda: server.pull(out=out),
                "push": lambda: server.push(grad),
                "push_pull": lambda: server.push_pull(grad, out=out),
            }[op]
        peer = importlib.import_module(f"bench.peers.{subject}")
        if op == "pull":
            return lambda: peer.pull(server, out)
        if op == "push":
            return lambda: peer.push(server, grad)

        def push_pull() -> None:
            peer.push(server, grad)
            peer.pull(server, out)

        return push_pull

    def run(self, subject: str, op: str, seconds: float, start: float) -> tuple[np.ndarray, float, int]:
        """Stamps from about `start` on, of this machine's clock; CPU seconds; calls made, warm-up included."""
        operation = self.operation(subject, op)
        operation()  # finds its memory and its connections
        while time.monotonic() < start:
            pass
        cpu = time.process_time()
        found = stamps(operation, seconds)
        return found, time.process_time() - cpu, len(found)

    def drop(self) -> None:
        for server in self.subjects.values():
            if hasattr(server, "close"):
                server.close()
        self.subjects = {}
        del self.out, self.grad

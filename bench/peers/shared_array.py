"""What one would otherwise write on one machine: an array in shared memory with a lock around it, as multiprocessing
has them."""

from __future__ import annotations

import multiprocessing
from multiprocessing import shared_memory
from typing import Any

import numpy as np


class SharedArray:
    """Owned by the process that creates it; others attach when they first use it."""

    def __init__(self, elements: int) -> None:
        self.elements = elements
        self.memory = shared_memory.SharedMemory(create=True, size=4 * elements)
        self.lock: Any = multiprocessing.get_context("spawn").Lock()
        self.params = np.ndarray(elements, np.float32, self.memory.buf)
        self.params[:] = 0
        self.owner = True

    def __reduce__(self) -> tuple[Any, ...]:
        lock = self.lock._semlock
        return attach, (self.elements, self.memory.name, lock.name, lock.kind, lock.maxvalue)

    def close(self) -> None:
        del self.params
        self.memory.close()
        if self.owner:
            self.memory.unlink()


def attach(elements: int, memory: str, lock: str, kind: int, maxvalue: int) -> SharedArray:
    """What multiprocessing does in a child that it has spawned; these processes are Ray's."""
    import _multiprocessing
    from multiprocessing import resource_tracker

    server = SharedArray.__new__(SharedArray)
    server.elements, server.owner = elements, False
    server.memory = shared_memory.SharedMemory(memory)
    resource_tracker.unregister(server.memory._name, "shared_memory")  # type: ignore[attr-defined]  # not ours to end
    server.lock = _multiprocessing.SemLock._rebuild(0, kind, maxvalue, lock)
    server.params = np.ndarray(elements, np.float32, server.memory.buf)
    return server


def create(elements: int, workers: int, node: str) -> SharedArray:
    return SharedArray(elements)


def pull(server: SharedArray, out: np.ndarray) -> None:
    with server.lock:
        np.copyto(out, server.params)


def push(server: SharedArray, grad: np.ndarray) -> None:
    with server.lock:
        np.add(server.params, grad, out=server.params)

"""The alternative on one machine: an array in multiprocessing's shared memory, protected by a lock."""

from __future__ import annotations

import multiprocessing
import pickle
from multiprocessing import context, resource_tracker, shared_memory
from typing import Any

import numpy as np

from bench.peers.update import UPDATES, Parameters

COUNT_BYTES = 64  # in front of the parameters: the number of pushes, a cache line of its own


class SharedArray:
    """Owned by the process that creates it; others attach when they first use it."""

    def __init__(self, rule: str, elements: int) -> None:
        size = COUNT_BYTES + (1 + UPDATES[rule].slots) * 4 * elements
        self.memory = shared_memory.SharedMemory(create=True, size=size)
        self.lock: Any = multiprocessing.get_context("spawn").Lock()
        self.rule, self.elements, self.owner = rule, elements, True
        self.map()

    def map(self) -> None:
        """The number of pushes, the parameters, the slots: all begin as zeros."""
        self.count = np.ndarray(1, np.int64, self.memory.buf)
        shape = 1 + UPDATES[self.rule].slots, self.elements
        arrays = np.ndarray(shape, np.float32, self.memory.buf, COUNT_BYTES)
        self.state = Parameters(self.rule, arrays[0], list(arrays[1:]))

    def push(self, grad: np.ndarray) -> None:
        """With the lock held."""
        self.state.steps = int(self.count[0])
        self.state.push(grad)
        self.count[0] = self.state.steps

    def __reduce__(self) -> tuple[Any, ...]:
        """A lock of multiprocessing can be pickled only while a child is spawned. These processes are Ray's: for the
        length of its copy this one claims to spawn one."""
        context.set_spawning_popen(self)
        try:
            lock = pickle.dumps(self.lock)
        finally:
            context.set_spawning_popen(None)
        return attach, (self.rule, self.elements, self.memory.name, lock)

    def close(self) -> None:
        del self.count, self.state
        self.memory.close()
        if self.owner:
            self.memory.unlink()


def attach(rule: str, elements: int, memory: str, lock: bytes) -> SharedArray:
    server = SharedArray.__new__(SharedArray)
    server.rule, server.elements, server.owner = rule, elements, False
    server.memory = shared_memory.SharedMemory(memory)
    resource_tracker.unregister(f"/{memory}", "shared_memory")  # its creator unlinks it
    server.lock = pickle.loads(lock)
    server.map()
    return server


def create(elements: int, workers: int, node: str, rule: str) -> SharedArray:
    return SharedArray(rule, elements)


def pull(server: SharedArray, out: np.ndarray) -> None:
    server.lock.acquire()
    try:
        np.copyto(out, server.state.params)
    finally:
        server.lock.release()


def push(server: SharedArray, grad: np.ndarray) -> None:
    server.lock.acquire()
    try:
        server.push(grad)
    finally:
        server.lock.release()

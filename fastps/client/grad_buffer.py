"""Memory for gradients that asynchronous operations take over without a copy."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from fastps.client.future import Future
from fastps.deadline import deadline_after, left_until
from fastps.errors import OptionError, WaitTimeoutError
from fastps.spec.arrays import Structure

ALIGNED = 64


class GradBuffer:
    """Arrays to compute gradients into, in the structure of the parameters; `ParameterServer.grad_buffer` lends it.

    Pass it as `grads` to `push_async` or `push_pull_async`: from then on it belongs to the operation, until that ends.

    Attributes
    ----------
    arrays : what gradients are written to, in place: of the parameters' structure, shapes and dtypes; zeros at first
    """

    def __init__(self, structure: Structure) -> None:
        leaves = [structure.leaves[i] for i in structure.trained]
        sizes = [leaf.size * leaf.item_bytes for leaf in leaves]
        starts = np.cumsum([0, *(-(-size // ALIGNED) * ALIGNED for size in sizes)]).tolist()
        memory = np.zeros(starts[-1] + ALIGNED, np.uint8)
        first = -memory.ctypes.data % ALIGNED
        arrays = [
            memory[first + start : first + start + size].view(leaf.dtype).reshape(leaf.shape)
            for leaf, start, size in zip(leaves, starts, sizes, strict=False)
        ]
        self.arrays: Any = structure.only(structure.trained).assemble(arrays)
        self._future: Future | None = None
        self._lent = True

    def hand_over(self, start: Callable[[Any], Future]) -> Future:
        """Starts an operation with its arrays. It is lent no more, unless that was not started."""
        if not self._lent:
            raise OptionError(
                "push_async: this buffer was handed over before and belongs to that operation; nothing was applied; "
                "ask for the next one by grad_buffer()"
            )
        self._lent = False
        try:
            self._future = start(self.arrays)
        except BaseException:
            self._lent = True
            raise
        return self._future

    def lend(self, timeout: float) -> GradBuffer:
        """Waits for the operation that has it."""
        future = self._future
        if future is not None and not future.ended(timeout):
            raise WaitTimeoutError(f"grad_buffer: {future.what}, which has it, did not end within {timeout:g} s")
        self._future, self._lent = None, True
        return self


class GradBuffers:
    """The two of a server in this process, lent by turns. Threads: one at a time."""

    def __init__(self, structure: Structure) -> None:
        self._structure = structure
        self._buffers: list[GradBuffer] = []
        self._next = 0
        self._lock = threading.Lock()

    def lend(self, timeout: float) -> GradBuffer:
        """The next one, when the operation that has it has ended."""
        deadline = deadline_after(timeout)
        with self._lock:
            number = self._next % 2
            if len(self._buffers) == number:
                self._buffers.append(GradBuffer(self._structure))
                found = self._buffers[number]
            else:
                found = self._buffers[number].lend(left_until(deadline))
            self._next += 1
        return found

"""Memory for gradients that asynchronous operations take over without a copy."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from fastps._core import life_generation
from fastps.client.future import Future
from fastps.errors import FastPSError, OptionError, WaitTimeoutError
from fastps.spec.arrays import Structure

ALIGNED = 64


class GradBuffer:
    """Arrays to compute gradients into, in the structure of the parameters; `ParameterServer.grad_buffer` lends it.

    Pass it as `grads` to `push_async` or `push_pull_async`: from then on it belongs to the operation, until that ends.

    Attributes
    ----------
    is_lost : nobody knows who has it
    arrays : what gradients are written to, in place: of the parameters' structure and shapes, and the
        dtypes in which they are stored (float32 for those of half precision); zeros at first
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
        self._lent, self.is_lost = True, False

    def hand_over(self, start: Callable[[Any], Future]) -> Future:
        """Starts an operation with its arrays. It is lent no more, unless that was not started."""
        if not self._lent:
            raise OptionError(
                "grads: this buffer was handed over before and belongs to that operation; nothing was applied; "
                "ask for the next one by grad_buffer()"
            )
        self._lent = False
        try:
            self._future = start(self.arrays)
        except FastPSError:  # it was refused
            self._lent = True
            raise
        except BaseException:  # an operation may have it all the same: it is lent no more
            self.is_lost = True
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
    """Two for each thread that asks, lent by turns; a forked child has others."""

    def __init__(self, structure: Structure) -> None:
        self._structure = structure
        self._of_threads: dict[tuple[int, int], list[GradBuffer]] = {}  # the next one first

    def lend(self, timeout: float) -> GradBuffer:
        """The next one of this thread, when the operation that has it has ended."""
        buffers = self._of_threads.setdefault((life_generation(), threading.get_ident()), [])
        if len(buffers) < 2:
            found = GradBuffer(self._structure)
        elif buffers[0].is_lost:
            found = GradBuffer(self._structure)
            del buffers[0]
        else:
            found = buffers[0].lend(timeout)
            del buffers[0]
        buffers.append(found)
        return found

"""Numbers of pushes between nodes, by which one that is sent twice is applied once."""

from __future__ import annotations

import os
import threading


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

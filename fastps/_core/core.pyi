from typing import Any

import numpy as np

BLOCK_BYTES: int

def life_generation() -> int: ...
def copy(to: Any, source: Any) -> None: ...

class Window:
    def __buffer__(self, flags: int, /) -> memoryview: ...

class Arena:
    owner: bool
    label: str
    @staticmethod
    def size(params_bytes: int, max_sessions: int) -> int: ...
    @staticmethod
    def create(
        arena_id: bytes,
        label: str,
        shard_index: int,
        shard_count: int,
        params_bytes: int,
        max_sessions: int,
        isolated: bool,
        stripe_bytes: int = 0,
    ) -> Arena: ...
    @staticmethod
    def open(fd: int, arena_id: bytes, label: str) -> Arena: ...
    def retire(self) -> None: ...
    def check(self) -> None: ...
    @property
    def fd(self) -> int: ...
    @property
    def version(self) -> int: ...
    @property
    def total_bytes(self) -> int: ...
    @property
    def stripe_bytes(self) -> int: ...
    def counters(self) -> dict[str, int]: ...
    def window(self, position: int, nbytes: int) -> Window: ...

class Lane: ...

class Group:
    timeout: float
    def __init__(
        self,
        arenas: list[Arena],
        spans: list[list[tuple[int, int, int, int, int, int]]],
        rules: list[tuple[int, np.ndarray[Any, np.dtype[np.float64]]]],
        n_buffers: int,
        timeout: float,
        kinds: list[tuple[np.dtype[Any], tuple[int, ...]]] | None = None,
        names: list[str] | None = None,
    ) -> None: ...
    def run_if_fits(self, pushes: bool, grads: Any, pulls: bool, outs: Any, timeout: float | None = None) -> bool: ...
    def run(
        self,
        grads: list[Any] | None,
        outs: list[Any] | None,
        timeout: float | None = None,
        resume: Lane | None = None,
    ) -> None: ...
    def close(self) -> None: ...
    def fill(self, values: list[Any]) -> None: ...

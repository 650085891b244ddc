"""The compiled core: arenas in shared memory and the operations on them. Not public; see csrc/ for the contract."""

from fastps._core.core import (
    BLOCK_BYTES,
    Arena,
    Board,
    Decision,
    Group,
    Held,
    Lane,
    Member,
    all_finite,
    copy,
    global_norm,
    life_generation,
)

__all__ = [
    "BLOCK_BYTES", "Arena", "Board", "Decision", "Group", "Held", "Lane", "Member", "all_finite", "copy", "global_norm",
    "life_generation",
]  # fmt: skip

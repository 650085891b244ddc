"""No bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastps.consistency.base import ASYNC, Consistency


@dataclass(frozen=True, kw_only=True)
class Async(Consistency):
    """Every push is applied when it comes, and nobody waits for anybody. A worker's session still counts its clock and
    tells how far it is ahead of the slowest."""

    kind: ClassVar[int] = ASYNC

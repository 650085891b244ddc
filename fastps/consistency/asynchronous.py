"""No bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastps.consistency.base import ASYNC, Consistency


@dataclass(frozen=True, kw_only=True)
class Async(Consistency):
    """Every push is applied when it arrives, and no worker waits for another. A worker's session still counts its clock
    and reports how far it is ahead of the slowest."""

    kind: ClassVar[int] = ASYNC

"""A carrier to a gateway in this process: what a shard's process has for itself, and what tests put in the place of a
network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from fastps.transport.contract import Buffer, Limits


@dataclass(frozen=True)
class Loopback:
    """See contract.Carrier.

    Attributes
    ----------
    serve : of a gateway, called by the thread that sends
    """

    serve: Callable[..., Buffer]
    limits: ClassVar[Limits] = Limits(1 << 62, 1 << 62, None, 1 << 62, 1 << 62, 1 << 62)

    def send(self, messages: Sequence[Sequence[Buffer]]) -> Arrived:
        return Arrived([self.serve(*parts) for parts in messages])


@dataclass(frozen=True)
class Arrived:
    """Messages that were served already. See contract.Call."""

    found: list[Buffer]

    def answers(self, timeout: float) -> list[Buffer]:
        return self.found

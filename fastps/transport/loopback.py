"""A carrier to a gateway in this process: for a shard's process that uses its own server, and for tests."""

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
    serve : that of a gateway; runs on the thread that sends
    """

    serve: Callable[..., Buffer]
    limits: ClassVar[Limits] = Limits(1 << 62, 1 << 62, None, 1 << 62, 1 << 62, 1 << 62)

    def send(self, messages: Sequence[Sequence[Buffer]]) -> Arrived:
        return Arrived([self.serve(*parts) for parts in messages])


@dataclass(frozen=True)
class Arrived:
    """Messages that have been served. See contract.Call."""

    found: list[Buffer]

    def replies(self, timeout: float) -> list[Buffer]:
        return self.found

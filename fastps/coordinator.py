"""Speaks at the board for workers of other nodes: a Ray actor on the node of shard 0, started when the first one comes.

Each call waits on a thread of its own, as a worker of this node would, so that a call that is parked keeps nobody from
being answered.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from fastps._core import Member
from fastps.errors import PutOutError, WaitTimeoutError
from fastps.transport.shm import open_arena

if TYPE_CHECKING:
    from fastps.spec import ShardAddress

MAX_PARKED = 1000  # calls at a time, more than there can be workers


class Coordinator:
    """State of the actor; `fastps.cluster` starts it."""

    def __init__(self, address: ShardAddress, label: str) -> None:
        self._arena = open_arena(address, label)
        self._members: dict[int, Member] = {}
        self._waiting = ThreadPoolExecutor(256, thread_name_prefix="fastps parked")

    async def join(self, rank: int | None, lease: float, timeout: float) -> tuple[int, int, int, int]:
        """(token of the worker, its rank, its clock, the progress of the others)."""
        member = await self._aside(partial(Member, self._arena, rank, lease, timeout))
        token = int.from_bytes(os.urandom(7), "big")
        self._members[token] = member
        return token, member.rank, *member.state()

    async def begin(self, token: int, timeout: float) -> tuple[int, int]:
        member = self._member(token)
        try:
            return member.begin(0.0)
        except WaitTimeoutError:
            reached: tuple[int, int] = await self._aside(partial(member.begin, timeout))
            return reached

    async def end_step(self, token: int, timeout: float) -> tuple[int, int]:
        member = self._member(token)
        member.end_step(timeout)
        return member.state()

    async def renew(self, token: int) -> None:
        self._member(token).renew(1.0)

    async def leave(self, token: int) -> None:
        self._members.pop(token).leave()

    def _member(self, token: int) -> Member:
        if token not in self._members:
            raise PutOutError("worker: the coordinator does not know it any more")
        return self._members[token]

    async def _aside(self, call: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._waiting, call)

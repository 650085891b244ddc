"""Represents workers of other nodes at the board: a process on the node of shard 0, started when the first one joins.

A call that waits until its worker may begin has a thread of its own, so other calls are served meanwhile. They only
take the board's lock for a moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from fastps._core import Decision, Member
from fastps.errors import RankError, WaitTimeoutError, WorkerExpelledError
from fastps.shard.arguments import OF_COORDINATOR, require
from fastps.spec.server import ServerSpec
from fastps.transport import message, values
from fastps.transport.arenas import open_arena
from fastps.transport.contract import Buffer

MAX_PARKED = 1000  # waiting calls, more than there can be workers
Reached = tuple[int, int, Decision]  # a worker's clock, the progress of the others, the last decision


class Coordinator:
    """State of the process. Verbs are idempotent."""

    def __init__(self, spec: ServerSpec) -> None:
        self._spec, self._arena = spec, open_arena(spec, 0)
        self._members: dict[int, Member] = {}
        self._joining: dict[int, asyncio.Future[None]] = {}
        self._waiting = ThreadPoolExecutor(256, thread_name_prefix="fastps parked")

    async def serve(self, head: Buffer, *parts: Buffer) -> Buffer:
        """As `Gateway.serve`, for questions only."""
        try:
            header = message.Header.unpack(head)
            inbox = message.Inbox(header.nbytes)
            inbox.add(memoryview(head)[header.size :], parts)
            verb, arguments = values.unpack(inbox.payload())
            require(OF_COORDINATOR, verb, arguments, self._spec)
            call: Callable[..., Any] = getattr(self, verb)
            return message.DONE + values.pack(await call(*arguments))
        except Exception as error:
            return message.failure(error, "the coordinator")

    async def join(self, token: int, rank: int | None, lease: float, timeout: float) -> tuple[int, int, Reached]:
        """(rank of the worker, generation of the rank, Reached). The token is the worker's own: it joins once."""
        if token not in self._members:
            if token not in self._joining:
                self._joining[token] = asyncio.ensure_future(self._admit(token, rank, lease, timeout))
            await asyncio.shield(self._joining[token])  # others wait for the same
        member = self._member(token)
        return member.rank, member.generation, self._reached(member)

    async def _admit(self, token: int, rank: int | None, lease: float, timeout: float) -> None:
        try:
            member = await self._aside(partial(Member, self._arena, rank, lease, timeout))
            for old in [old for old, other in self._members.items() if other.rank == member.rank]:
                del self._members[old]  # its rank is free, so its lease has ended
            self._members[token] = member
        finally:
            del self._joining[token]

    async def adopt(self, token: int, rank: int, generation: int, lease: float) -> None:
        """Takes over a worker from a coordinator that has died."""
        if token not in self._members:
            self._members[token] = Member.adopt(self._arena, rank, generation, lease)

    async def begin(self, token: int, timeout: float) -> Reached:
        member = self._member(token)
        try:
            member.begin(0.0)
        except WaitTimeoutError:
            await self._aside(partial(member.begin, timeout))
        return self._reached(member)

    async def end_step(self, token: int, clock: int, timeout: float) -> Reached:
        member = self._member(token)
        member.end_step(clock, timeout)
        return self._reached(member)

    async def give(self, token: int, round: int, weight: int, timeout: float) -> tuple[bool, Reached]:
        """(whether it counts, Reached)."""
        member = self._member(token)
        return member.give(round, weight, timeout), self._reached(member)

    async def rejoin(self, token: int, timeout: float) -> tuple[int, Reached]:
        """(new generation of its rank, Reached)."""
        if token not in self._members:
            raise RankError(
                "worker: it was expelled, and another worker has taken its rank; open a new session with "
                "`with ps.worker() as w:`"
            )
        member = self._members[token]
        member.rejoin(timeout)
        return member.generation, self._reached(member)

    async def catch_up(self, token: int, round: int, timeout: float) -> Reached:
        member = self._member(token)
        member.catch_up(round, timeout)
        return self._reached(member)

    @staticmethod
    def _reached(member: Member) -> Reached:
        state = member.state()
        return *state, member.decision()  # in this order: the decision is never older than the progress

    async def renew(self, token: int) -> None:
        self._member(token).renew(1.0)

    async def leave(self, token: int) -> None:
        if token in self._members:
            self._members.pop(token).leave()

    def _member(self, token: int) -> Member:
        if token not in self._members:
            raise WorkerExpelledError("worker: the coordinator does not know it any more")
        return self._members[token]

    async def _aside(self, call: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._waiting, call)

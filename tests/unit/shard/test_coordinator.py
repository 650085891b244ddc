"""What the coordinator says of the board to workers elsewhere, without Ray."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

import fastps
from fastps._core import Decision
from fastps.errors import RankError, UnavailableError
from fastps.shard.coordinator import Coordinator
from fastps.testing.local import LocalServer
from fastps.transport.loopback import Loopback
from fastps.transport.membership import RemoteMembership


class Moving:
    """A member whose board moves on whenever it is looked at, as workers of this node make it."""

    def __init__(self):
        self._round = 5

    def _next(self):
        self._round += 1
        return self._round

    def decision(self):
        return Decision.unpack(self._next().to_bytes(8, "little"))

    def state(self):
        now = self._next()
        return now, now


def test_a_worker_elsewhere_never_hears_of_progress_without_the_round_behind_it():
    """It would read, and write over, what the round has not been applied to."""
    _, progress, decision = Coordinator._reached(Moving())
    assert decision.round >= progress


@pytest.fixture
def server():
    with LocalServer(np.zeros(8), consistency=fastps.SSP(0, workers=2)) as made:
        yield made


def test_a_join_that_is_sent_again_joins_once_also_while_the_first_is_under_way(server):
    async def joins():
        process = Coordinator(server.spec)
        first, same = await asyncio.gather(*[process.join(5, None, 60.0, 5.0) for _ in range(2)])
        again = await process.join(5, None, 60.0, 5.0)
        other = await process.join(6, None, 60.0, 5.0)
        return [reply[0] for reply in (first, same, again, other)]

    assert asyncio.run(joins()) == [0, 0, 0, 1]


def test_a_join_that_failed_may_be_tried_again(server):
    async def joins():
        process = Coordinator(server.spec)
        await process.join(5, 3, 60.0, 5.0)
        with pytest.raises(RankError, match="rank 3 is taken"):
            await process.join(6, 3, 60.0, 5.0)
        await process.leave(5)
        return await process.join(6, 3, 60.0, 5.0)

    assert asyncio.run(joins())[0] == 3


class Losing:
    """A carrier to a coordinator in this process that loses the reply to every second call."""

    limits = Loopback.limits

    def __init__(self, process):
        self.process, self.calls = process, 0

    def send(self, messages):
        self.found = [asyncio.run(self.process.serve(*parts)) for parts in messages]
        return self

    def replies(self, timeout):
        self.calls += 1
        if self.calls % 2:
            raise UnavailableError("the reply was lost")
        return self.found


@pytest.mark.parametrize("rank", [None, 2])
def test_a_worker_whose_join_lost_its_reply_is_one_worker(server, rank):
    process = Coordinator(server.spec)
    one = RemoteMembership(server.spec, rank, 30.0, lambda timeout, died: Losing(process))
    assert one.rank == (rank or 0)
    other = RemoteMembership(server.spec, None, 30.0, lambda timeout, died: Losing(process))
    assert other.rank == (1 if rank is None else 0)
    one.end_step(0, 30.0)
    other.end_step(0, 30.0)
    assert one.begin(30.0) == (1, 1)  # nobody else is waited for
    one.leave()
    other.leave()

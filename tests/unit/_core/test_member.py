"""A worker elsewhere, whom another process goes on speaking for."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from fastps._core import Arena, Member
from fastps.consistency import SSP
from fastps.errors import ClosedError, RankError, WorkerExpelledError


@pytest.fixture
def board():
    policy = SSP(3).policy
    arena = Arena.create(os.urandom(16), "shard 0 of 1", 0, 1, 4096, 4, True, max_workers=4, policy=policy)
    yield arena
    arena.retire()


def test_an_adopted_member_is_where_the_one_before_was_and_leaves_for_it(board):
    before = Member(board, 2, 60.0, 1.0)
    before.end_step(0, 1.0)
    now = Member.adopt(board, 2, before.generation, 60.0)
    assert (now.rank, now.generation, now.state()) == (2, before.generation, (1, before.state()[1]))
    now.end_step(0, 1.0)  # twice is as good as once
    now.end_step(1, 1.0)
    assert before.state()[0] == 2
    with pytest.raises(RankError):
        Member(board, 2, 0.0, 1.0)
    now.leave()
    Member(board, 2, 0.0, 1.0).leave()


def test_a_member_whose_lease_had_ended_is_expelled_and_comes_back(board):
    before = Member(board, 2, 0.05, 1.0)
    time.sleep(0.1)
    Member(board, 1, 0.0, 1.0).leave()  # whoever comes sees that
    now = Member.adopt(board, 2, before.generation, 60.0)
    with pytest.raises(WorkerExpelledError):
        now.end_step(0, 1.0)
    now.rejoin(1.0)
    now.end_step(now.state()[0], 1.0)


def test_a_rank_that_there_is_not_is_refused(board):
    with pytest.raises(IndexError):
        Member.adopt(board, 4, 1, 60.0)


@pytest.fixture
def ahead():
    """A worker that has to wait for another one."""
    arena = Arena.create(os.urandom(16), "s", 0, 1, 4096, 4, True, max_workers=4, policy=SSP(0).policy)
    member, other = Member(arena, 0, 60.0, 1.0), Member(arena, 1, 60.0, 1.0)
    member.end_step(0, 1.0)
    yield member
    other.leave()
    arena.retire()


def test_a_wait_ends_when_its_worker_leaves_in_another_thread(ahead):
    leaving = threading.Timer(0.1, ahead.leave)
    leaving.start()
    with pytest.raises(ClosedError, match="has left"):
        ahead.begin(60.0)
    leaving.join()
    assert ahead.state()[0] == 1  # what it was can still be read
    with pytest.raises(ClosedError):
        ahead.rejoin(1.0)


def test_a_wait_ends_when_its_worker_leaves_in_a_signal_handler(ahead):
    before = signal.signal(signal.SIGALRM, lambda *_: ahead.leave())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(ClosedError, match="has left"):
            ahead.begin(60.0)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_member_elsewhere_rejoins_twice_as_once(board):
    member = Member(board, 2, 0.05, 1.0)
    time.sleep(0.1)
    Member(board, 1, 0.0, 1.0).leave()  # expels it
    now = Member.adopt(board, 2, member.generation, 60.0)
    now.rejoin(1.0)
    generation, state = now.generation, now.state()
    now.rejoin(1.0)
    assert (now.generation, now.state()) == (generation, state)

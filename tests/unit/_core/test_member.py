"""A worker elsewhere, whom another process goes on speaking for."""

from __future__ import annotations

import os
import time

import pytest

from fastps._core import Arena, Member
from fastps.consistency import SSP
from fastps.errors import RankError, WorkerExpelledError


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

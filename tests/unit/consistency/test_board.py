"""Hypothesis drives the state machine of csrc/clock.c and the naive one beside it: they never differ."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fastps._core import Board
from fastps.testing.clocks import ASYNC, BSP, SSP, ModelBoard
from tests.support.extent import short_or_long

MEMBERS = 4
ranks = st.integers(0, MEMBERS - 1)


class Boards(RuleBasedStateMachine):
    """A board and its model, given the same events."""

    kind: int

    @initialize(staleness=st.integers(0, 3), backup=st.integers(0, 3), workers=st.integers(1, MEMBERS))
    def create(self, staleness, backup, workers):
        policy = (self.kind, staleness if self.kind == SSP else 0, backup if self.kind == BSP else 0)
        self.real = Board(*policy, workers, MEMBERS)
        self.model = ModelBoard(*policy, workers, MEMBERS)

    def both(self, name, *args):
        answers = []
        for board in (self.real, self.model):
            try:
                answers.append(getattr(board, name)(*args))
            except ValueError:
                answers.append(ValueError)
        assert answers[0] == answers[1], f"{name}{args}"
        return answers[0]

    @rule(rank=ranks)
    def join(self, rank):
        self.both("join", rank)

    @rule(rank=ranks)
    def leave(self, rank):
        self.both("leave", rank)

    @rule(rank=ranks)
    def evict(self, rank):
        self.both("evict", rank)

    @rule(rank=ranks)
    def rejoin(self, rank):
        self.both("rejoin", rank)

    @precondition(lambda self: self.kind != BSP)
    @rule(rank=ranks)
    def end_step(self, rank):
        self.both("end_step", rank)

    @precondition(lambda self: self.kind == BSP)
    @rule(rank=ranks, weight=st.integers(0, 3) | st.just(65535))
    def arrive(self, rank, weight):
        self.both("arrive", rank, weight)

    @precondition(lambda self: self.kind == BSP)
    @rule(rank=ranks, behind=st.integers(-1, 4))
    def catch_up(self, rank, behind):
        """With what was read a few rounds ago, or with a round that has not closed."""
        self.both("catch_up", rank, max(0, self.model.progress - behind))

    @precondition(lambda self: self.model.live)
    @rule(data=st.data(), steps=st.integers(1, 10))
    def work(self, data, steps):
        """Live workers, as long as they may: without it few rounds close."""
        for _ in range(steps):
            rank = data.draw(st.sampled_from(self.model.live))
            if self.model.may_go(rank):
                self.both("arrive", rank, 1) if self.kind == BSP else self.both("end_step", rank)

    @rule(name=st.sampled_from(["join", "leave", "evict", "rejoin", "clock", "may_go"]))
    def address_a_rank_that_is_not_there(self, name):
        assert self.both(name, MEMBERS) is ValueError

    @invariant()
    def same(self):
        assert self.real.progress == self.model.progress
        assert self.real.started == self.model.started
        assert self.real.live == self.model.live
        for rank in range(MEMBERS):
            assert self.real.clock(rank) == self.model.clock(rank)
            assert self.real.may_go(rank) == self.model.may_go(rank)
        if self.kind == BSP:
            assert self.real.decision() == self.model.decision()


@pytest.mark.parametrize("kind", [ASYNC, SSP, BSP], ids=["async", "ssp", "bsp"])
def test_the_board_decides_as_the_model_does(kind):
    machine = type("Boards", (Boards,), {"kind": kind})
    run_state_machine_as_test(machine, settings=settings(max_examples=short_or_long(40, 200), stateful_step_count=60))


def test_a_board_forgets_old_rounds_and_drops_every_late_gradient():
    board = Board(BSP, 0, 1, 2, 3)
    board.join(0)
    board.join(1)
    for number in range(300):
        assert board.arrive(1, number)
        assert board.decision() == (number + 1, ((1, number),))
        assert not board.arrive(0, 1)
        assert board.clock(0) == board.progress == number + 1


def test_a_worker_that_reads_ahead_of_its_clock_is_in_time_again():
    board = Board(BSP, 0, 1, 2, 2)
    board.join(0)
    board.join(1)
    for _ in range(5):
        board.arrive(1, 1)
    assert board.catch_up(0, 3) == 3
    assert board.catch_up(0, 2) == 3
    assert board.catch_up(0, 5) == 5
    assert board.arrive(0, 1)
    with pytest.raises(ValueError, match="round 7"):
        board.catch_up(0, 7)

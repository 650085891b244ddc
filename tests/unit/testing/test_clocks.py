import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastps.testing.clocks import ASYNC, BSP, SSP, ModelBoard

MEMBERS = 4
boards = st.builds(
    ModelBoard, st.sampled_from([ASYNC, SSP, BSP]), st.integers(0, 3), st.integers(0, 2), st.integers(1, 3),
    st.just(MEMBERS),
)  # fmt: skip
names = st.sampled_from(["join", "leave", "evict", "rejoin", "work", "work", "work"])
events = st.lists(st.tuples(names, st.integers(0, MEMBERS - 1)), min_size=20, max_size=60)


def happen(board, name, rank, gated=True):
    """The event where it is possible; whether it was. With `gated` nobody works before it may."""
    try:
        if name != "work":
            getattr(board, name)(rank)
        elif gated and not board.may_go(rank):
            return False
        elif board._kind == BSP:
            board.arrive(rank, 1)
        else:
            board.end_step(rank)
    except ValueError:
        return False
    return True


@given(boards, events, st.booleans())
def test_progress_never_goes_back_and_a_start_is_for_ever(board, events, gated):
    for name, rank in events:
        before = board.progress, board.started
        happen(board, name, rank, gated)
        assert (board.progress, board.started) >= before
        assert board.started or board.progress == 0
        assert board.started or len(board.live) < board._workers


@given(boards, events)
def test_an_event_that_is_refused_changes_nothing(board, events):
    def state():
        return (
            board.live, [board.clock(rank) for rank in range(MEMBERS)], board.progress, board.started, board.decision()
        )  # fmt: skip

    for name, rank in events:
        before = state()
        assert happen(board, name, rank, gated=False) or state() == before


@given(boards, events)
def test_nobody_who_asks_first_is_further_ahead_than_the_bound(board, events):
    ahead = {ASYNC: float("inf"), SSP: board._staleness + 1, BSP: 1}[board._kind]
    for name, rank in events:
        happen(board, name, rank)
        clocks = [board.clock(rank) for rank in board.live]
        assert all(clock <= board.progress + ahead for clock in clocks)
        if board._kind == SSP and board.started and clocks:
            assert max(clocks) - min(clocks) <= ahead
            assert all(board.may_go(rank) == (board.clock(rank) - min(clocks) <= ahead - 1) for rank in board.live)


@given(boards, events)
def test_somebody_live_may_always_go_once_started(board, events):
    for name, rank in events:
        happen(board, name, rank)
        if board.started and board.live:
            assert any(board.may_go(rank) for rank in board.live)


@given(boards, events)
def test_a_worker_that_comes_may_begin_unless_its_rank_has_given_to_the_open_round(board, events):
    for name, rank in events:
        if happen(board, name, rank) and name in ("join", "rejoin") and board._kind != BSP:
            assert board.may_go(rank)
            assert board.clock(rank) == board.progress


@given(st.integers(0, 2), st.integers(1, 3), events)
def test_rounds_close_one_at_a_time_and_each_counts_what_was_given_to_it(backup, workers, events):
    board = ModelBoard(BSP, 0, backup, workers, MEMBERS)
    given_to_open = {}
    for name, rank in events:
        before = board.progress
        if name == "work" and rank in board.live and board.clock(rank) == board.progress:
            given_to_open[rank] = 1
        happen(board, name, rank)
        assert board.progress - before in (0, 1)
        if board.progress > before:
            assert board.decision() == (board.progress, tuple(sorted(given_to_open.items())))
            assert given_to_open
            missing = set(board.live) - set(given_to_open)
            assert len(missing) <= backup
            given_to_open = {}
        elif board.started and given_to_open:
            assert len(set(board.live) - set(given_to_open)) > backup


def test_the_slowest_of_the_live_holds_the_others_until_it_goes():
    board = ModelBoard(SSP, 1, 0, 2, 3)
    assert [board.join(rank) for rank in (0, 1)] == [0, 0]
    assert [board.end_step(0), board.end_step(0)] == [1, 2]
    assert (board.progress, board.may_go(0), board.may_go(1)) == (0, False, True)
    board.evict(1)
    assert (board.progress, board.may_go(0), board.live) == (2, True, [0])
    assert board.rejoin(1) == 2


def test_without_the_workers_that_it_waits_for_nothing_has_started():
    board = ModelBoard(SSP, 1, 0, 2, 2)
    board.join(0)
    board.end_step(0)
    assert (board.progress, board.started) == (0, False)
    board.leave(0)
    board.join(1)
    assert not board.started
    board.join(0)
    assert board.started
    board.leave(0)
    board.end_step(1)
    assert (board.progress, board.started) == (1, True)


def test_a_round_needs_a_contribution_even_when_nobody_is_missing():
    board = ModelBoard(BSP, 0, 3, 1, 2)
    board.join(0)
    board.join(1)
    board.leave(0)
    assert (board.progress, board.decision()) == (0, (0, ()))
    assert board.arrive(1, 0)
    assert (board.progress, board.decision()) == (1, (1, ((1, 0),)))


def test_a_late_gradient_is_dropped_and_its_worker_goes_on_with_the_open_round():
    board = ModelBoard(BSP, 0, 1, 1, 2)
    board.join(0)
    board.join(1)
    for _ in range(3):
        assert board.arrive(1, 2)
    assert board.decision() == (3, ((1, 2),))
    assert not board.arrive(0, 1)
    assert (board.clock(0), board.progress) == (3, 3)
    assert board.arrive(0, 1)


def test_a_worker_catches_up_with_what_it_has_read_and_never_goes_back():
    board = ModelBoard(BSP, 0, 1, 2, 3)
    board.join(0)
    board.join(1)
    for _ in range(4):
        board.arrive(1, 1)
    assert [board.catch_up(0, round) for round in (2, 0, 3, 4, 4)] == [2, 2, 3, 4, 4]
    assert board.arrive(0, 1)
    assert board.decision() == (5, ((0, 1),))


@pytest.mark.parametrize("kind", [ASYNC, SSP])
def test_only_rounds_are_caught_up_with_and_only_those_that_have_closed(kind):
    board = ModelBoard(kind, 0, 0, 1, 1)
    board.join(0)
    with pytest.raises(ValueError, match="expected BSP"):
        board.catch_up(0, 0)
    board = ModelBoard(BSP, 0, 0, 1, 1)
    with pytest.raises(ValueError, match="expected live"):
        board.catch_up(0, 0)
    board.join(0)
    for round in (-1, 1):
        with pytest.raises(ValueError, match=f"a round from 0 to 0, got {round}"):
            board.catch_up(0, round)


def test_what_a_worker_gave_before_it_died_counts_and_its_successor_waits_for_the_next_round():
    board = ModelBoard(BSP, 0, 0, 2, 2)
    board.join(0)
    board.join(1)
    board.arrive(1, 5)
    board.evict(1)
    assert board.join(1) == 1
    assert not board.may_go(1)
    with pytest.raises(ValueError, match="not open yet"):
        board.arrive(1, 1)
    board.arrive(0, 3)
    assert board.decision() == (1, ((0, 3), (1, 5)))
    assert board.may_go(1)


def test_a_round_that_waits_for_one_worker_closes_when_that_one_dies():
    board = ModelBoard(BSP, 0, 0, 2, 2)
    board.join(0)
    board.join(1)
    board.arrive(0, 1)
    assert board.progress == 0
    board.evict(1)
    assert board.decision() == (1, ((0, 1),))


@pytest.mark.parametrize("kind", [ASYNC, SSP, BSP])
def test_the_model_refuses_what_a_rank_cannot_do(kind):
    board = ModelBoard(kind, 0, 0, 1, 1)
    work = (lambda rank: board.arrive(rank, 1)) if kind == BSP else board.end_step
    for impossible in (board.leave, board.evict, board.rejoin, work):
        with pytest.raises(ValueError, match="expected"):
            impossible(0)
    for rank in (-1, 1):
        with pytest.raises(ValueError, match="from 0 to 0"):
            board.join(rank)
    board.join(0)
    with pytest.raises(ValueError, match="it is live"):
        board.join(0)

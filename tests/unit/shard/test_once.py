"""What a shard's process remembers of pushes from other nodes, without a process or a node."""

from dataclasses import dataclass

import numpy as np
import pytest

from fastps.errors import OptionError, SessionsExhaustedError, TableFullError, UnavailableError, WaitTimeoutError
from fastps.shard import once
from fastps.transport import message
from fastps.transport.ray import RayCarrier


@dataclass
class Push:
    client: int
    number: int


def operation(client, number):
    return message.Header(message.OPERATION, client, number, 9.0)


class Half:
    """A push that stops half-way the first `times` times, and tells what it is resumed with."""

    def __init__(self, times: int, error=WaitTimeoutError) -> None:
        self.times, self.error, self.tokens = times, error, []

    def __call__(self, token):
        self.tokens.append(token)
        if len(self.tokens) <= self.times:
            error = self.error("stopped")
            error.resume = f"token {len(self.tokens)}"
            raise error
        return (4, 5)


def test_a_push_is_applied_once_and_answers_its_versions_when_it_comes_again():
    seen = once.Once("shard 0 of 1")
    assert seen.applied(Push(7, 1)) is None
    assert seen.run(Push(7, 1), lambda token: (1,)) == (1,)
    assert seen.applied(Push(7, 1)) == (1,)
    assert seen.applied(Push(7, 2)) is None
    assert seen.applied(Push(8, 1)) is None


def test_a_question_that_changes_something_is_answered_once_and_gets_the_same_reply_again():
    seen, made = once.Once("shard 0 of 1"), []

    def make():
        made.append(len(made))
        return str(made)

    assert [seen.reply(Push(7, 1), make) for _ in range(2)] == ["[0]"] * 2
    assert seen.reply(Push(8, 1), make) == "[0, 1]"
    assert seen.reply(Push(7, 2), make) == "[0, 1, 2]"
    for client in range(100, 100 + once.PAYLOADS):
        seen.reply(Push(client, 1), make)
    assert len(made) == 3 + once.PAYLOADS


@pytest.mark.parametrize("error", [WaitTimeoutError, TableFullError])
def test_a_push_that_stopped_half_way_goes_on_with_what_it_has_left(error):
    seen, push = once.Once("shard 0 of 1"), Half(2, error)
    for _ in range(2):
        with pytest.raises(error):
            seen.run(Push(7, 1), push)
        assert seen.applied(Push(7, 1)) is None
    assert seen.run(Push(7, 1), push) == (4, 5)
    assert push.tokens == [None, "token 1", "token 2"]


def test_what_another_push_of_the_same_worker_has_left_is_not_resumed():
    seen, push = once.Once("shard 0 of 1"), Half(0)
    with pytest.raises(WaitTimeoutError):
        seen.run(Push(7, 1), Half(1))
    seen.run(Push(7, 2), push)
    assert push.tokens == [None]


def test_a_push_that_had_to_give_way_is_refused_instead_of_applied_twice():
    seen = once.Once("shard 0 of 1")
    for worker in range(once.STALLED + 2):
        with pytest.raises(WaitTimeoutError):
            seen.run(Push(worker, 5), Half(1))
    for worker in range(2):
        push = Half(0)
        for _ in range(2):
            with pytest.raises(OptionError, match="given up"):
                seen.run(Push(worker, 5), push)
        assert push.tokens == []
        assert seen.run(Push(worker, 6), push) == (4, 5)  # the next one is another
    for worker in range(2, once.STALLED + 2):
        push = Half(0)
        seen.run(Push(worker, 5), push)
        assert push.tokens == ["token 1"]


def test_what_is_remembered_is_bounded_and_what_was_heard_of_last_stays():
    recent = once.Recent(3)
    for worker in range(3):
        assert recent.put(worker, worker) == []
    assert recent.put(0, "again") == []
    assert recent.put(3, 3) == [(1, 1)]
    assert list(recent) == [2, 0, 3]


def test_a_payload_comes_in_parts_of_several_workers_by_turns():
    payloads = {worker: np.arange(2_500_000, dtype=np.uint64).view(np.uint8)[worker:] for worker in (1, 2)}
    payloads = {worker: np.ascontiguousarray(p[: 5_000_000 - worker]) for worker, p in payloads.items()}
    calls = {worker: message.pieces(operation(worker, 1), p, RayCarrier.limits) for worker, p in payloads.items()}
    assert all(len(c) > 1 for c in calls.values())
    seen = once.Once("shard 0 of 1")
    for i in range(max(map(len, calls.values()))):
        for worker, messages in calls.items():
            head, *parts = messages[i]
            whole = seen.payload(message.Header.unpack(head), head, parts, payloads[worker].nbytes)
            assert (whole is None) == (i + 1 < len(messages))
            assert whole is None or np.array_equal(whole, payloads[worker])


def parts_of(push, nbytes=5_000_000):
    messages = message.pieces(
        operation(push.client, push.number), np.full(nbytes, push.number, np.uint8), RayCarrier.limits
    )
    return [(message.Header.unpack(head), head, parts) for head, *parts in messages]


def test_a_gap_and_parts_of_another_push_ask_for_all_of_it_again():
    first, second = parts_of(Push(1, 1)), parts_of(Push(1, 2))
    assert len(first) > 2
    seen = once.Once("shard 0 of 1")
    for order in ([first[0], first[2]], [first[0], second[1]], [second[0], first[0], second[1]]):
        for header, head, parts in order[:-1]:
            assert seen.payload(header, head, parts, 5_000_000) is None
        header, head, parts = order[-1]
        with pytest.raises(UnavailableError, match="send it again"):
            seen.payload(header, head, parts, 5_000_000)
    for header, head, parts in second:
        whole = seen.payload(header, head, parts, 5_000_000)
    assert (whole == 2).all()


def test_after_an_error_that_leaves_nothing_to_resume_a_push_is_not_applied_anew():
    seen, push = once.Once("shard 0 of 1"), Half(0)
    with pytest.raises(WaitTimeoutError):
        seen.run(Push(7, 1), Half(1))

    def fails(token):
        raise MemoryError("no room for keys")

    with pytest.raises(MemoryError):
        seen.run(Push(7, 1), fails)
    with pytest.raises(OptionError, match="given up"):
        seen.run(Push(7, 1), push)
    assert push.tokens == []
    with pytest.raises(MemoryError):  # nothing had begun: it may begin
        seen.run(Push(7, 2), fails)
    assert seen.run(Push(7, 2), push) == (4, 5)


@pytest.mark.parametrize("error", [SessionsExhaustedError, WaitTimeoutError])
def test_a_resumption_that_fails_before_it_begins_leaves_what_there_was_to_resume(error):
    seen, push = once.Once("shard 0 of 1"), Half(0)
    with pytest.raises(WaitTimeoutError):
        seen.run(Push(7, 1), Half(1))

    def fails(token):
        raise error("no session")

    with pytest.raises(error):
        seen.run(Push(7, 1), fails)
    assert seen.run(Push(7, 1), push) == (4, 5)
    assert push.tokens == ["token 1"]


def test_a_push_that_had_not_begun_when_the_table_was_full_may_begin_later():
    seen, push = once.Once("shard 0 of 1"), Half(0)
    with pytest.raises(WaitTimeoutError):
        seen.run(Push(7, 1), Half(1))

    def full(token):
        raise TableFullError("full", "t", 3, 0)

    with pytest.raises(TableFullError):
        seen.run(Push(7, 1), full)
    assert seen.run(Push(7, 1), push) == (4, 5)


def test_a_part_whose_first_one_was_dropped_asks_for_all_of_it_again():
    head, *parts = message.pieces(operation(1, 1), np.zeros(5_000_000, np.uint8), RayCarrier.limits)[1]
    with pytest.raises(UnavailableError, match="send it again"):
        once.Once("shard 0 of 1").payload(message.Header.unpack(head), head, parts, 5_000_000)

"""Pushes that ended in the middle and are resumed, on shards of this process."""

import os

import numpy as np
import pytest

from fastps import Table
from fastps._core import Outcome, shards_of
from fastps.client.arrays import ArraySession
from fastps.client.rows import RowSession
from fastps.client.session import Session
from fastps.errors import (
    ClosedError,
    OptionError,
    RayRequiredError,
    SessionsExhaustedError,
    TableFullError,
    WaitTimeoutError,
)
from fastps.testing.local import LocalServer
from fastps.transport.contract import Operation
from fastps.transport.shm import ShmEndpoint
from tests.support.local_server import Holder

LONG = 30.0  # a guard against hanging
NODE = "0" * 56
N = 9


class Part:
    """An endpoint to some shards, whose operations raise `error` before they begin while that is set."""

    def __init__(self, endpoint) -> None:
        self.endpoint, self.shards, self.error = endpoint, endpoint.shards, None

    def start(self, *arguments):
        if self.error is not None:
            raise self.error
        return self.endpoint.start(*arguments)


@pytest.fixture
def server():
    with LocalServer(np.zeros(N), num_shards=3) as server:
        yield server


def session_of(server):
    return Session(server.spec, NODE, None, lambda value, timeout: value, None)


def in_parts(server, *parts):
    """A session that reaches the shards by endpoints of its own, as if they were on several nodes."""
    session = session_of(server)
    session.endpoints = [Part(ShmEndpoint.of_leaves(server.spec, shards)) for shards in parts]
    for i, shards in enumerate(parts):
        session._endpoint_of_shard[list(shards)] = i
    session.all_here = False
    return session, ArraySession(session), session.endpoints


def timed_out(server, arrays, resume=None):
    """The error of a push that waits in vain for shard 2."""
    with Holder(os.getpid(), server.spec.addresses[2].fd), pytest.raises(WaitTimeoutError) as caught:
        push(arrays, resume, 0.2)
    return caught.value


def push(arrays, resume=None, timeout=LONG):
    arrays.push(np.ones(N), None, timeout, resume, Outcome())


def pulled(arrays):
    return arrays.pull(None, LONG)[0].tolist()


BEFORE = [
    SessionsExhaustedError("every session is taken"), RayRequiredError("no Ray"), MemoryError("a lane"),
    KeyboardInterrupt(), WaitTimeoutError("waited for the session of a process that died"),
]  # fmt: skip


@pytest.mark.parametrize("error", BEFORE, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("parts", [((0, 1, 2),), ((0,), (1, 2)), ((1, 2), (0,))], ids=str)
def test_a_resume_that_fails_before_it_begins_leaves_what_can_be_resumed(server, parts, error):
    _, arrays, endpoints = in_parts(server, *parts)
    first = timed_out(server, arrays)
    assert (first.applied, first.pending) == ((0, 1), (2,))
    last = next(endpoint for endpoint in endpoints if 2 in endpoint.shards)
    resume = first.resume
    for _ in range(2):
        last.error = type(error)(*error.args)
        with pytest.raises(type(error)) as caught:
            push(arrays, resume)
        resume = getattr(caught.value, "resume", None) or resume
    last.error = None
    push(arrays, resume)
    assert pulled(arrays) == [1] * N
    for used in (first.resume, resume):
        with pytest.raises(OptionError, match="used before"):
            push(arrays, used)
    assert pulled(arrays) == [1] * N


def test_a_push_that_found_no_session_on_one_node_is_resumed_there_alone(server):
    _, arrays, endpoints = in_parts(server, (0,), (1, 2))
    endpoints[1].error = SessionsExhaustedError("every session is taken")
    with pytest.raises(SessionsExhaustedError) as caught:
        push(arrays)
    assert "resume=error.resume" in "".join(caught.value.__notes__)
    endpoints[1].error = None
    push(arrays, caught.value.resume)
    assert pulled(arrays) == [1] * N


def test_a_push_of_which_nothing_began_has_nothing_to_resume(server):
    _, arrays, endpoints = in_parts(server, (0,), (1, 2))
    for endpoint in endpoints:
        endpoint.error = SessionsExhaustedError("every session is taken")
    with pytest.raises(SessionsExhaustedError) as caught:
        push(arrays)
    assert caught.value.resume is None


def test_a_server_that_was_closed_leaves_nothing_to_resume(server):
    _, arrays, _ = in_parts(server, (0, 1, 2))
    first = timed_out(server, arrays)
    server.close()
    with pytest.raises(ClosedError) as caught:
        push(arrays, first.resume)
    assert caught.value.resume is None


def test_what_another_node_has_done_is_not_done_again_when_a_later_attempt_is_interrupted(server):
    _, arrays, endpoints = in_parts(server, (0, 1), (2,))
    first = timed_out(server, arrays)
    endpoints[0].error = AssertionError("this part was applied")
    endpoints[1].error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        push(arrays, first.resume)
    endpoints[1].error = None
    push(arrays, first.resume)
    endpoints[0].error = None
    assert pulled(arrays) == [1] * N


def test_only_one_thread_resumes_a_push(server):
    _, arrays, endpoints = in_parts(server, (0, 1, 2))
    first = timed_out(server, arrays)
    again = []

    class Meanwhile(Part):
        def start(self, *arguments):
            with pytest.raises(OptionError, match="used before"):
                push(arrays, first.resume)
            again.append(True)
            return super().start(*arguments)

    real = endpoints[0]
    endpoints[0] = Meanwhile(real.endpoint)
    push(arrays, first.resume)
    assert again == [True]
    endpoints[0] = real
    assert pulled(arrays) == [1] * N


class Consumed(Part):
    """Its operations are interrupted after they began: what they were resumed from is gone."""

    def start(self, operation, timeout, resume, outcome):
        super().start(operation, timeout, resume, outcome)
        raise KeyboardInterrupt


def test_a_resume_whose_attempt_was_interrupted_in_the_middle_is_refused(server):
    _, arrays, endpoints = in_parts(server, (0, 1, 2))
    first = timed_out(server, arrays)
    real = endpoints[0]
    endpoints[0] = Consumed(real.endpoint)
    with pytest.raises(KeyboardInterrupt):
        push(arrays, first.resume)
    endpoints[0] = real
    with pytest.raises(OptionError, match="used already"):
        push(arrays, first.resume)
    assert pulled(arrays) == [1] * N


def test_a_full_table_whose_process_cannot_be_asked_for_room_leaves_what_can_be_resumed():
    """Of two shards, as if on two nodes, one is full, and its process cannot be reached."""
    with LocalServer({"t": Table(1, init=0.0, capacity=64, evict="lru")}, num_shards=2) as server:
        session, _, endpoints = in_parts(server, (0,), (1,))
        for endpoint in endpoints:
            endpoint.ask = endpoint.endpoint.ask
        table = RowSession(session, 0)
        new = np.arange(100_000, dtype=np.uint64)
        here, there = (new[shards_of(new, 2) == shard] for shard in (0, 1))
        with pytest.raises(TableFullError) as full:
            endpoints[1].start(Operation(0, there, [np.ones((len(there), 1), np.float32)]), LONG, None, None)
        for key in there[: full.value.capacity]:
            rows(table, np.array([key]))
        keys = np.concatenate([here[:3], there[-3:]])
        session.process_of = lambda shard: Unreachable()
        with pytest.raises(RayRequiredError) as caught:
            rows(table, keys)
        assert caught.value.resume is not None
        assert table.remove(there[:3], [False], LONG)[0].all()
        rows(table, keys, caught.value.resume)
        found = np.empty((6, 1), np.float32)
        table.pull(keys, found, False, LONG)
        assert found[:, 0].tolist() == [1] * 6


class Unreachable:
    def ask(self, *arguments, **options):
        raise RayRequiredError("no Ray")


def rows(table, keys, resume=None):
    table.push(keys, np.ones((len(keys), 1), np.float32), None, LONG, resume, Outcome())

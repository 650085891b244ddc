"""An endpoint over a carrier, to shards of this process."""

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest

from fastps import Table
from fastps._core import Outcome, shards_of
from fastps.client.rows import RowSession
from fastps.client.session import Session
from fastps.errors import TableFullError, UnavailableError, WaitTimeoutError
from fastps.testing.local import LocalServer
from fastps.transport import message
from fastps.transport.contract import Operation
from fastps.transport.loopback import Loopback
from fastps.transport.remote import RemoteEndpoint

LONG = 30.0  # a guard against hanging


class Carrier(Loopback):
    """A loopback whose calls are watched, and raise `errors` one after the other before they reply."""

    def __init__(self, serve) -> None:
        super().__init__(serve)
        object.__setattr__(self, "errors", [])
        object.__setattr__(self, "calls", weakref.WeakSet())

    def send(self, messages):
        call = Watched(super().send(messages), self.errors)
        self.calls.add(call)
        return call


class Watched:
    def __init__(self, call, errors) -> None:
        self.call, self.errors = call, errors

    def replies(self, timeout):
        if self.errors:
            raise self.errors.pop(0)
        return self.call.replies(timeout)


@pytest.fixture
def server():
    with LocalServer(np.zeros(1000), num_shards=2) as server:
        yield server


@pytest.fixture
def carrier(server):
    return Carrier(server.serve)


@pytest.fixture
def far(server, carrier):
    return RemoteEndpoint(server.spec, (0, 1), carrier)


@pytest.fixture
def uncollected():
    """Without the collector: what is alive is referred to."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Gradients(np.ndarray):
    """Arrays that can be referred to weakly."""


def gradients():
    return np.ones(1000).view(Gradients)


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("outs", [None, [np.empty(1000)]], ids=["push", "push_pull"])
def test_an_operation_that_has_ended_is_freed_at_once_with_its_gradients_and_calls(far, carrier, outs):
    grads = gradients()
    sent, alive = far.start(Operation(grads=[grads], outs=outs), LONG, None, Outcome()), weakref.ref(grads)
    sent.finish()
    whole = weakref.ref(sent)
    del sent, grads
    assert alive() is None
    assert (whole(), len(carrier.calls)) == (None, 0)


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("error", [WaitTimeoutError("late"), UnavailableError("lost"), KeyboardInterrupt()], ids=repr)
def test_an_operation_that_failed_is_freed_at_once_with_its_gradients_and_calls(far, carrier, error):
    carrier.errors.append(type(error)(*error.args))
    sent = far.start(Operation(grads=[gradients()]), 0.0 if isinstance(error, UnavailableError) else LONG)
    with pytest.raises((WaitTimeoutError, KeyboardInterrupt)):
        sent.finish()
    whole = weakref.ref(sent)
    del sent
    assert (whole(), len(carrier.calls)) == (None, 0)


@pytest.mark.usefixtures("uncollected")
def test_a_question_that_was_answered_is_freed_at_once(far, carrier):
    far.ask("counters", None, timeout=LONG)
    far.tell("skipped")
    assert len(carrier.calls) == 0


@pytest.fixture
def tables():
    with LocalServer({"t": Table(1, init=0.0, capacity=8)}, num_shards=2) as server:
        yield server


def pushing(keys):
    return Operation(0, keys, [np.ones((len(keys), 1), np.float32)])


MANY = np.arange(10_000, dtype=np.uint64)


def full(endpoint, resume=None):
    with pytest.raises(TableFullError) as caught:
        endpoint.start(pushing(MANY), LONG, resume, Outcome()).finish()
    return caught.value


def test_a_full_table_has_nothing_to_resume_where_nothing_was_applied(tables):
    far = RemoteEndpoint(tables.spec, (0, 1), Loopback(tables.serve))
    for _ in range(3):
        error = full(far)
        assert (error.resume, error.applied) == (None, ())
    assert far.numbers.take()[1] == 4  # one client is enough


def test_a_full_table_has_a_rest_to_resume_where_a_part_was_applied(tables):
    def serve(head, *parts):
        error, outcome = TableFullError("it is full", "t", 8, 1, (0,)), Outcome()
        outcome.stop((0, 1), (0,), ())
        outcome.tell(error)
        return message.failure(error, "shard 0 of 2")

    far = RemoteEndpoint(tables.spec, (0, 1), Loopback(serve))
    first = full(far)
    again = full(far, first.resume)
    assert first.resume == again.resume
    assert first.resume is not None
    assert far.numbers.take()[0] != first.resume[0]  # which is still in use


def test_a_full_shard_of_another_node_that_makes_no_room_in_time_has_applied_nothing(tables):
    session = Session(tables.spec, None, lambda *_: None, lambda value, timeout: value, None)
    session.endpoints, session.shm = [RemoteEndpoint(tables.spec, (0, 1), Loopback(tables.serve))], None
    table = RowSession(session, 0)
    table.info = replace(table.info, evict="lru")
    session.process_of = lambda shard: Stopped()
    capacity = full(session.endpoints[0]).capacity
    for shard in (0, 1):
        some = MANY[shards_of(MANY, 2) == shard][:capacity]
        session.run(pushing(some), LONG, "push")
    with pytest.raises(WaitTimeoutError, match="it is full") as caught:
        table.push(MANY[-3:], np.ones((3, 1), np.float32), None, LONG, None, Outcome())
    assert (caught.value.applied, caught.value.partial, caught.value.pending) == ((), (), (0, 1))
    assert caught.value.resume is None


class Stopped:
    def ask(self, *arguments, **options):
        raise WaitTimeoutError("no reply")

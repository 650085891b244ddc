"""An endpoint over a carrier, to shards of this process."""

import gc
import weakref

import numpy as np
import pytest

from fastps._core import Outcome
from fastps.errors import UnavailableError, WaitTimeoutError
from fastps.testing.local import LocalServer
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

"""A queue of asynchronous operations, and an operation that holds it up."""

import threading

import pytest

from fastps.client.future import Calls
from tests.support.waiting import GUARD_SECONDS


@pytest.fixture
def queue():
    queue = Calls()
    yield queue
    queue.close()


@pytest.fixture
def gate(queue):
    """Holds the queue up until it is set; by then an operation is under way, whose future is `gate.future`."""
    gate, begun = threading.Event(), threading.Event()

    def wait():
        begun.set()
        assert gate.wait(GUARD_SECONDS)

    gate.future = queue.submit("push_async", wait)
    assert begun.wait(GUARD_SECONDS)
    yield gate
    gate.set()

"""The sessions of a process, shared by its handles, and their ends. The handles are of servers in this process."""

import contextlib
import threading
import weakref

import numpy as np
import pytest

from fastps import Table
from fastps.client import attach
from fastps.client.attach import Attachment, attachments
from fastps.errors import ClosedError
from fastps.testing.local import LocalServer

LONG = 30.0  # a guard against hanging


@pytest.fixture
def server():
    with LocalServer({"w": np.zeros(4), "t": Table(2)}, num_shards=2) as server:
        yield server
    attachments.drop(server.spec.server_id)


def handle(server):
    attachment = Attachment(server.spec)
    attachment.attach()
    return attachment


def close(attachment):
    """What `close` of a handle that does not own the server does."""
    attachment.close()
    attachments.drop(attachment.spec.server_id)


def test_the_close_of_one_handle_leaves_the_session_to_the_others(server):
    one, other = handle(server), handle(server)
    event, log = threading.Event(), []
    one.session.calls.submit("push_async", lambda: event.wait(LONG) and log.append("push"))
    close(one)
    late = handle(server)
    assert late.session is other.session
    other.session.calls.submit("pull_async", lambda: log.append("pull"))
    late.session.calls.submit("pull_async", lambda: log.append("late"))
    event.set()
    other.session.calls.flush(LONG)
    assert log == ["push", "pull", "late"]
    close(other)
    close(late)


def test_the_close_of_the_last_handle_ends_the_session(server):
    one, other = handle(server), handle(server)
    session = one.session
    close(one)
    close(other)
    again = handle(server)
    assert again.session is not session
    close(again)


def test_a_handle_that_was_dropped_without_close_keeps_no_session(server):
    one, other = handle(server), handle(server)
    session = weakref.ref(one.session)
    del other
    close(one)
    assert session() is None


def test_handles_share_a_session_however_many_servers_were_attached_meanwhile(server, monkeypatch):
    monkeypatch.setattr(attach, "KEPT", 1)
    one = handle(server)
    with LocalServer(np.zeros(4)) as another:
        other = handle(another)
        assert handle(server).session is one.session
        session = weakref.ref(one.session)
        close(one)
        close(other)
    assert session() is None


def test_the_end_of_the_server_ends_the_session_whatever_handles_there_are(server):
    one, other = handle(server), handle(server)
    session = other.session
    one.close()
    server.close()
    attachments.drop(server.spec.server_id)
    with pytest.raises(ClosedError):
        other.arrays.pull(None, LONG)
    assert not session.alive()
    with pytest.raises(ClosedError):
        handle(server)


@pytest.mark.parametrize(
    ("name", "ends", "said"),
    [
        ("model", False, "get another one with fastps.get('model'), if its server still lives"),
        (None, False, "use another one of its server, which may still live"),
        ("model", True, "this server was closed, and its parameters are gone; create a new one"),
        (None, True, "this server was closed, and its parameters are gone; create a new one"),
    ],
)
def test_a_closed_handle_says_what_can_be_done_about_it(name, ends, said):
    with LocalServer(np.zeros(3), name=name) as server:
        attachment = handle(server)
        attachment.close(ends)
        attachment.close()  # again: it remains what it is
        with pytest.raises(ClosedError) as caught:
            attachment.attach()
        assert said in str(caught.value)
        assert ("fastps.get(" in str(caught.value)) == (not ends and name is not None)
        attachments.drop(server.spec.server_id)


@pytest.mark.parametrize("verb", [Attachment.attach, lambda handle: handle.session, lambda handle: handle.rows(0)])
def test_a_handle_that_is_closed_while_it_attaches_stays_closed(server, verb, monkeypatch):
    attachment, real, closing = Attachment(server.spec), attachments.session, []

    def session(spec):
        thread = threading.Thread(target=attachment.close)
        thread.start()
        thread.join(0.1)
        closing.append(thread)
        return real(spec)

    monkeypatch.setattr(attachments, "session", session)
    with contextlib.suppress(ClosedError):
        verb(attachment)
    closing[0].join(LONG)
    assert attachment.arrays is None
    with pytest.raises(ClosedError):
        verb(attachment)

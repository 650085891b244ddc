"""What a handle weighs on its way to tasks and actors, and how its owner's ends."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest

from fastps.errors import ClosedError
from fastps.rules import Adam
from fastps.server import creations, find, handle, launch
from fastps.server.find import servers
from fastps.server.handle import handle_of
from fastps.testing.local import LocalServer


def pickled(num_shards):
    with LocalServer(np.zeros(10_000, np.float32), rule=Adam(1e-3), num_shards=num_shards) as server:
        return len(pickle.dumps(handle_of(server.spec)))


def test_a_handle_holds_the_kernels_of_a_node_once():
    one, eight = pickled(1), pickled(8)
    assert eight < 16 << 10
    assert eight - one < 7 * 400


class Owned:
    """What ends with a server whose first end is interrupted."""

    connection = ("node", "job")

    def __init__(self):
        self.ends = 0

    def end(self, timeout):
        self.ends += 1
        if self.ends == 1:
            raise KeyboardInterrupt


def test_a_close_that_is_interrupted_can_be_called_again_until_the_server_has_ended(monkeypatch):
    created = creations.Creations()
    monkeypatch.setattr(creations.cluster, "connection", lambda: Owned.connection)
    monkeypatch.setattr(handle, "creations", created)
    monkeypatch.setattr(find, "creations", created)
    with LocalServer(np.zeros(3)) as server:
        owned = Owned()
        ps = handle_of(server.spec, owned)
        created.add(server.spec, owned, ps)
        with pytest.raises(KeyboardInterrupt):
            ps.close()
        assert servers() == [ps]
        ps.close()
        ps.close()
        with pytest.raises(ClosedError, match=r"this server was closed, .* create a new one"):
            ps.reader().pull()
    assert owned.ends == 2
    assert servers() == []


def test_a_server_that_no_handle_owns_yet_is_ended_where_a_signal_handler_raises(monkeypatch):
    def interrupted(spec, owned, handle):
        raise KeyboardInterrupt

    killed = []
    with LocalServer(np.zeros(3)) as server:
        owned = SimpleNamespace(kill=lambda: killed.append(True))
        session = SimpleNamespace(spec=server.spec, shm=None, all_here=False)
        monkeypatch.setattr(
            launch, "launch", lambda *_: SimpleNamespace(spec=server.spec, owned=owned, session=session)
        )
        monkeypatch.setattr(handle.creations, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            handle.ParameterServer(3)
    assert killed == [True]

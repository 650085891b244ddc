"""Sessions of arrays on shards of this process."""

import numpy as np
import pytest

from fastps import Table
from fastps._core import Outcome
from fastps.client.arrays import ArraySession
from fastps.client.session import Session
from fastps.testing.local import LocalServer

LONG = 30.0  # a guard against hanging
NODE = "0" * 56


def session_of(server):
    return Session(server.spec, NODE, None, lambda value, timeout: value, None)


@pytest.mark.parametrize("options", [{}, {"nonfinite": "skip"}, {"clip_norm": 1.0}], ids=str)
def test_a_server_of_tables_alone_is_pulled_and_pushed_as_an_empty_mapping(options):
    with LocalServer({"t": Table(4)}, **options) as server:
        arrays, out = ArraySession(session_of(server)), {}
        assert arrays.pull(None, LONG)[0] == {}
        assert arrays.pull(out, LONG)[0] is out
        arrays.push({}, None, LONG, None, Outcome())
        assert arrays.push_pull({}, None, None, LONG, None, Outcome())[0] == {}


def test_operations_of_a_server_without_a_limit_inherit_that():
    with LocalServer(np.zeros(2), timeout=np.inf) as server:
        arrays = ArraySession(session_of(server))
        arrays.push(np.ones(2), None, None, None, Outcome())
        assert arrays.session.limit(None) == np.inf
        assert arrays.push_pull(np.ones(2), None, None, None, None, Outcome())[0].tolist() == [2, 2]
        assert arrays.steps(None) == 2


def test_an_empty_mapping_does_not_stand_for_arrays():
    with LocalServer({"w": np.zeros(2)}, nonfinite="skip") as server:
        arrays = ArraySession(session_of(server))
        with pytest.raises(KeyError):
            arrays.pull({}, LONG)

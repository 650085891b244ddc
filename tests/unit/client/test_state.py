"""How a state is loaded: by as few operations as keep arrays together of which everything is there."""

import numpy as np
import pytest

from fastps import SGD, Adam, OptionError
from fastps.client.arrays import ArraySession
from fastps.client.session import Session
from fastps.client.state import load_state, state_of
from fastps.testing.local import LocalServer

LONG = 30.0  # a guard against hanging
NODE = "0" * 56
MODEL = {"a": np.zeros(40), "b": np.zeros(3, np.float32), "c": np.zeros(2), "n": np.arange(2)}


@pytest.fixture
def arrays():
    rule = {"a": Adam(0.1), "b": SGD(0.1, momentum=0.9), "*": SGD(0.1)}
    with LocalServer(MODEL, rule=rule, num_shards=3) as server:
        yield ArraySession(Session(server.spec, NODE, None, lambda value, timeout: value, None))


@pytest.fixture
def operations(arrays, monkeypatch):
    """The operations that set something, as they are run."""
    ran, run = [], arrays.session.run

    def recorded(operation, *more):
        ran.append(operation)
        return run(operation, *more)

    monkeypatch.setattr(arrays.session, "run", recorded)
    return ran


def test_a_whole_state_is_set_by_one_operation(arrays, operations):
    state = state_of(arrays, LONG)
    operations.clear()
    load_state(arrays, {key: value + 1 for key, value in state.items()}, True, LONG)
    assert [operation.leaves for operation in operations] == [None]
    assert all(np.array_equal(value, state[key] + 1) for key, value in state_of(arrays, LONG).items())


def test_the_state_of_a_model_is_set_by_one_operation(arrays, operations):
    load_state(arrays, {key: value + 1 for key, value in MODEL.items()}, False, LONG)
    assert [(operation.leaves, operation.steps) for operation in operations] == [(None, None)]


def test_arrays_of_which_everything_is_there_are_set_before_those_of_which_a_part_is(arrays, operations):
    state = state_of(arrays, LONG)
    operations.clear()
    del state["fastps:slots/m/a"]
    load_state(arrays, state, False, LONG)
    assert [operation.leaves for operation in operations] == [(1, 2, 3), (0,)]
    operations.clear()
    load_state(arrays, {"n": state["n"], "fastps:slots/velocity/b": state["b"]}, False, LONG)
    assert [operation.leaves for operation in operations] == [(1,), (3,)]


def test_nothing_is_set_when_the_last_value_does_not_fit(arrays, operations):
    state = state_of(arrays, LONG)
    operations.clear()
    *_, last = state
    with pytest.raises(OptionError, match="finite"):
        load_state(arrays, state | {last: np.inf}, True, LONG)
    assert operations == []

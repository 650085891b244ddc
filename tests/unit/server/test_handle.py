"""What a handle weighs on its way to tasks and actors."""

import pickle

import numpy as np

from fastps.rules import Adam
from fastps.server.handle import handle_of
from fastps.testing.local import LocalServer


def pickled(num_shards):
    with LocalServer(np.zeros(10_000, np.float32), rule=Adam(1e-3), num_shards=num_shards) as server:
        return len(pickle.dumps(handle_of(server.spec)))


def test_a_handle_holds_the_kernels_of_a_node_once():
    one, eight = pickled(1), pickled(8)
    assert eight < 16 << 10
    assert eight - one < 7 * 400

"""An endpoint to shards of this process."""

import gc

import numpy as np
import pytest

from fastps import Table
from fastps.testing.local import LocalServer
from fastps.transport.contract import Operation
from tests.support.leftovers import own_arenas

LONG = 30.0  # a guard against hanging


@pytest.mark.parametrize("params", [{"w": np.zeros(10)}, {"w": np.zeros(10), "t": Table(4), "u": Table(4, admit=2)}])
def test_an_endpoint_that_is_dropped_unmaps_its_arenas_without_the_collector(params):
    with LocalServer(params, num_shards=2) as server:
        gc.collect()
        gc.disable()
        try:
            before = len(own_arenas())
            endpoint = server.endpoint()
            assert len(own_arenas()) > before
            endpoint.start(Operation(outs=[np.empty(10)]), LONG)
            for table in range(len(server.spec.tables)):
                keys = np.arange(5, dtype=np.uint64)
                endpoint.start(Operation(table, keys, outs=[np.empty((5, server.spec.tables[table].dim), "f4")]), LONG)
                endpoint.ask("counters", table, timeout=LONG)
            endpoint.close()
            del endpoint
            assert len(own_arenas()) == before
        finally:
            gc.enable()

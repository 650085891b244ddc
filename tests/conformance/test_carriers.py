"""The conformance suite of carriers, over each that there is."""

from contextlib import contextmanager

import pytest
import ray

from fastps.cluster import ray as cluster
from fastps.testing.conformance import CarrierSuite
from fastps.transport.carriers import CARRIERS
from fastps.transport.loopback import Loopback
from fastps.transport.ray import RayCarrier, reply


class TestLoopback(CarrierSuite):
    waits = False

    @contextmanager
    def reach(self, make):
        other = make()
        yield Loopback(other.serve)
        if hasattr(other, "close"):
            other.close()


class TestRay(CarrierSuite):
    @pytest.fixture(autouse=True)
    def cluster(self, ray_local):
        pass

    @contextmanager
    def reach(self, make):
        @ray.remote(num_cpus=0)
        class Host:
            def __init__(self, make):
                self._other = make()

            def serve(self, head, *parts):
                return reply(self._other.serve(head, *parts))

        name = f"a host of {make.__name__}"
        host = Host.options(name=name, namespace=cluster.NAMESPACE).remote(make)
        yield RayCarrier(name, cluster.id_of(host), "a host")
        ray.kill(host)


def test_every_carrier_has_a_suite():
    tested = {suite.__name__.removeprefix("Test").lower() for suite in CarrierSuite.__subclasses__()}
    assert set(CARRIERS) <= tested

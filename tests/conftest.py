"""What all tests share: Ray clusters, the seed of the run, and the check that nothing is left behind."""

from __future__ import annotations

import gc
import time
import zlib

import hypothesis
import numpy as np
import pytest

from tests.support.extent import LONG
from tests.support.leftovers import own_arenas, shm_entries, started_here
from tests.support.rays import driver, shared_ray
from tests.support.run import SEED, WORKER, remove_folder
from tests.support.waiting import wait_until

hypothesis.settings.register_profile("fastps", deadline=None, database=None, print_blob=True)
hypothesis.settings.load_profile("fastps")


def pytest_configure(config):
    if hypothesis.core.global_force_seed is None:
        hypothesis.core.global_force_seed = SEED


def pytest_report_header(config):
    form = "all of the long tests" if LONG else "the short form of long tests (FASTPS_TEST_LONG=1 for all of them)"
    return f"fastps seed: {SEED} (again with FASTPS_TEST_SEED={SEED}); {form}"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from tests.support.scheduling import ByModule  # only where xdist is installed

    return ByModule(config, log)


@pytest.hookimpl(tryfirst=True)  # before xdist tells that this worker has collected
def pytest_collection_finish(session):
    if WORKER:
        from tests.support.scheduling import write_needs

        write_needs(WORKER, session.items)


def pytest_unconfigure(config):
    remove_folder()


@pytest.fixture
def rng(request):
    """Random numbers that depend on the run's seed and the test's name alone."""
    return np.random.default_rng([SEED, zlib.crc32(request.node.nodeid.encode())])


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item):
    """Lets go of the test's arguments before its module is torn down: pytest itself does it only after that."""
    getattr(item, "funcargs", {}).clear()


@pytest.fixture(scope="module", autouse=True)
def leaves_nothing_behind(request):
    """After each module: no process, no shared memory, no arena in this process."""
    failed_before = request.session.testsfailed
    yield
    gc.collect()
    deadline = time.monotonic() + 120
    while (left := started_here()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == {}, "processes that this module's tests started still run"
    if request.session.testsfailed == failed_before:  # the traceback of a failure keeps what its frames refer to
        while (left := own_arenas()) and time.monotonic() < deadline:  # what a thread that ends still refers to
            gc.collect()
            time.sleep(0.05)
        assert left == [], "arenas are still open in this process"
    assert shm_entries() == [], "shared memory with a name was left behind"


@pytest.fixture(scope="session")
def nothing_left_in_the_end():
    """After the last Ray that modules have shared: no process."""
    yield
    wait_until(lambda: not started_here(shared=True), 60, "the end of the processes of Ray")


@pytest.fixture(scope="session")
def one_node(nothing_left_in_the_end):
    with shared_ray({"num_cpus": 4}) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def three_nodes(nothing_left_in_the_end):
    with shared_ray(*({"num_cpus": 2, "resources": {f"node{number}": 100}} for number in range(3))) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def ray_local(one_node):
    """One raylet with four CPUs."""
    with driver(one_node) as ray:
        yield ray


@pytest.fixture(scope="module")
def cluster3(three_nodes):
    """Three raylets on this machine: three nodes to Ray, named by the resources node0, node1 and node2. The driver is
    on node0."""
    with driver(three_nodes) as ray:
        three_nodes.ids = [
            next(node["NodeID"] for node in ray.nodes() if f"node{number}" in node["Resources"]) for number in range(3)
        ]
        yield three_nodes

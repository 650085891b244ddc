"""What all tests share: Ray clusters, the seed of the run, and the check that nothing is left behind."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import os
import secrets
import shutil
import tempfile
import time
import zlib
from pathlib import Path

import hypothesis
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
SEED = int(os.environ.get("FASTPS_TEST_SEED") or secrets.randbits(32))
# Programs that tests start may import this module as well: the run is then the one that has started them.
STARTED = "FASTPS_TEST_RUN" in os.environ
RUN = os.environ.get("FASTPS_TEST_RUN") or f"fastps-tests-{os.getpid()}-{secrets.token_hex(4)}"
CACHE = os.environ["FASTPS_CACHE_DIR"] if STARTED else tempfile.mkdtemp(prefix="fastps-test-kernels-")

# Every process that this run starts, and those that they start, inherit these.
os.environ |= {
    "FASTPS_TEST_RUN": RUN,
    "FASTPS_CACHE_DIR": CACHE,
    "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_DEDUP_LOGS": "0",
}
RAYS_PROGRAMS = str(Path(importlib.util.find_spec("ray").origin).parent) + os.sep
SHARED = "FASTPS_TEST_SHARED_RAY"  # in the environment of the processes of Rays that modules share

hypothesis.settings.register_profile("fastps", deadline=None, database=None, print_blob=True)
hypothesis.settings.load_profile("fastps")


def pytest_configure(config):
    if hypothesis.core.global_force_seed is None:
        hypothesis.core.global_force_seed = SEED


def pytest_report_header(config):
    return f"fastps seed: {SEED} (again with FASTPS_TEST_SEED={SEED})"


def pytest_unconfigure(config):
    if not STARTED:
        shutil.rmtree(CACHE, ignore_errors=True)


@pytest.fixture
def rng(request):
    """Random numbers that depend on the run's seed and the test's name alone."""
    return np.random.default_rng([SEED, zlib.crc32(request.node.nodeid.encode())])


def started_here(shared: bool = False) -> dict[int, str]:
    """The live processes of this run besides this one; without Ray's own of a Ray that modules share, and without idle
    workers and agents of any, unless they are asked for."""
    found = {}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            environment = (directory / "environ").read_bytes()
            if int(directory.name) != os.getpid() and RUN.encode() in environment:
                state = (directory / "stat").read_text().rpartition(")")[2].split()[0]
                command = (directory / "cmdline").read_text().replace("\0", " ")
                # A process that gives itself a title may write it over the end of what it has inherited.
                mark = SHARED.encode() in environment or command.startswith("ray::")
                if state != "Z" and (shared or not mark or not is_rays_own(command)):
                    found[int(directory.name)] = command[:120]
        except OSError:
            continue
    return found


def is_agent(command: str) -> bool:
    """Ray's own agents wait for a dead cluster to come back, a minute long."""
    return command.startswith(("ray::DashboardAgent", "ray::RuntimeEnvAgent"))


def is_rays_own(command: str) -> bool:
    """Whether a process runs no actor, no task and nothing that these have started."""
    return command.startswith("ray::IDLE") or is_agent(command) or RAYS_PROGRAMS in command


def own_arenas() -> list[str]:
    """File descriptors and mappings of arenas in this process."""
    links = []
    for name in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            continue
    maps = Path("/proc/self/maps").read_text().splitlines()
    return [link for link in links if "memfd:fastps" in link] + [line for line in maps if "memfd:fastps" in line]


def shm_entries() -> list[str]:
    return [name for name in os.listdir("/dev/shm") if "fastps" in name.lower()]


def wait_until(condition, seconds, what):
    """Waits for `condition()` to be true; a guard against hanging, not a limit on speed."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)


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
    deadline = time.monotonic() + 30
    while started_here() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert started_here() == {}, "processes that this module's tests started still run"
    if request.session.testsfailed == failed_before:  # the traceback of a failure keeps what its frames refer to
        assert own_arenas() == [], "arenas are still open in this process"
    assert shm_entries() == [], "shared memory with a name was left behind"


@contextlib.contextmanager
def shared_ray(*nodes):
    """Raylets on this machine, nodes to Ray, for the modules of a run: each module is a driver of its own."""
    from ray.cluster_utils import Cluster

    args = {"include_dashboard": False, "object_store_memory": 200 << 20}
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(SHARED, "1")
        cluster = Cluster(initialize_head=True, head_node_args={**args, **nodes[0]})
        for node in nodes[1:]:
            cluster.add_node(**args, **node)
        cluster.wait_for_nodes()
    yield cluster
    cluster.shutdown()


@contextlib.contextmanager
def driver(cluster):
    """This process as a driver of a shared Ray; what it has started there ends with it."""
    import ray

    ray.init(address=cluster.address, log_to_driver=False)
    try:
        yield ray
    finally:
        ray.shutdown()


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

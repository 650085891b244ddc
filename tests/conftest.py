"""What all tests share: Ray clusters, the seed of the run, and the check that nothing is left behind."""

from __future__ import annotations

import gc
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
RUN = f"fastps-tests-{os.getpid()}-{secrets.token_hex(4)}"
CACHE = tempfile.mkdtemp(prefix="fastps-test-kernels-")

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

hypothesis.settings.register_profile("fastps", deadline=None, database=None, print_blob=True)
hypothesis.settings.load_profile("fastps")


def pytest_configure(config):
    if hypothesis.core.global_force_seed is None:
        hypothesis.core.global_force_seed = SEED


def pytest_report_header(config):
    return f"fastps seed: {SEED} (again with FASTPS_TEST_SEED={SEED})"


def pytest_unconfigure(config):
    shutil.rmtree(CACHE, ignore_errors=True)


@pytest.fixture
def rng(request):
    """Random numbers that depend on the run's seed and the test's name alone."""
    return np.random.default_rng([SEED, zlib.crc32(request.node.nodeid.encode())])


def started_here() -> dict[int, str]:
    """The live processes of this run besides this one."""
    found = {}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if int(directory.name) != os.getpid() and RUN.encode() in (directory / "environ").read_bytes():
                state = (directory / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z":
                    found[int(directory.name)] = (directory / "cmdline").read_text().replace("\0", " ")[:120]
        except OSError:
            continue
    return found


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


@pytest.fixture(scope="module")
def ray_local():
    """One raylet with four CPUs."""
    import ray

    ray.init("local", num_cpus=4, include_dashboard=False, object_store_memory=200 << 20, log_to_driver=False)
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def cluster3():
    """Three raylets on this machine: three nodes to Ray, named by the resources node0, node1 and node2. The driver is
    on node0."""
    import ray
    from ray.cluster_utils import Cluster

    args = {"num_cpus": 2, "object_store_memory": 200 << 20}
    cluster = Cluster(
        initialize_head=True, head_node_args={**args, "resources": {"node0": 100}, "include_dashboard": False}
    )
    for number in (1, 2):
        cluster.add_node(**args, resources={f"node{number}": 100})
    ray.init(address=cluster.address, log_to_driver=False)
    cluster.wait_for_nodes()
    cluster.ids = [
        next(node["NodeID"] for node in ray.nodes() if f"node{number}" in node["Resources"]) for number in range(3)
    ]
    yield cluster
    ray.shutdown()
    cluster.shutdown()

"""Rays of this machine: raylets that are nodes to Ray, shared by the modules of a run, each a driver of its own."""

from __future__ import annotations

import contextlib

import psutil
import pytest

from tests.support.leftovers import SHARED
from tests.support.run import RAY_FOLDER

STARTS = 4  # Ray gives up after half a minute, which a busy machine can take


def started(nodes):
    from ray.cluster_utils import Cluster

    args = {"include_dashboard": False, "include_log_monitor": False, "object_store_memory": 200 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**args, **nodes[0], "no_monitor": True})
    for node in nodes[1:]:
        cluster.add_node(**args, **node)
    cluster.wait_for_nodes()
    return cluster


@contextlib.contextmanager
def shared_ray(*nodes):
    """Raylets on this machine, nodes to Ray, for the modules of a run: each module is a driver of its own."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(SHARED, "1")
        for patience in range(STARTS, 0, -1):
            before = set(psutil.Process().children(recursive=True))
            try:
                cluster = started(nodes)
                break
            except Exception as error:
                if "during startup" not in str(error) or patience == 1:
                    raise
                for process in set(psutil.Process().children(recursive=True)) - before:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
    # Programs that tests start would join it, without having been told to.
    (RAY_FOLDER / "ray" / "ray_current_cluster").unlink()
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

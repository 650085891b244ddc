"""Ray for a benchmark: one of its own, or a cluster of several raylets on this machine."""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fastps.cluster.program import own_ray


def quiet(text: str) -> AbstractContextManager[None]:
    """Shows nothing of waiting."""
    return contextlib.nullcontext()


def local_ray() -> AbstractContextManager[None]:
    """One node, for the duration of the block."""
    return own_ray(quiet, quiet, "local")


@contextmanager
def local_raylets(**first: Any) -> Iterator[Cluster]:
    """A cluster to which this process is connected; more raylets join it with `add_raylets`. `first` is what the first
    one has."""
    with started(1, **first) as cluster, own_ray(quiet, quiet, cluster.address):
        yield cluster


@contextmanager
def started(count: int, **each: Any) -> Iterator[Cluster]:
    """Raylets on this machine; `each` is what each of them has."""
    logging.getLogger("ray").setLevel(logging.ERROR)  # it reports other clusters
    cluster = Cluster()
    try:
        add_raylets(cluster, count, **each)
        yield cluster
    finally:
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
        logging.disable(logging.WARNING)  # on how its processes end
        cluster.shutdown()
        logging.disable(logging.NOTSET)
        signal.signal(signal.SIGINT, previous)


def add_raylets(cluster: Cluster, count: int, **each: Any) -> None:
    for _ in range(count):
        cluster.add_node(include_dashboard=False, **each)
    cluster.wait_for_nodes()


def this_node() -> str:
    """Ray's id of it."""
    return str(ray.get_runtime_context().get_node_id())


def live_nodes() -> list[dict[str, Any]]:
    """As Ray describes them, this process's first, the others by address and id."""
    here = this_node()
    found = [node for node in ray.nodes() if node["Alive"]]
    return sorted(found, key=lambda node: (node["NodeID"] != here, node["NodeManagerAddress"], node["NodeID"]))


def on(node: str) -> dict[str, Any]:
    """Options of an actor or a task that runs on this node and no other."""
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}

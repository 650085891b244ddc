"""The Ray that a sweep runs on: started here, several raylets on this machine, or a cluster that is there."""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import ray

from bench.sweep.placement import Node
from fastps.cluster.program import own_ray

Waiting = Callable[[str], AbstractContextManager[object]]


@contextmanager
def cluster(
    waiting: Waiting, say: Callable[[str], object], address: str | None, raylets: int, needs: Sequence[str] = ()
) -> Iterator[list[Node]]:
    """Ray for the duration of the block; its nodes, this process's first.

    Parameters
    ----------
    waiting : shows what is waited for
    say : is told which cluster was joined, where one was
    address : of a cluster; None: what RAY_ADDRESS says, otherwise one that is started here
    raylets : how many to start on this machine as the nodes of a cluster; 0: none
    needs : modules that all nodes of a cluster which is joined must have
    """
    with contextlib.ExitStack() as stack:
        if raylets:
            with waiting(f"Starting {raylets} raylets ..."):
                address = stack.enter_context(local_cluster(raylets))
        stack.enter_context(own_ray(waiting, say, address, needs))
        yield nodes()


@contextmanager
def local_cluster(raylets: int) -> Iterator[str]:
    """The address of a cluster whose nodes are on this machine."""
    from ray.cluster_utils import Cluster

    logging.getLogger("ray").setLevel(logging.ERROR)  # it tells of other clusters
    started = Cluster()
    try:
        for _ in range(raylets):
            started.add_node(include_dashboard=False, object_store_memory=_store_bytes(raylets))
        started.wait_for_nodes()
        yield started.address
    finally:
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
        logging.disable(logging.WARNING)  # on how its processes end
        started.shutdown()
        logging.disable(logging.NOTSET)
        signal.signal(signal.SIGINT, previous)


def _store_bytes(raylets: int) -> int:
    from fastps.machine.facts import facts

    memory = facts(steal_seconds=0)["memory"]
    room = min(memory["total"] or 2**33, memory["shm_size"] or 2**33)
    return max(80 << 20, int(0.3 * room / raylets))


def nodes() -> list[Node]:
    """The live nodes, this process's first, the others by address and id."""
    here = ray.get_runtime_context().get_node_id()
    found = [
        Node(node["NodeID"], node["NodeManagerAddress"], node["Resources"].get("memory", 0.0))
        for node in ray.nodes()
        if node["Alive"]
    ]
    return sorted(found, key=lambda node: (node.id != here, node.host, node.id))

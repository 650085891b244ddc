"""The Ray that a sweep runs on: started here, several raylets on this machine, or a cluster that is there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from bench.harness.raylets import live_nodes, started
from bench.sweep.placement import Node
from fastps.cluster.program import own_ray
from fastps.machine.facts import facts

Waiting = Callable[[str], AbstractContextManager[object]]


@contextmanager
def cluster(
    waiting: Waiting, say: Callable[[str], object], address: str | None, raylets: int, needs: Sequence[str] = ()
) -> Iterator[list[Node]]:
    """Ray for the duration of the block; its nodes, this process's first.

    Parameters
    ----------
    waiting : shows what is waited for
    say : receives a line on the cluster that was joined, if one was
    address : of a cluster; None: what RAY_ADDRESS says, otherwise one that is started here
    raylets : how many to start on this machine as the nodes of a cluster; 0: none
    needs : modules that all nodes of a cluster which is joined must have
    """
    with contextlib.ExitStack() as stack:
        if raylets:
            with waiting(f"Starting {raylets} raylets ..."):
                address = stack.enter_context(started(raylets, object_store_memory=_store_bytes(raylets))).address
        stack.enter_context(own_ray(waiting, say, address, needs))
        yield nodes()


def _store_bytes(raylets: int) -> int:
    memory = facts(steal_seconds=0)["memory"]
    room = min(memory["total"] or 2**33, memory["shm_size"] or 2**33)
    return max(80 << 20, int(0.3 * room / raylets))


def nodes() -> list[Node]:
    """The live nodes, this process's first, the others by address and id."""
    return [
        Node(node["NodeID"], node["NodeManagerAddress"], node["Resources"].get("memory", 0.0)) for node in live_nodes()
    ]

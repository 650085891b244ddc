"""Ray for the duration of a program: started here, or a cluster that is named."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fastps.cluster.address import require_reachable
from fastps.cluster.ray import init
from fastps.errors import OptionError, PlacementError

# Read by the processes that Ray starts. Ray would run workers at nice 15, after everything else on the machine; and a
# small matrix product on several threads waits longer than it computes.
ENVIRONMENT = {"RAY_worker_niceness": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
CHECK_SECONDS = 60.0


@contextmanager
def own_ray(
    waiting: Callable[[str], AbstractContextManager[object]],
    say: Callable[[str], object],
    address: str | None,
    needs: Sequence[str] = (),
) -> Iterator[None]:
    """Ray for the duration of the block. If this process is already connected, that is used and left running.

    Parameters
    ----------
    waiting : shows what is waited for, for the duration of its block
    say : is told which cluster was joined, if any
    address : of a cluster; None: that of RAY_ADDRESS, otherwise one is started here and ends with the block
    needs : modules that every node of a joined cluster must be able to import

    Raises
    ------
    OptionError
        No cluster at the address. (An ``address`` of "auto" without a cluster here raises Ray's ConnectionError.)
    PlacementError
        A node lacks a module: which node, and which module.
    """
    if ray.is_initialized():
        yield
        return
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        # Not any cluster that happens to run here: its workers may have a higher nice value, and others may use it.
        where = address or os.environ.get("RAY_ADDRESS") or "local"
        if where not in ("local", "auto") and "://" not in where:
            _require_cluster(where, "--address" if address else "RAY_ADDRESS")
        what = "Starting Ray ..." if where == "local" else "Joining the Ray cluster ..."
        with waiting(what), _interrupted_afterwards():
            init(address=where, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        if where != "local":
            say(_joined("--address" if address else "RAY_ADDRESS"))
            with waiting("Asking its nodes what they have ..."):
                require_modules(needs)
        yield
    finally:
        # A second Ctrl-C must not leave a part of Ray running.
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
        ray.shutdown()
        signal.signal(signal.SIGINT, previous)


def _require_cluster(address: str, source: str) -> None:
    try:
        require_reachable(address)
    except ValueError as error:
        raise OptionError(f"{source}: {error}") from None


def _alive() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _joined(source: str) -> str:
    nodes = _alive()
    hosts = len({node["NodeManagerAddress"] for node in nodes})
    return (
        f"Joined the Ray cluster at {ray.get_runtime_context().gcs_address} ({source}): "
        f"{len(nodes)} node{'s' * (len(nodes) > 1)} on {hosts} machine{'s' * (hosts > 1)}; others may be using it."
    )


def require_modules(modules: Sequence[str]) -> None:
    """Raises PlacementError, with the node and the reason, when a node of the joined cluster cannot import all of
    `modules`. Cost: the start of a process on each node."""

    def problem() -> str | None:  # nested functions are pickled by value: a node may lack this package
        import importlib

        for module in modules:
            try:
                importlib.import_module(module)
            except ImportError as error:
                return f"cannot import {module} ({error})"
        return None

    if not modules:
        return
    asked = {
        ray.remote(num_cpus=0)(problem)
        .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
        .remote(): node
        for node in _alive()
    }
    ray.wait(list(asked), num_returns=len(asked), timeout=CHECK_SECONDS)
    found = [(node, _result(ref)) for ref, node in asked.items()]
    problems = [f"node {node['NodeID'][:8]} at {node['NodeManagerAddress']} {text}" for node, text in found if text]
    if problems:
        raise PlacementError(
            f"cluster: {'; '.join(problems)}; install it there, in the Python that runs Ray, or name another cluster"
        )


def _result(ref: Any) -> str | None:
    try:
        result: str | None = ray.get(ref, timeout=0)
    except ray.exceptions.GetTimeoutError:
        return f"has not started a process within {CHECK_SECONDS:g} s"
    except ray.exceptions.RayError as error:
        return f"cannot run a task ({str(error).strip().splitlines()[-1]})"
    return result


@contextmanager
def _interrupted_afterwards() -> Iterator[None]:
    """A first Ctrl-C is raised at the end of the block, a second one at once.

    Ray's start forks, and Python drops exceptions in the callbacks after a fork: the interrupt would be lost. One in
    the middle of its native start can crash the process.
    """
    caught: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        if len(caught) > 1:
            raise KeyboardInterrupt

    previous = signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if caught:
            raise KeyboardInterrupt

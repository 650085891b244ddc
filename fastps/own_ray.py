"""Ray for the time of a program: started here, or the one that is there."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

import ray

# Read by the processes that Ray starts. Ray would run workers at nice 15, behind everything else on the machine; and a
# matrix product of this size on several threads waits longer than it computes.
ENVIRONMENT = {"RAY_worker_niceness": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@contextmanager
def own_ray(waiting: Callable[[str], AbstractContextManager[object]], address: str | None) -> Iterator[None]:
    """Ray for the duration of the block. One that runs in this process already is used and left alone.

    Parameters
    ----------
    waiting : shows what is waited for, for the duration of its block
    address : of a cluster; None: what RAY_ADDRESS says, otherwise one that is started here and ends with the block
    """
    if ray.is_initialized():
        yield
        return
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        # Not whatever cluster runs here: its workers may be nicer, and others may use it.
        where = address or os.environ.get("RAY_ADDRESS", "local")
        with waiting("Starting Ray ..."), _interrupted_afterwards():
            ray.init(address=where, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        yield
    finally:
        # Another Ctrl-C must not leave half of Ray behind.
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
        ray.shutdown()
        signal.signal(signal.SIGINT, previous)


@contextmanager
def _interrupted_afterwards() -> Iterator[None]:
    """A first Ctrl-C is raised at the end of the block, a second one at once.

    Ray's start forks, and Python drops what is raised in the callbacks after a fork: the interrupt would be lost. One
    in the middle of its native start can end the process with a crash.
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

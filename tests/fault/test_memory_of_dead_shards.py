"""The memory of a shard whose process was killed: whoever closes the server gives it back, though others map it."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import ray

import fastps
from tests.support import workers
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("ray_local")


def backed(pid, fd):
    """The bytes of memory behind a file descriptor of a process."""
    return os.stat(f"/proc/{pid}/fd/{fd}").st_blocks * 512


def test_the_memory_of_a_killed_shard_is_given_back_when_the_server_is_closed():
    n = 1 << 21
    ps = fastps.ParameterServer(np.zeros(n), num_shards=2)
    other = workers.Worker.remote(ps)
    ray.get(other.push.remote(np.ones(n)))  # it maps the arenas, and keeps them when it is idle
    pid = ray.get(other.pid.remote())
    address = ps.attachment.spec.addresses[1]
    mine = [fd for fd in os.listdir(f"/proc/{pid}/fd") if "fastps" in link(pid, fd)]
    assert len(mine) == 2
    assert min(backed(pid, fd) for fd in mine) > 8 * n // 2
    os.kill(address.pid, signal.SIGKILL)
    wait_until(lambda: not os.path.exists(f"/proc/{address.pid}/fd/0"), 30, "the end of the shard")
    ps.close()
    assert max(backed(pid, fd) for fd in mine) < 2 << 20  # locks and records stay
    ray.kill(other)


def link(pid, fd):
    try:
        return os.readlink(f"/proc/{pid}/fd/{fd}")
    except OSError:
        return ""

"""Workers that are killed in the middle of a push, or fork: the others go on, and no block is torn."""

from __future__ import annotations

import dataclasses
import os
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import ray

import fastps
from fastps._core import BLOCK_BYTES
from tests.support import workers
from tests.support.extent import repeat, short_or_long
from tests.support.waiting import GUARD_SECONDS, wait_until

pytestmark = pytest.mark.usefixtures("ray_local")

KILLS = short_or_long(15, 60)
N = 1 << 20  # float64: 4 MiB a shard of two, so that blocks of the shards are blocks of the array


class Pushers:
    """A process outside of Ray that forks pushers."""

    def __init__(self, ps):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.pusher"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        spec = dataclasses.replace(ps.attachment.spec, actors=())
        self._process.stdin.write(pickle.dumps(spec))
        self._process.stdin.flush()
        assert self._process.stdout.readline() == b"ready\n"

    def fork(self):
        self._process.stdin.write(b"fork\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        assert self._process.wait(GUARD_SECONDS) == 0
        self._process.stdout.close()


def check_blocks(ps, kills):
    """Every block holds a whole number of pushes, earlier blocks no fewer than later ones; the difference is what
    deaths interrupted. Answers how many pushes those were."""
    interrupted = 0
    found = ps.pull()
    for half, shard in zip(np.split(found, 2), ps.stats().shards, strict=True):
        blocks = half.reshape(-1, BLOCK_BYTES // 8)
        assert (blocks == blocks[:, :1]).all(), "a torn block"
        counts = blocks[:, 0]
        assert (np.diff(counts) <= 0).all(), "a later block ran ahead of an earlier one"
        assert counts[0] <= shard.version
        assert shard.version - counts[-1] <= shard.interrupted_pushes <= kills
        interrupted += shard.interrupted_pushes
    return interrupted


def test_killed_pushers_block_nobody_and_tear_nothing(rng):
    with fastps.ParameterServer(np.zeros(N), num_shards=2, max_sessions=5) as ps, Pushers(ps) as pushers:
        survivor = workers.Worker.remote(ps)
        ones, out, mine = np.ones(N), np.empty(N), 0
        for kill in repeat(KILLS, lambda: ps.stats().total["interrupted_pushes"] > 0):
            victims = [pushers.fork() for _ in range(1 + kill % 2)]
            time.sleep(rng.uniform(0.001, 0.02))
            for victim in victims:
                os.kill(victim, signal.SIGKILL)
            ps.push(ones, timeout=GUARD_SECONDS)  # nobody waits for the dead
            mine += 1
            ps.pull(out=out, timeout=GUARD_SECONDS)
            assert out.min() >= mine
            if kill % 5 == 4:
                ray.get(survivor.push.remote(ones, 2))
                mine += 2
                check_blocks(ps, 2 * kill + 2)
        assert check_blocks(ps, 2 * kill + 2) > 0
        for shard in ps.stats().shards:
            assert shard.recovered_locks >= shard.interrupted_pushes
            assert shard.sessions <= 5
            if shard.interrupted_pushes:
                assert 0 <= shard.interrupted_at < N // 2 * 8
                assert shard.interrupted_pid > 0
        ray.kill(survivor)


def test_a_killed_pusher_of_one_stripe_leaves_readers_and_writers_going(rng):
    with fastps.ParameterServer(np.zeros(8000), max_sessions=4) as ps, Pushers(ps) as pushers:
        for count in range(short_or_long(10, 30)):
            victim = pushers.fork()
            time.sleep(rng.uniform(0.0005, 0.005))
            os.kill(victim, signal.SIGKILL)
            ps.pull(timeout=GUARD_SECONDS)
            ps.push(np.ones(8000), timeout=GUARD_SECONDS)
            found = ps.pull(timeout=GUARD_SECONDS)
            blocks = [found[i : i + 512] for i in range(0, 8000, 512)]
            assert all((block == block[0]).all() for block in blocks)
            assert found.min() > count
        assert ps.stats().shards[0].pushes > count


def test_a_killed_ray_worker_leaves_the_others_going():
    with fastps.ParameterServer(np.zeros(N), num_shards=2) as ps:
        for _ in range(2):
            victim = workers.Worker.remote(ps)
            pid = ray.get(victim.pid.remote())
            before = ps.versions[0]
            victim.push_for_ever.remote(np.ones(N))
            wait_until(lambda before=before: ps.versions[0] > before + 2, 60, "a push")
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda pid=pid: not os.path.exists(f"/proc/{pid}"), 60, "the end of a process")
            ps.push(np.ones(N), timeout=GUARD_SECONDS)
            check_blocks(ps, 2)
        wait_until(lambda: ps.stats().shards[0].sessions <= 2, 30, "sessions of dead processes to be free")


def test_a_forked_child_uses_the_handle_and_its_end_disturbs_nobody():
    with fastps.ParameterServer(np.zeros(100_000), num_shards=2) as ps:
        ps.push(np.ones(100_000))
        for count in (2, 3):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    ps.push(np.ones(100_000))
                    code = 0 if (ps.pull() == count).all() and ps.versions == (count, count) else 2
                    ps.close()  # lets go in the child only
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert (ps.pull() == count).all()
        ps.push(np.ones(100_000))
        assert (ps.pull() == 4).all()
        assert ps.stats().total["recovered_locks"] == 0

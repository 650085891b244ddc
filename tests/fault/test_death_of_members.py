"""Workers that are killed or stopped while others wait for them: nobody hangs, and clocks stay right."""

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

import fastps
from fastps.testing.history import check_ssp, load
from tests.support.extent import short_or_long
from tests.support.waiting import GUARD_SECONDS, wait_until

pytestmark = pytest.mark.usefixtures("ray_local")

KILLS = short_or_long(15, 60)
ALIVE = 3
PAUSE = 0.0005  # seconds in a step
EVENT_BYTES = 150  # at least; a line of a history


class Steppers:
    """A process outside of Ray that forks workers."""

    def __init__(self, ps, folder):
        self._folder, self._count = folder, 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.stepper"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._process.stdin.write(pickle.dumps(dataclasses.replace(ps.attachment.spec, actors=())))
        self._process.stdin.flush()
        assert self._process.stdout.readline() == b"ready\n"

    def fork(self, pause=0.0, steps=0):
        self._count += 1
        path = self._folder / f"{self._count}.jsonl"
        self._process.stdin.write(f"{path} {pause} {steps}\n".encode())
        self._process.stdin.flush()
        return int(self._process.stdout.readline()), path

    def events(self):
        return [event for path in self._folder.glob("*.jsonl") for event in load(path)]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        assert self._process.wait(GUARD_SECONDS) == 0
        self._process.stdout.close()


def steps_of(path):
    """Events in a file, about: counting them would take longer than making them."""
    return path.stat().st_size // EVENT_BYTES if path.exists() else 0


def test_workers_die_at_random_moments_and_the_others_keep_their_bound(tmp_path, rng):
    bound = 2
    with (
        fastps.ParameterServer(np.zeros(6), num_shards=2, consistency=fastps.SSP(bound)) as ps,
        Steppers(ps, tmp_path) as steppers,
    ):
        alive = [steppers.fork(PAUSE) for _ in range(ALIVE)]
        for _ in range(KILLS):
            time.sleep(float(rng.uniform(0.0, 0.04)))
            victim = int(rng.integers(ALIVE))
            os.kill(alive[victim][0], signal.SIGKILL)
            before = {path: steps_of(path) for pid, path in alive if pid != alive[victim][0]}
            alive[victim] = steppers.fork(PAUSE)
            for path, count in before.items():
                wait_until(lambda path=path, count=count: steps_of(path) > count + 20, 30, "others go on")
        for pid, _ in alive:
            os.kill(pid, signal.SIGKILL)
        assert check_ssp(steppers.events(), bound) == []
        with ps.worker() as last:
            last.push(np.ones(6), timeout=GUARD_SECONDS)


def test_a_stopped_worker_is_out_after_the_straggler_timeout_and_returns_where_the_others_are(tmp_path):
    policy = fastps.SSP(0, workers=2, straggler_timeout=2.0)
    with fastps.ParameterServer(np.zeros(6), consistency=policy) as ps, Steppers(ps, tmp_path) as steppers:
        pid, path = steppers.fork(pause=0.001)
        with ps.worker() as w:
            for _ in range(20):
                w.push(np.ones(6))
            os.kill(pid, signal.SIGSTOP)
            for _ in range(5):
                w.push(np.ones(6), timeout=GUARD_SECONDS)
            count, clock = steps_of(path), w.clock
            os.kill(pid, signal.SIGCONT)
            for _ in range(20):
                w.push(np.ones(6), timeout=GUARD_SECONDS)
            wait_until(lambda: steps_of(path) > count + 20, 30, "the worker goes on")
            assert load(path)[-1].clock >= clock
        os.kill(pid, signal.SIGKILL)
        assert check_ssp(steppers.events(), 0) == []


def test_a_slow_worker_that_lives_is_waited_for(tmp_path):
    with (
        fastps.ParameterServer(np.zeros(6), consistency=fastps.SSP(0, workers=2)) as ps,
        Steppers(ps, tmp_path) as steppers,
    ):
        _, path = steppers.fork(pause=0.2, steps=5)
        with ps.worker() as w:
            for _ in range(5):
                w.pull()
                w.push(np.ones(6))
            assert w.returns == 0
            w.pull()
            assert (ps.pull() == 10).all()
        wait_until(lambda: load(path)[-1].kind == "leave", 30, "the worker leaves")

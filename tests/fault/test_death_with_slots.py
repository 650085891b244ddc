"""Workers that are killed in the middle of a push with slots leave no block half updated, over parameters and slots."""

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
from tests.support.extent import repeat, short_or_long
from tests.support.waiting import GUARD_SECONDS

pytestmark = pytest.mark.usefixtures("ray_local")


@fastps.rule(slots={"twice": 0.0, "thrice": 0.0})
def three_streams(p, g, twice, thrice):
    return p + g, twice + 2 * g, thrice + 3 * g


@pytest.mark.parametrize("n", [500_000, 5_000_000])
def test_killed_pushers_leave_parameters_and_slots_that_belong_together(n, rng):
    with fastps.ParameterServer(np.zeros(n, np.float32), rule=three_streams) as ps:
        program = subprocess.Popen(
            [sys.executable, "-m", "tests.support.pusher"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            program.stdin.write(pickle.dumps(dataclasses.replace(ps.attachment.spec, actors=())))
            program.stdin.flush()
            assert program.stdout.readline() == b"ready\n"
            for _ in repeat(short_or_long(8, 25), lambda: ps.stats().total["interrupted_pushes"] > 0):
                program.stdin.write(b"fork\n")
                program.stdin.flush()
                pid = int(program.stdout.readline())
                time.sleep(rng.uniform(0.02, 0.1))
                os.kill(pid, signal.SIGKILL)
            ps.push(np.ones(n, np.float32))
            params, slots = ps.pull(), ps.slots()
            assert np.array_equal(slots["twice"], 2 * params)
            assert np.array_equal(slots["thrice"], 3 * params)
            assert params.min() >= 1
            assert params.max() <= ps.versions[0]
        finally:
            program.stdin.close()
            program.wait(GUARD_SECONDS)

"""A training that is killed, all of it, goes on from its last checkpoint as one that was never interrupted."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

import numpy as np

import fastps
from fastps import BSP, Adagrad, Adam, Table
from tests.support.leftovers import is_agent, started_here
from tests.support.waiting import GUARD_SECONDS, wait_until

STEPS, SAVED, KILLED = 12, 6, 9
KEYS = np.arange(40)
PROGRAM = "import sys; from tests.fault import test_training_that_is_killed as t; t.train_and_wait(*sys.argv[1:])"


def gradients(step):
    rng = np.random.default_rng(step)
    return [{"w": rng.normal(size=900), "b": rng.normal(size=(7, 5)).astype(np.float32)} for _ in range(2)], rng.normal(
        size=(len(KEYS), 6)
    ).astype(np.float32)


def servers():
    """Rounds of two workers, and tables, which have no rounds."""
    rule = Adam(fastps.schedules.cosine(0.1, steps=STEPS))
    params = {"w": np.zeros(900), "b": np.zeros((7, 5), np.float32)}
    arrays = fastps.ParameterServer(params, rule=rule, consistency=BSP(workers=2, deterministic=True), num_shards=2)
    return arrays, fastps.ParameterServer(Table(6, rule=Adagrad(0.1), seed=3), num_shards=2)


def train(arrays, rows, steps):
    with arrays.worker(0) as one, arrays.worker(1) as two:
        for step in steps:
            (first, second), of_rows = gradients(step)
            two.push(second)
            one.push(first)
            rows.table.push(KEYS, of_rows)
        return one.pull(), rows.table.pull(KEYS)


def train_and_wait(folder):
    """The program: it saves, goes on, and is killed there."""
    import ray

    ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False)
    arrays, rows = servers()
    train(arrays, rows, range(SAVED))
    arrays.save(f"{folder}/arrays")
    rows.save(f"{folder}/rows")
    train(arrays, rows, range(SAVED, KILLED))
    rows.save(f"{folder}/late", wait=False)
    print(*(address.pid for ps in (arrays, rows) for address in ps.attachment.spec.addresses), flush=True)
    signal.pause()


def test_it_goes_on_as_one_that_was_not_interrupted(ray_local, tmp_path):
    before = started_here(shared=True)
    wanted, wanted_rows = train(*(running := servers()), range(STEPS))
    for ps in running:
        ps.close()
    program = subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    shards = [int(pid) for pid in program.stdout.readline().split()]
    assert len(shards) == 4
    for pid in (*shards, program.pid):  # at once: nobody can tidy up
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    program.wait(GUARD_SECONDS)
    program.stdout.close()
    with (
        fastps.restore(tmp_path / "arrays", num_shards=3) as arrays,
        fastps.restore(tmp_path / "rows", num_shards=1) as rows,
    ):
        found, found_rows = train(arrays, rows, range(SAVED, STEPS))
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: array.tobytes() for name, array in wanted.items()
    }
    assert found_rows.tobytes() == wanted_rows.tobytes()
    wait_until(lambda: not started_here(), 60, "the end of the program's processes")
    for pid, command in started_here(shared=True).items():
        if pid not in before and is_agent(command):  # they wait for their raylet, a minute long
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

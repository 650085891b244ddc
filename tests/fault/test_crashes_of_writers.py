"""The writer of a checkpoint, an actor of Ray, and the program that saves: each is killed or stopped at chosen calls of
the writer. Every call, without Ray, is in `test_crashes_of_saves.py`."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastps
from fastps.checkpoint.load import load
from tests.support.crash_points import Crash, CrashPoints
from tests.support.extent import short_or_long
from tests.support.leftovers import started_here
from tests.support.rays import driver, shared_ray
from tests.support.waiting import GUARD_SECONDS, wait_until

SIZE = 5000


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    return CrashPoints(tmp_path_factory.mktemp("points"))


@pytest.fixture(scope="module")
def address(points, nothing_left_in_the_end):
    """That of a Ray whose processes count their calls. This process does not."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in points.environment.items():
            environment.setenv(name, value)
        with shared_ray({"num_cpus": 4}) as cluster:
            for name in points.environment:
                environment.delenv(name)
            with driver(cluster):
                yield cluster.address


@pytest.fixture(scope="module")
def server(address):
    with fastps.ParameterServer(np.arange(float(SIZE)), rule=fastps.Adam(0.1), num_shards=2) as ps:
        ps.push(np.ones(SIZE))
        yield ps


@pytest.fixture(scope="module")
def calls(server, points, tmp_path_factory):
    """Those of a writer that nothing happens to."""
    root = tmp_path_factory.mktemp("undisturbed")
    points.arm(root)
    server.save(root / "saved")
    points.disarm()
    assert os.getpid() not in {call.pid for call in points.calls}
    return points.calls


@pytest.fixture
def root(server, tmp_path):
    """A directory with a checkpoint, which stays as it is."""
    server.save(tmp_path / "older")
    yield tmp_path
    wait_until(lambda: not writers(), 60, "the end of all writers")
    assert sorted(os.listdir(tmp_path)) == ["older"]
    load(tmp_path / "older")


def writers():
    return [pid for pid, name in started_here(shared=True).items() if name.startswith("ray::CheckpointWriter")]


def is_stopped(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def commit_of(calls):
    return next(number for number, call in enumerate(calls, 1) if call.name == "rename")


def chosen(calls):
    """The first call, one in the middle, those around the commit, the last; in the long form all of them."""
    commit = commit_of(calls)
    few = sorted({1, commit // 2, commit, commit + 1, len(calls)})
    return short_or_long(few, range(1, len(calls) + 1))


def require_whole(path, server):
    assert load(path).state.arrays[0].tobytes() == server.pull().tobytes()


def test_a_writer_that_is_killed_leaves_all_or_nothing_and_the_next_save_succeeds(server, points, calls, root):
    commit = commit_of(calls)
    for at in chosen(calls):
        points.arm(root, at, Crash.DIE_BEFORE)
        saving = server.save(root / "saved", wait=False)
        if at <= commit:
            with pytest.raises(fastps.UnavailableError, match="nothing was saved, save again"):
                saving.result(GUARD_SECONDS)
            assert os.listdir(root) == ["older"]
        else:
            assert saving.result(GUARD_SECONDS) == root / "saved"
        points.disarm()
        assert points.count >= at
        if at <= commit:
            server.save(root / "saved")
        require_whole(root / "saved", server)
        shutil.rmtree(root / "saved")


@pytest.mark.parametrize("wait", [True, False])
def test_a_writer_that_is_stopped_is_given_up_at_the_deadline_and_ends(server, points, calls, root, wait):
    for at in short_or_long([commit_of(calls)], range(1, commit_of(calls) + 1)):
        points.arm(root, at, Crash.STOP_BEFORE)
        if wait:
            with pytest.raises(fastps.WaitTimeoutError):
                server.save(root / "saved", timeout=4.0)
        else:
            saving = server.save(root / "saved", wait=False)
            wait_until(lambda: any(map(is_stopped, writers())), 60, "the writer's stop")
            with pytest.raises(fastps.WaitTimeoutError):
                saving.result(0.1)
            with pytest.raises(fastps.WaitTimeoutError):
                saving.result(0.1)
        points.disarm()
        assert os.listdir(root) == ["older"]
        gc.collect()
        wait_until(lambda: not writers(), 60, "the end of a writer that was stopped")
    server.save(root / "saved")
    shutil.rmtree(root / "saved")


def test_periodic_saves_go_on_after_a_writer_that_is_stopped(server, points, calls, root):
    directory = root / "run"
    directory.mkdir()
    points.arm(directory, commit_of(calls), Crash.STOP_BEFORE)
    with server.save_every(directory, steps=1, timeout=4.0) as saves:
        server.push(np.ones(SIZE))
        wait_until(lambda: isinstance(saves.error, fastps.WaitTimeoutError), 60, "the deadline")
        points.disarm()
        assert os.listdir(directory) == []
        wait_until(lambda: not writers(), 60, "the end of a writer that was stopped")
        server.push(np.ones(SIZE))
        wait_until(lambda: saves.saved != [] and saves.error is None, 60, "the next save")
    require_whole(saves.saved[0], server)
    shutil.rmtree(directory)


TRAINER = """
import sys, numpy as np, ray, fastps
ray.init(sys.argv[1], log_to_driver=False)
ps = fastps.ParameterServer(np.ones(5000), rule=fastps.Adam(0.1), num_shards=2)
print("ready", flush=True)
sys.stdin.readline()
saving = ps.save(sys.argv[2], wait=sys.argv[3] == "True")
sys.stdin.readline()
"""


def test_a_trainer_that_is_killed_leaves_all_or_nothing_and_the_next_save_succeeds(
    address, server, points, calls, root
):
    for number, at in enumerate(chosen(calls)[1::2] if len(chosen(calls)) < 9 else chosen(calls)):
        trainer = subprocess.Popen(
            [sys.executable, "-c", TRAINER, address, root / "saved", str(number % 2 == 0)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert trainer.stdout.readline() == "ready\n"
            points.arm(root, at, Crash.DIE_BEFORE, victim=trainer.pid)
            trainer.stdin.write("\n")
            trainer.stdin.flush()
            assert trainer.wait(GUARD_SECONDS) == -signal.SIGKILL
        finally:
            trainer.kill()
            trainer.communicate()
        wait_until(lambda: not writers(), 60, "the end of the writer of a trainer that is gone")
        points.disarm()
        left = sorted(set(os.listdir(root)) - {"older", "saved"})
        assert [name.startswith(".saved-") for name in left] == [True] * (not (root / "saved").exists())
        if (root / "saved").exists():
            assert (load(root / "saved").state.arrays[0] == 1).all()
            shutil.rmtree(root / "saved")
        server.save(root / "saved")  # what is left is in nobody's way
        require_whole(root / "saved", server)
        for name in ("saved", *left):
            shutil.rmtree(root / name)

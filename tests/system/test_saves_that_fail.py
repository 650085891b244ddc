"""Saves that cannot succeed, or that others disturb, end with a typed error and leave nothing."""

from __future__ import annotations

import os
import pickle
import threading

import numpy as np
import pytest

import fastps
from fastps.checkpoint.load import load
from tests.support.extent import short_or_long
from tests.support.leftovers import started_here
from tests.support.processes import run
from tests.support.waiting import GUARD_SECONDS, wait_until


@pytest.fixture(scope="module")
def server(ray_local):
    with fastps.ParameterServer(np.arange(3000.0), rule=fastps.Adam(0.1), num_shards=2) as ps:
        ps.push(np.ones(3000))
        yield ps


def outcome_of(saving):
    try:
        return saving.result(GUARD_SECONDS)
    except fastps.FastPSError as error:
        return error


def test_of_saves_to_one_path_at_once_one_succeeds(server, tmp_path):
    savings = [server.save(tmp_path / "saved", wait=False) for _ in range(3)]
    outcomes = [outcome_of(saving) for saving in savings]
    assert outcomes.count(tmp_path / "saved") == 1
    for saving, outcome in zip(savings, outcomes, strict=True):
        if outcome != tmp_path / "saved":
            assert isinstance(outcome, fastps.FileError)
            assert "there already; nothing was saved" in str(outcome)
            with pytest.raises(fastps.FileError):
                saving.result()
    assert os.listdir(tmp_path) == ["saved"]
    load(tmp_path / "saved")


def test_saves_to_different_paths_at_once_succeed(server, tmp_path):
    savings = [server.save(tmp_path / str(number), wait=False) for number in range(3)]
    for number, saving in enumerate(savings):
        assert saving.result(GUARD_SECONDS) == tmp_path / str(number)
    assert sorted(os.listdir(tmp_path)) == ["0", "1", "2"]
    for number in range(3):
        assert load(tmp_path / str(number)).state.arrays[0].tobytes() == server.pull().tobytes()


def test_what_appears_at_the_path_meanwhile_is_not_changed(server, tmp_path):
    saving = server.save(tmp_path / "saved", wait=False)
    (tmp_path / "saved").write_text("mine")
    with pytest.raises(fastps.FileError, match="there already; nothing was saved and it was not changed"):
        saving.result(GUARD_SECONDS)
    assert os.listdir(tmp_path) == ["saved"]
    assert (tmp_path / "saved").read_text() == "mine"


def test_a_directory_that_vanishes_meanwhile_is_a_typed_error(server, tmp_path):
    (tmp_path / "parent").mkdir()
    saving = server.save(tmp_path / "parent" / "saved", wait=False)
    (tmp_path / "parent").rename(tmp_path / "moved")
    assert isinstance(outcome_of(saving), fastps.FileError)
    assert not (tmp_path / "parent").exists()


@pytest.mark.parametrize("pause", short_or_long([0.0, 1.0], [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6]))
def test_a_save_during_close_succeeds_or_leaves_nothing(ray_local, tmp_path, pause):
    outcomes = []
    with fastps.ParameterServer(np.arange(3000.0), num_shards=2) as ps:
        waiting = threading.Thread(target=lambda: outcomes.append(outcome_of(Attempt(ps, tmp_path / "waited"))))
        saving = ps.save(tmp_path / "saved", wait=False)
        waiting.start()
        waiting.join(pause)
        ps.close()
        waiting.join()
        outcomes.append(outcome_of(saving))
        for path, outcome in zip(("waited", "saved"), outcomes, strict=True):
            if isinstance(outcome, fastps.FastPSError):
                assert isinstance(outcome, (fastps.ClosedError, fastps.ShardDiedError)), outcome
                assert not (tmp_path / path).exists()
            else:
                load(tmp_path / path)
        assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]
        with pytest.raises(fastps.ClosedError):
            ps.save(tmp_path / "again")
        assert not (tmp_path / "again").exists()


class Attempt:
    """A save that waits, as something with a result."""

    def __init__(self, ps, path):
        self._save = lambda: ps.save(path).path

    def result(self, timeout):
        return self._save()


# In a program of its own: a process that Ray has connected, and that forks, may not be able to talk to it any more.
FORKED = """
import gc, os, sys, numpy as np, ray, fastps
ray.init(sys.argv[1], log_to_driver=False)
ps = fastps.ParameterServer(np.arange(3000.0))
holder = [ps.save(f"{sys.argv[2]}/saved", wait=False)]
pid = os.fork()
if pid == 0:
    code = 2
    try:
        code = 0 if str(holder[0].result(60)) == f"{sys.argv[2]}/saved" else 3
    except fastps.RayRequiredError:
        code = 0
    finally:
        holder.clear()
        gc.collect()
        os._exit(code)
print(os.waitpid(pid, 0)[1], holder[0].result(60) == holder[0].path, flush=True)
os._exit(0)
"""


def test_a_forked_process_does_not_end_a_save_of_its_parent(one_node, tmp_path):
    assert run(FORKED, one_node.address, str(tmp_path)) == ["0 True"]
    assert os.listdir(tmp_path) == ["saved"]
    load(tmp_path / "saved")


WITHOUT_RAY = """
import pickle, sys, fastps
with open(sys.argv[1], "rb") as file:
    ps = pickle.load(file)
try:
    ps.save(sys.argv[2])
except fastps.FastPSError as error:
    print(type(error).__name__, error)
"""


def test_a_process_without_ray_is_told_that_a_save_needs_it(server, tmp_path):
    (tmp_path / "handle").write_bytes(pickle.dumps(server))
    (said,) = run(WITHOUT_RAY, str(tmp_path / "handle"), str(tmp_path / "saved"))
    assert said.startswith("RayRequiredError save: needs Ray")
    assert "ray.init(address=" in said
    assert os.listdir(tmp_path) == ["handle"]


AFTER_RAY = """
import os, sys, numpy as np, ray, fastps
ray.init(sys.argv[1], log_to_driver=False)
folder = sys.argv[2]
ps = fastps.ParameterServer(np.arange(3000.0))
done = ps.save(f"{folder}/done", wait=False)
done.result()
pending = ps.save(f"{folder}/pending", wait=False)
ray.shutdown()
for result in (pending.result, pending.result, lambda: ps.save(f"{folder}/after")):
    try:
        print("saved", result())
    except fastps.FastPSError as error:
        print(type(error).__name__, error)
print(done.result() == done.path)
print(*sorted(os.listdir(folder)))
"""


def test_after_ray_has_ended_a_save_is_a_typed_error_and_nothing_is_left(one_node, tmp_path):
    pending, again, after, done, left = run(AFTER_RAY, one_node.address, str(tmp_path))
    assert pending.startswith("RayRequiredError save: needs Ray")
    assert again.startswith("RayRequiredError save: needs Ray")
    assert after.startswith(("ShardDiedError", "RayRequiredError", "ClosedError"))
    assert (done, left) == ("True", "done")


def test_a_saving_that_is_kept_keeps_no_process(server, tmp_path):
    saving = server.save(tmp_path / "saved", wait=False)
    saving.result()
    # Those of tests that run beside this one end too.
    writers = {pid for pid, name in started_here(shared=True).items() if name.startswith("ray::CheckpointWriter")}
    wait_until(lambda: not writers & started_here(shared=True).keys(), 60, "its end")
    assert saving.result() == saving.path

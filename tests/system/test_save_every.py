"""Saves that come by themselves."""

from __future__ import annotations

import os
import time
from dataclasses import replace

import numpy as np
import pytest

import fastps
from fastps import CheckpointError, FileError, OptionError, Table
from fastps.checkpoint.manifest import NAME, Manifest
from fastps.checkpoint.series import checkpoints_in, free_name, newest_in, remove
from tests.support.processes import run
from tests.support.waiting import GUARD_SECONDS, wait_until


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_the_newest_checkpoints_are_kept_and_the_newest_is_restored(ray_local, tmp_path):
    directory = tmp_path / "run"
    with fastps.ParameterServer({"w": np.zeros(8), "t": Table(1, init=0.0)}) as ps:
        with ps.save_every(directory, steps=2, keep=2, incremental=True) as saves:
            for step in range(1, 4):
                before = len(checkpoints_in(directory))
                ps.push({"w": np.ones(8)})
                for _ in range(2):
                    ps["t"].push([step], np.ones((1, 1), np.float32))  # updates of a table count too
                newest = f"step-{2 * step:012}"
                wait_until(lambda name=newest: [p.name for p in saves.saved][-1:] == [name], GUARD_SECONDS, "a save")
                kept = min(before + 1, 2)  # an older one is removed behind the save
                wait_until(lambda n=kept: len(checkpoints_in(directory)) == n, GUARD_SECONDS, "its removal")
        assert names(directory) == ["step-000000000004", "step-000000000006"]
        assert saves.error is None
        ps.push({"w": np.ones(8)})
    assert newest_in(directory).name == "step-000000000006"
    with fastps.restore(directory) as ps:
        assert ps.pull(names=["w"])["w"].tolist() == [3.0] * 8
        assert ps["t"].peek([1, 2, 3]).ravel().tolist() == [2.0] * 3
    with pytest.raises(CheckpointError, match="is no checkpoint and has none"):
        fastps.restore(tmp_path)


def test_a_save_that_fails_is_told_and_tried_again_and_the_end_of_the_server_ends_it(ray_local, tmp_path, caplog):
    ps = fastps.ParameterServer(np.zeros(8))
    saves = ps.save_every(tmp_path / "run", seconds=0.1)
    (tmp_path / "run").rmdir()
    ps.push(np.ones(8))
    wait_until(lambda: saves.error is not None, GUARD_SECONDS, "an error")
    assert isinstance(saves.error, FileError)
    assert "save: there is no directory" in caplog.text
    (tmp_path / "run").mkdir()
    ps.push(np.ones(8))
    wait_until(lambda: len(saves.saved) > 0, GUARD_SECONDS, "a save")
    assert saves.error is None
    time.sleep(0.5)
    assert len(saves.saved) == 1  # nothing has changed since
    ps.close()
    wait_until(lambda: isinstance(saves.error, fastps.ClosedError), GUARD_SECONDS, "the end")
    saves.stop()


@pytest.mark.parametrize(
    "options",
    [{}, {"steps": 1, "seconds": 1}, {"steps": 0}, {"seconds": 0}, {"seconds": float("nan")}, {"steps": 1, "keep": 0},
     {"steps": 1.5}, {"steps": 1, "incremental": "yes"}, {"steps": 1, "timeout": -1}],
    ids=str,
)  # fmt: skip
def test_options_are_checked_before_anything_starts(ray_local, tmp_path, options):
    with fastps.ParameterServer(np.zeros(1)) as ps:
        with pytest.raises(OptionError, match=r"save_every|timeout"):
            ps.save_every(tmp_path / "run", **options)
        with pytest.raises(OptionError, match="expected a path"):
            ps.save_every(3, steps=1)
        (tmp_path / "file").write_text("")
        with pytest.raises(FileError, match="cannot be made"):
            ps.save_every(tmp_path / "file" / "run", steps=1)
    assert names(tmp_path) == ["file"]


def test_names_that_are_taken_and_directories_of_others(tmp_path):
    assert free_name(tmp_path, 7).name == "step-000000000007"
    (tmp_path / "step-000000000007").mkdir()
    assert free_name(tmp_path, 7).name == "step-000000000007.2"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "manifest.json").write_text("{}")
    (tmp_path / "step-000000000008").mkdir()
    (tmp_path / "step-000000000008" / "manifest.json").write_text("{}")
    assert checkpoints_in(tmp_path) == []  # not ours, not complete, damaged
    remove(tmp_path / "step-000000000008")
    assert names(tmp_path) == ["mine", "step-000000000007"]
    assert os.path.isdir(tmp_path / "step-000000000007")


FORKED = """
import os, sys, time, numpy as np, ray, fastps
ray.init(sys.argv[1], log_to_driver=False)
ps = fastps.ParameterServer(np.zeros(3))
with ps.save_every(sys.argv[2], steps=1, timeout=60) as saves:
    if (child := os.fork()) == 0:
        saves.stop()
        os._exit(len(saves.saved))
    code = os.waitpid(child, 0)[1]
    ps.push(np.ones(3))
    while not saves.saved and saves.error is None:
        time.sleep(0.01)
print(code, len(saves.saved), saves.error, flush=True)
os._exit(0)
"""


def test_a_forked_process_ends_no_saves_of_its_parent(one_node, tmp_path):
    assert run(FORKED, one_node.address, str(tmp_path)) == ["0 1 None"]
    assert names(tmp_path) == ["step-000000000001"]


def test_a_checkpoint_is_kept_however_late_the_clock_of_others_was(ray_local, tmp_path):
    with fastps.ParameterServer(np.zeros(3)) as ps:
        ps.save(tmp_path / "step-000000000009")
        manifest = Manifest.read(tmp_path / "step-000000000009")
        later = replace(manifest, created=manifest.created + 1e6)
        (tmp_path / "step-000000000009" / NAME).write_bytes(later.packed())
        with ps.save_every(tmp_path, steps=1, keep=1) as saves:
            ps.push(np.ones(3))
            wait_until(lambda: len(saves.saved) > 0, GUARD_SECONDS, "a save")
    assert names(tmp_path) == ["step-000000000001"]  # the end of the block waited for its removal


def test_after_a_save_that_failed_the_next_one_shares_nothing(ray_local, tmp_path):
    with fastps.ParameterServer(Table(1)) as ps, ps.save_every(tmp_path, steps=1, incremental=True) as saves:
        ps.table.push([1], np.ones((1, 1), np.float32))
        wait_until(lambda: len(saves.saved) == 1, GUARD_SECONDS, "a save")
        next(saves.saved[0].glob("rows*")).unlink()
        ps.table.push([1], np.ones((1, 1), np.float32))
        wait_until(lambda: saves.error is not None, GUARD_SECONDS, "an error")
        ps.table.push([1], np.ones((1, 1), np.float32))
        wait_until(lambda: len(saves.saved) == 2 and saves.error is None, GUARD_SECONDS, "a save")
    with fastps.restore(saves.saved[1]) as ps:
        assert len(ps.table) == 1

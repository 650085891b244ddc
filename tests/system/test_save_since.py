"""Checkpoints that share with an earlier one what has not changed since."""

from __future__ import annotations

import os
import shutil
import time

import numpy as np
import pytest

import fastps
from fastps import Adagrad, CheckpointError, MissingFileError, Table
from fastps.checkpoint.manifest import Manifest
from tests.support.extent import LONG
from tests.system.test_save_tables import rows_of


def new_bytes_of_rows(folder):
    return sum(file.stat().st_size for file in folder.glob("rows*") if file.stat().st_nlink == 1)


def test_increments_are_the_whole_state_and_complete_by_themselves(ray_local, tmp_path, rng):
    n = 20_000
    params = {"w": np.ones(1000), "users": Table(8, rule=Adagrad(0.1)), "seen": Table(1, track=True, init=0.0)}
    wanted = []
    with fastps.ParameterServer(params, num_shards=2) as ps:
        users, seen = ps["users"], ps["seen"]
        users.push(np.arange(n), rng.normal(size=(n, 8)).astype(np.float32))
        seen.pull(np.arange(100))
        for step in range(3):
            since = tmp_path / f"step-{step - 1}" if step else None
            ps.save(tmp_path / f"step-{step}", since=since)
            wanted.append((rows_of(users), seen.activity(np.arange(100))[1].tolist(), ps.pull(names=["w"])["w"]))
            keys = rng.integers(0, n, 50)
            users.push(keys, rng.normal(size=(50, 8)).astype(np.float32))
            seen.pull(keys % 100)
            if step == 0:
                users.evict(np.arange(500))
                users.set([7], np.full((1, 8), 3, np.float32))
    array = next((tmp_path / "step-0").glob("arrays*"))
    assert array.stat().st_nlink == 3  # nobody has pushed to it
    assert new_bytes_of_rows(tmp_path / "step-1") < 50_000
    shutil.rmtree(tmp_path / "step-0")
    for step, shards in ((2, 1), (1, 3)):
        with fastps.restore(tmp_path / f"step-{step}", num_shards=shards) as ps:
            rows, uses, w = wanted[step]
            assert rows_of(ps["users"]) == rows
            assert ps["seen"].activity(np.arange(100))[1].tolist() == uses
            assert np.array_equal(ps.pull(names=["w"])["w"], w)


@pytest.mark.skipif(not LONG, reason="eighteen saves; tests/unit/checkpoint/test_earlier.py has the rule")
def test_after_sixteen_files_all_rows_are_written_again(ray_local, tmp_path):
    counts, since = [], None
    with fastps.ParameterServer(Table(1, init=0.0)) as ps:
        ps.table.pull(np.arange(1000))
        for step in range(18):
            ps.save(tmp_path / f"{step}", since=since)
            since = tmp_path / f"{step}"
            counts.append(Manifest.read(since).rows[0].counts)
            ps.table.push([step], np.ones((1, 1), np.float32))
    assert [len(count) for count in counts] == [*range(1, 17), 1, 2]
    with fastps.restore(tmp_path / "17") as ps:
        assert ps.table.peek(np.arange(18)).ravel().tolist() == [1.0] * 17 + [0.0]
        assert len(ps.table) == 1000


def test_of_another_server_only_bytes_that_are_the_same_are_shared(ray_local, tmp_path):
    params = {"w": np.ones(1000), "t": Table(1, init=0.0)}
    for name, key in (("one", 1), ("other", 2)):
        with fastps.ParameterServer(params) as ps:
            ps["t"].pull([key])
            ps.save(tmp_path / name, since=None if name == "one" else tmp_path / "one")
    (one,), (other,) = ((tmp_path / name).glob("arrays*") for name in ("one", "other"))
    assert os.path.samefile(one, other)
    with fastps.restore(tmp_path / "other") as ps:
        assert rows_of(ps["t"]).keys() == {2}


def test_an_earlier_checkpoint_that_cannot_be_read_is_refused_before_anything_is_written(ray_local, tmp_path):
    with fastps.ParameterServer(np.zeros(10)) as ps:
        with pytest.raises(MissingFileError):
            ps.save(tmp_path / "new", since=tmp_path / "none")
        ps.save(tmp_path / "old")
        (tmp_path / "old" / "manifest.json").write_bytes(b"no")
        with pytest.raises(CheckpointError):
            ps.save(tmp_path / "new", since=tmp_path / "old")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["old"]


def test_what_was_not_used_since_is_as_old_as_it_is(ray_local, tmp_path):
    with fastps.ParameterServer(Table(1, track=True, init=0.0)) as ps:
        ps.table.pull([1, 2])
        ps.save(tmp_path / "old")
        time.sleep(1.0)
        ps.table.pull([2])
        time.sleep(0.5)
        ps.save(tmp_path / "new", since=tmp_path / "old")
        live, _ = ps.table.activity([1, 2])
    with fastps.restore(tmp_path / "new") as ps:
        ages, counts = ps.table.activity([1, 2])
        assert counts.tolist() == [1, 2]
        assert ages[0] - ages[1] == pytest.approx(live[0] - live[1], abs=0.15)


def test_rows_that_were_removed_and_came_back_are_new(ray_local, tmp_path):
    with fastps.ParameterServer(Table(1, init=0.0, capacity=10)) as ps:
        ps.table.set(np.arange(10), np.full((10, 1), 7, np.float32))
        ps.save(tmp_path / "old")
        ps.table.evict([1, 2, 3])
        ps.table.pull([2, 20, 21])
        ps.save(tmp_path / "new", since=tmp_path / "old")
    with fastps.restore(tmp_path / "new") as ps:
        assert len(ps.table) == 10
        assert ps.table.peek([0, 1, 2, 20]).ravel().tolist() == [7.0, 0.0, 0.0, 0.0]
        assert ps.table.contains([1, 2, 3, 20]).tolist() == [False, True, False, True]

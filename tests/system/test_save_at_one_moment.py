"""`save(consistent="all")`: the arrays of all shards at one moment, at which pushes are on all or on none."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import fastps
from fastps import BSP, FileError, OptionError, Table
from fastps.checkpoint.load import load
from tests.support.waiting import GUARD_SECONDS, wait_until

# Shards of one stripe and of several.
MODEL = {"a": np.zeros(300, np.float32), "b": np.zeros(400_000, np.float32), "t": Table(1, init=0.0)}
ONES = {name: np.ones_like(MODEL[name]) for name in ("a", "b")}


def test_pushes_are_saved_whole(ray_local, tmp_path):
    with fastps.ParameterServer(MODEL, num_shards=3) as ps:
        stop = threading.Event()

        def push():
            while not stop.is_set():
                ps.push(ONES)

        threads = [threading.Thread(target=push) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: min(ps.versions) > 10, GUARD_SECONDS, "pushes")
            for number in range(3):
                ps.save(tmp_path / f"saved{number}", consistent="all")
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        pushed = ps.versions[0]
    last = 0
    for number in range(3):
        (version,) = set(load(tmp_path / f"saved{number}").manifest.versions)
        assert last < version <= pushed
        last = version
        with fastps.restore(tmp_path / f"saved{number}", num_shards=2) as ps:
            found = ps.pull(names=["a", "b"])
            assert set(found["a"].tolist()) | set(found["b"].tolist()) == {float(version)}


def test_rounds_and_tables_alone_have_one_moment_anyway(ray_local, tmp_path):
    with fastps.ParameterServer(np.zeros(5), num_shards=2, consistency=BSP()) as ps:
        ps.save(tmp_path / "rounds", consistent="all")
    with fastps.ParameterServer(Table(1), num_shards=2) as ps:
        ps.save(tmp_path / "rows", consistent="all")


def test_shards_without_one_moment_are_refused_before_anything_starts(ray_local, tmp_path):
    with fastps.ParameterServer(np.zeros(5), isolation="none") as ps:
        with pytest.raises(OptionError, match=r'save: with isolation="none" a push has no moment'):
            ps.save(tmp_path / "saved", consistent="all")
        with pytest.raises(OptionError, match=r'save_every: with isolation="none"'):
            ps.save_every(tmp_path, steps=1, consistent="all")
        for wrong in ("each", None, np.zeros(3)):
            with pytest.raises(OptionError, match="save: expected consistent='shard' or 'all', got"):
                ps.save(tmp_path / "saved", consistent=wrong)
        ps.save(tmp_path / "saved", consistent="shard")


def test_saves_are_counted(ray_local, tmp_path):
    with fastps.ParameterServer({"w": np.zeros(1000), "t": Table(2, init=0.0)}, num_shards=2) as ps:
        ps["t"].push([1, 2, 3], np.ones((3, 2), np.float32))
        assert {"saves": 0, "failed_saves": 0, "saved_bytes": 0}.items() <= ps.stats().total.items()
        ps.save(tmp_path / "saved")
        written = sum(path.stat().st_size for path in (tmp_path / "saved").iterdir() if path.suffix != ".json")
        assert {"saves": 1, "failed_saves": 0, "saved_bytes": written}.items() <= ps.stats().total.items()
        ps.save(tmp_path / "same", since=tmp_path / "saved")
        assert {"saves": 2, "failed_saves": 0}.items() <= ps.stats().total.items()
        assert ps.stats().total["saved_bytes"] < 2 * written  # arrays are linked
        saving = ps.save(tmp_path / "other", wait=False)
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "file").touch()
        with pytest.raises(FileError):
            saving.result(GUARD_SECONDS)
        assert {"saves": 2, "failed_saves": 1}.items() <= ps.stats().total.items()
        assert ps.stats().shards[0].saves == 2

"""Checkpoints in file systems that pyarrow.fs reaches: here one of this machine, by its URI."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import fastps
from fastps import CheckpointError, FileError, MissingFileError, OptionError, Table, WaitTimeoutError
from fastps.checkpoint.manifest import NAME
from fastps.checkpoint.remote import RemotePath, path_of
from tests.support.waiting import GUARD_SECONDS, wait_until


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_a_checkpoint_is_written_in_place_and_its_manifest_comes_last(ray_local, tmp_path):
    uri = f"file://{tmp_path}/run/saved"
    with fastps.ParameterServer({"w": np.arange(100.0), "t": Table(2, init=0.5)}, num_shards=2) as ps:
        ps["t"].pull([1, 2, 3])
        assert str(ps.save(uri).path) == uri
        with pytest.raises(FileError, match="is there already"):
            ps.save(uri)
        with pytest.raises(OptionError, match="hard links"):
            ps.save(f"{uri}-2", since=uri)
    assert names(tmp_path / "run") == ["saved"]
    for path in (uri, tmp_path / "run" / "saved"):  # the same files
        with fastps.restore(path, num_shards=3) as ps:
            assert np.array_equal(ps.pull()["w"], np.arange(100.0))
            assert ps["t"].peek([1, 9]).tolist() == [[0.5] * 2] * 2
            assert len(ps["t"]) == 3
    file = next((tmp_path / "run" / "saved").glob("arrays*"))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="it was damaged"):
        fastps.restore(uri)
    file.unlink()
    with pytest.raises(MissingFileError):
        fastps.restore(uri)


def test_a_save_that_is_given_up_leaves_nothing(ray_local, tmp_path):
    with fastps.ParameterServer(np.zeros(1000)) as ps:
        saving = ps.save(f"file://{tmp_path}/late", wait=False)
        with pytest.raises(WaitTimeoutError):
            saving.result(0)
        assert not (tmp_path / "late").exists()
        saving = ps.save(f"file://{tmp_path}/dropped", wait=False)
        del saving
        wait_until(lambda: not (tmp_path / "dropped").exists(), GUARD_SECONDS, "the end of a save")
        ps.save(f"file://{tmp_path}/late")
    assert names(tmp_path) == ["late"]


def test_saves_that_come_by_themselves_and_their_newest(ray_local, tmp_path):
    uri = f"file://{tmp_path}/run"
    with fastps.ParameterServer(np.zeros(3)) as ps, ps.save_every(uri, steps=1, keep=1) as saves:
        for step in (1, 2):
            ps.push(np.ones(3))
            newest = f"step-{step:012}"
            wait_until(lambda name=newest: [p.name for p in saves.saved] == [name], GUARD_SECONDS, "a save")
        with pytest.raises(OptionError, match="hard links"):
            ps.save_every(uri, steps=1, incremental=True)
    assert names(tmp_path / "run") == ["step-000000000002"]
    with fastps.restore(uri) as ps:
        assert ps.pull().tolist() == [2.0] * 3


def test_what_cannot_be_reached(ray_local, tmp_path):
    with fastps.ParameterServer(np.zeros(3)) as ps:
        for uri in ("nothing://here/x", "://"):
            with pytest.raises(FileError, match="cannot be reached"):
                ps.save(uri)
            with pytest.raises(FileError, match="cannot be reached"):
                fastps.restore(uri)
        (tmp_path / "file").write_text("")
        with pytest.raises(FileError, match="cannot be written"):
            ps.save(f"file://{tmp_path}/file/under")
        with pytest.raises(MissingFileError):
            fastps.restore(f"file://{tmp_path}/none")


def test_a_remote_path_is_its_uri(tmp_path):
    path = path_of(f"file://{tmp_path}/a/", "save")
    assert path == pickle.loads(pickle.dumps(path)) == RemotePath(f"file://{tmp_path}/a")
    assert (path / "b").name == "b"
    assert (path / "b").parent == path
    assert sorted([path / "b", path / "a"]) == [path / "a", path / "b"]
    assert len({path, path / "b", path}) == 2
    assert "RemotePath" in repr(path)
    assert not path.exists()
    path.make()
    assert path.is_dir()
    (tmp_path / "a" / NAME).write_text("{}")
    assert [str(one) for one in path.iterdir()] == [str(path / NAME)]
    path.remove()
    assert not path.exists()
    with pytest.raises(OptionError, match="save: expected a path"):
        path_of(3, "save")

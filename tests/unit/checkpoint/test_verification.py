"""Whether a checkpoint is what was written."""

import dataclasses

import numpy as np
import pytest

from fastps import CheckpointError, MissingFileError, Table
from fastps.checkpoint import files
from fastps.checkpoint.verification import verification
from tests.support.checkpoints import flip, rewrite, write_checkpoint

TABLES = {"a": (Table(2), {1: [[1.0, 2.0]]}), "b": (Table(1), {2: [[3.0]], 4: [[5.0]]})}


def test_what_was_written_is_sound(tmp_path):
    write_checkpoint(tmp_path, {"w": np.zeros(30), "n": np.array([3])}, TABLES)
    found = verification(tmp_path)
    assert (found.files, found.damaged, found.problem) == (3, {}, None)
    assert found.nbytes == sum(file.stat().st_size for file in tmp_path.iterdir() if file.suffix != ".json")


def test_every_damaged_file_is_found(tmp_path):
    write_checkpoint(tmp_path, np.zeros(30), TABLES)
    arrays, one, other = sorted(file for file in tmp_path.iterdir() if file.suffix != ".json")
    flip(arrays)
    one.unlink()
    other.write_bytes(b"")
    found = verification(tmp_path)
    assert list(found.damaged) == [arrays.name, one.name, other.name]
    assert found.problem == found.damaged[arrays.name]
    assert "not those that were written" in found.problem


@pytest.mark.parametrize("block", [7, 1 << 20])
def test_progress_counts_all_bytes(tmp_path, monkeypatch, block):
    monkeypatch.setattr(files, "BLOCK_BYTES", block)
    monkeypatch.setattr("fastps.checkpoint.manifest.BLOCK_BYTES", block)
    write_checkpoint(tmp_path, np.zeros(30), TABLES)
    told = []
    found = verification(tmp_path, told.append)
    assert sum(told) == found.nbytes


def test_numbers_that_do_not_fit_are_found_although_all_bytes_are_right(tmp_path):
    manifest = write_checkpoint(tmp_path, np.zeros(30), TABLES)
    one, other = manifest.rows
    for changes in (
        {"rows": (one, dataclasses.replace(other, counts=(3,)))},
        {"rows": (one,)},
        {"rows": (dataclasses.replace(one, files=(2,)), dataclasses.replace(other, files=(1,)))},
        {"rows": (dataclasses.replace(one, files=(0,)), other)},
        {"pieces": ()},
        {"pieces": (dataclasses.replace(manifest.pieces[0], count=29),)},
        {"server": manifest.server | {"structure": {"leaves": [], "tree": None, "constants": []}}},
        {"server": manifest.server | {"rules": [{"pattern": "*"}]}},
        {"server": manifest.server | {"consistency": {"policy": "Async", "workers": -1}}},
    ):
        rewrite(tmp_path, **changes)
        with pytest.raises(CheckpointError):
            verification(tmp_path)
        rewrite(tmp_path, rows=manifest.rows, pieces=manifest.pieces, server=manifest.server)
    assert verification(tmp_path).problem is None


def test_what_is_no_checkpoint_is_an_error(tmp_path):
    with pytest.raises(MissingFileError):
        verification(tmp_path)

"""The checkpoints in a directory."""

import os

import numpy as np
import pytest

from fastps import MissingFileError, Table
from fastps.checkpoint.directory import COMPLETE, DAMAGED, UNFINISHED, UNREADABLE, entries
from fastps.checkpoint.manifest import NAME
from tests.support.checkpoints import flip, write_checkpoint


def test_checkpoints_are_listed_with_the_newest_last(tmp_path):
    write_checkpoint(tmp_path / "b", np.zeros(3), created=1e9, step=1)
    write_checkpoint(tmp_path / "a", None, {"t": (Table(1), {})}, created=2e9, step=2)
    (tmp_path / "not one").mkdir()
    (tmp_path / "file").write_text("x")
    old, new = entries(tmp_path)
    assert (old.name, old.state, old.created, old.problem) == ("b", COMPLETE, 1e9, None)
    assert (new.name, new.state, new.summary.updates, len(new.summary.tables)) == ("a", COMPLETE, (2,), 1)
    assert old.nbytes == old.summary.nbytes == 128


def test_damaged_and_unreadable_ones_are_told_apart(tmp_path):
    for name in ("cut", "gone", "flipped", "text", "other"):
        write_checkpoint(tmp_path / name, np.zeros(3))
    os.truncate(next((tmp_path / "cut").glob("arrays-*")), 5)
    next((tmp_path / "gone").glob("arrays-*")).unlink()
    flip(tmp_path / "flipped" / NAME)
    (tmp_path / "text" / NAME).write_text("no manifest")
    text = (tmp_path / "other" / NAME).read_text()
    (tmp_path / "other" / NAME).write_text(text.replace('"version": 1,', '"version": 99,'))
    found = {entry.name: entry for entry in entries(tmp_path)}
    assert {name: entry.state for name, entry in found.items()} == {
        "cut": DAMAGED, "gone": DAMAGED, "flipped": UNREADABLE, "text": UNREADABLE, "other": UNREADABLE,
    }  # fmt: skip
    assert "in place of" in found["cut"].problem
    assert "99" in found["other"].problem
    assert found["other"].nbytes == 128


def test_directories_of_unfinished_ones_are_listed_as_such(tmp_path):
    left = {".step-1-0123456789ab", ".step-2-0123456789ab-given-up", ".step-000000000003.2-0123456789ab-removed"}
    for name in (*left, ".git", ".step-4-0123"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "arrays").write_bytes(b"123")
    found = entries(tmp_path)
    assert {entry.name for entry in found} == left
    assert {(entry.state, entry.nbytes, entry.summary) for entry in found} == {(UNFINISHED, 3, None)}


def test_a_directory_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(MissingFileError):
        entries(tmp_path / "none")

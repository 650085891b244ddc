"""A save that is killed, stopped or let down by the system at any of its calls leaves all of a checkpoint, or nothing.

Each run is a process without Ray, see `tests/support/saver.py`, that does what the trainer and the writer do; those two
as they are under Ray are in `test_crashes_of_writers.py`.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest

import fastps
from fastps.checkpoint.load import load
from fastps.checkpoint.manifest import NAME
from fastps.checkpoint.saving import given_up
from tests.support.crash_points import Crash, CrashPoints
from tests.support.extent import short_or_long
from tests.support.saver import NOBODY, Saver

PARAMS = {"w": np.arange(3000.0), "b": np.arange(7, dtype=np.float32), "n": np.array([3, 4])}


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    return CrashPoints(tmp_path_factory.mktemp("points"))


@pytest.fixture(scope="module")
def server(ray_local):
    with fastps.ParameterServer(PARAMS, rule=fastps.Adam(0.1), num_shards=2) as ps:
        ps.push({"w": np.ones(3000), "b": np.ones(7, np.float32)})
        yield ps


@pytest.fixture(scope="module")
def saver(server, points):
    with Saver(server.attachment.spec, points.environment) as saver:
        yield saver


@pytest.fixture(scope="module")
def other_saver(server, points):
    with Saver(server.attachment.spec, points.environment) as saver:
        yield saver


@pytest.fixture(scope="module")
def expected(server):
    return server.pull(), server.slots()


@pytest.fixture(scope="module")
def calls(saver, points, tmp_path_factory):
    """Those of a save that nothing happens to."""
    root = tmp_path_factory.mktemp("undisturbed")
    points.arm(root)
    assert saver.ask("save", root / "saved")["error"] is None
    points.disarm()
    return points.calls


@pytest.fixture
def root(saver, tmp_path):
    """A directory with a checkpoint, which stays as it is."""
    assert saver.ask("save", tmp_path / "older")["error"] is None
    yield tmp_path
    assert sorted(os.listdir(tmp_path)) == ["older"]
    load(tmp_path / "older")


def number_of(calls, name, path):
    """The number of the last call with this name on a path that ends so."""
    return max(number for number, call in enumerate(calls, 1) if call.name == name and call.path.endswith(path))


def require_whole(path, expected):
    params, slots = expected
    state = load(path).state
    names = [leaf.name for leaf in state.structure.leaves]
    for name, array in zip(names, state.arrays, strict=True):
        assert np.ascontiguousarray(array).tobytes() == params[name].tobytes()
    for slot, tree in slots.items():
        for name, array in zip(names, state.slots[slot], strict=True):
            assert array.tobytes() == (tree[name].tobytes() if tree.get(name) is not None else b"")


def leftovers(root):
    """What is there besides checkpoints, removed."""
    found = [path for path in root.iterdir() if path.name.startswith(".")]
    for path in found:
        shutil.rmtree(path)
    return [path.name for path in found]


def test_everything_is_on_the_disk_before_the_checkpoint_has_its_name_and_the_name_is_before_the_end(calls):
    commit = number_of(calls, "rename", "")
    hidden = calls[0].path
    assert (calls[0].name, Path(hidden).name.startswith(".saved-")) == ("mkdir", True)
    files = {call.path for call in calls if call.name == "write"}
    assert {Path(file).name.partition("-")[0] for file in files} == {"arrays", NAME}
    for file in files:
        assert number_of(calls, "write", file) < number_of(calls, "fsync", file) < commit
    assert max(number_of(calls, "write", file) for file in files) < number_of(calls, "fsync", hidden) < commit
    assert number_of(calls, "write", NAME) == max(number_of(calls, "write", file) for file in files)
    assert commit < number_of(calls, "fsync", str(Path(hidden).parent))


@pytest.mark.parametrize("how", [Crash.DIE_BEFORE, Crash.DIE_BEHIND, Crash.DIE_HALFWAY], ids=lambda how: how.name)
def test_a_save_that_is_killed_at_any_call_leaves_all_or_nothing(saver, points, calls, root, expected, how):
    commit = number_of(calls, "rename", "")
    for at, call in enumerate(calls, 1):
        if how is Crash.DIE_HALFWAY and call.name != "write":
            continue
        points.arm(root, at, how)
        assert saver.ask("save", root / "saved")["signal"] == signal.SIGKILL
        points.disarm()
        assert points.count == at
        there = at > commit or (at == commit and how is Crash.DIE_BEHIND)
        assert (root / "saved").exists() == there, f"killed at call {at}, {call}"
        left = leftovers(root) if at % 2 else []  # what is left is in nobody's way
        assert len(left) == (at % 2 and not there and not (at == 1 and how is Crash.DIE_BEFORE))
        again = saver.ask("save", root / "saved")
        assert again["error"] == ("FileError" if there else None)
        require_whole(root / "saved", expected)
        load(root / "older")
        shutil.rmtree(root / "saved")
        leftovers(root)


def test_a_save_since_an_earlier_one_that_is_killed_at_any_call_leaves_both_whole(saver, points, root, expected):
    """What has not changed are hard links to files of the earlier one."""
    points.arm(root)
    assert saver.ask("save", root / "saved", since=str(root / "older"))["error"] is None
    points.disarm()
    calls = points.calls
    assert any(call.name in ("link", "linkat") for call in calls)
    shutil.rmtree(root / "saved")
    for at in range(1, len(calls) + 1):
        points.arm(root, at, Crash.DIE_BEHIND)
        assert saver.ask("save", root / "saved", since=str(root / "older"))["signal"] == signal.SIGKILL
        points.disarm()
        if (root / "saved").exists():
            require_whole(root / "saved", expected)
            shutil.rmtree(root / "saved")
        leftovers(root)
        require_whole(root / "older", expected)


@pytest.mark.parametrize("how", [Crash.DIE_BEFORE, Crash.DIE_BEHIND], ids=lambda how: how.name)
def test_a_checkpoint_whose_removal_is_killed_at_any_call_is_whole_or_gone(saver, points, root, expected, how):
    assert saver.ask("save", root / "saved")["error"] is None
    points.arm(root)
    assert saver.ask("remove", root / "saved")["error"] is None
    points.disarm()
    for at in range(1, points.count + 1):
        assert saver.ask("save", root / "saved")["error"] is None
        points.arm(root, at, how)
        assert saver.ask("remove", root / "saved")["signal"] == signal.SIGKILL
        points.disarm()
        if (root / "saved").exists():
            assert (at, how) == (1, Crash.DIE_BEFORE)
            require_whole(root / "saved", expected)
            shutil.rmtree(root / "saved")
        leftovers(root)


ERRORS = short_or_long([errno.ENOSPC], [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOENT])


@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
def test_a_call_that_fails_is_a_typed_error_and_nothing_is_left(saver, points, calls, root, error):
    for at, call in enumerate(calls, 1):
        points.arm(root, at, Crash.FAIL, error)
        answer = saver.ask("save", root / "saved")
        points.disarm()
        assert answer["error"] in ("FileError", "MissingFileError"), (at, call, answer)
        assert "nothing was saved" in answer["text"]
        assert "pass a path" in answer["text"] or "create it first" in answer["text"]
        assert os.listdir(root) == ["older"], (at, call)


def test_a_disk_that_becomes_full_at_any_call_is_a_typed_error_and_nothing_is_left(saver, points, calls, root):
    for at, call in enumerate(calls, 1):
        needs_space = any(call.name in ("write", "mkdir") for call in calls[at - 1 :])
        points.arm(root, at, Crash.FILL, errno.ENOSPC)
        answer = saver.ask("save", root / "saved")
        points.disarm()
        assert answer["error"] == ("FileError" if needs_space else None), (at, call, answer)
        if needs_space:
            assert "No space left" in answer["text"]
            assert os.listdir(root) == ["older"], (at, call)
        shutil.rmtree(root / "saved", ignore_errors=True)


def test_writes_of_which_the_system_takes_a_part_are_finished(saver, points, calls, root, expected):
    for at, call in enumerate(calls, 1):
        if call.name == "write":
            points.arm(root, at, Crash.WRITE_LITTLE)
            assert saver.ask("save", root / "saved")["error"] is None
            points.disarm()
            assert points.count == len(calls) + 1  # one more write
            require_whole(root / "saved", expected)
            shutil.rmtree(root / "saved")


def test_a_save_that_is_given_up_at_any_call_is_committed_or_leaves_nothing(saver, points, calls, root, expected):
    """The writer stands still at a call, is given up, and goes on."""
    commit = number_of(calls, "rename", "")
    for at, call in enumerate(calls, 1):
        points.arm(root, at, Crash.STOP_BEFORE)
        assert saver.ask("save", root / "saved")["stopped"]
        hidden = Path(points.calls[0].path)
        points.disarm()
        assert given_up(hidden, []) == (1 < at <= commit), (at, call)
        answer = saver.go_on()
        assert (answer["error"] is None) == (not 1 < at <= commit), (at, call, answer)
        assert answer["typed"]
        if answer["error"] is None:
            require_whole(root / "saved", expected)
            shutil.rmtree(root / "saved")
        assert os.listdir(root) == ["older"], (at, call)


def an_unfinished(saver, points, calls, root):
    """The hidden directory of a save that was killed before its commit."""
    points.arm(root, number_of(calls, "rename", ""), Crash.DIE_BEFORE)
    assert saver.ask("save", root / "saved")["signal"] == signal.SIGKILL
    points.disarm()
    return Path(points.calls[0].path)


@pytest.mark.parametrize("how", [Crash.DIE_BEFORE, Crash.DIE_BEHIND], ids=lambda how: how.name)
def test_a_trainer_that_is_killed_while_it_gives_up_disturbs_nobody(saver, points, calls, root, expected, how):
    hidden = an_unfinished(saver, points, calls, root)
    points.arm(root)
    assert saver.ask("give up", hidden)["error"] is None
    points.disarm()
    count = points.count
    assert os.listdir(root) == ["older"]
    for at in range(1, count + 1):
        hidden = an_unfinished(saver, points, calls, root)
        points.arm(root, at, how)
        assert saver.ask("give up", hidden)["signal"] == signal.SIGKILL
        points.disarm()
        assert not (root / "saved").exists()
        assert saver.ask("save", root / "saved")["error"] is None
        require_whole(root / "saved", expected)
        shutil.rmtree(root / "saved")
        leftovers(root)


def test_a_writer_that_commits_while_it_is_given_up_has_done_it_before_or_fails(
    saver, other_saver, points, calls, root, expected
):
    """Both stand still, the writer before its commit; the writer goes on first."""
    commit, at = number_of(calls, "rename", ""), 0
    while True:
        at += 1
        points.arm(root, commit, Crash.STOP_BEFORE)
        assert saver.ask("save", root / "saved")["stopped"]
        hidden = points.calls[0].path
        points.arm(root, at, Crash.STOP_BEFORE)
        stopped = other_saver.ask("give up", hidden)["stopped"]
        points.disarm()
        answer = saver.go_on()
        if stopped:
            assert other_saver.go_on()["error"] is None
        assert (answer["error"], answer["typed"]) == (None if at == 1 else "FileError", True)
        if at == 1:
            require_whole(root / "saved", expected)
            shutil.rmtree(root / "saved")
        assert os.listdir(root) == ["older"]
        if not stopped:
            break
    assert at > len(os.listdir(root / "older"))  # each of its files is removed


@pytest.mark.parametrize("length", [1, 232, 233, 241, 242, 255])
def test_a_name_of_any_length_is_saved_or_refused_and_nothing_is_left(saver, points, calls, root, length):
    path = root / ("x" * length)
    answer = saver.ask("save", path)
    assert answer["error"] == (None if length + 14 <= 255 else "FileError"), answer
    shutil.rmtree(path, ignore_errors=True)
    points.arm(root, number_of(calls, "write", NAME), Crash.FAIL, errno.ENOSPC)
    assert saver.ask("save", path)["error"] == "FileError"
    points.disarm()


@pytest.fixture
def public(saver):
    """A directory that every user can reach; those of pytest are private."""
    with tempfile.TemporaryDirectory(prefix="fps-", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


AS_ROOT = os.getuid() == 0
SOMEBODY = {"user": NOBODY if AS_ROOT else os.getuid()}


@pytest.mark.parametrize("mode", [0o755, 0o700, 0o711, 0o733] if AS_ROOT else [0o500, 0o000, 0o100, 0o300], ids=oct)
def test_a_directory_without_the_permission_is_a_typed_error_and_nothing_is_left(saver, public, mode):
    parent = public / "parent"
    parent.mkdir()
    assert saver.ask("save", parent / "older")["error"] is None
    parent.chmod(mode)
    try:
        answer = saver.ask("save", parent / "saved", **SOMEBODY)
        assert answer["error"] == "FileError", answer
        assert "Permission denied" in answer["text"]
        assert "is writable" in answer["text"]
    finally:
        parent.chmod(0o700)
    assert os.listdir(parent) == ["older"]


def test_a_checkpoint_that_may_not_be_read_is_a_typed_error(saver, public):
    assert saver.ask("save", public / "saved")["error"] is None
    assert saver.ask("load", public / "saved", **SOMEBODY)["error"] is None
    for path in sorted([*(public / "saved").iterdir(), public / "saved"]):
        before = path.stat().st_mode
        path.chmod(0)
        answer = saver.ask("load", public / "saved", **SOMEBODY)
        assert answer["error"] == "FileError", answer
        assert "Permission denied" in answer["text"]
        path.chmod(before)


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99], ids=str)
def test_files_that_may_not_be_so_large_are_a_typed_error_and_nothing_is_left(saver, root, part):
    largest = max(path.stat().st_size for path in (root / "older").iterdir())
    answer = saver.ask("save", root / "saved", file_bytes=int(part * largest))
    assert answer["error"] == "FileError", answer
    assert "File too large" in answer["text"]


def test_a_disk_that_is_too_small_is_found_before_or_in_the_middle(saver, root):
    """A file system of its own, as root."""
    disk = root / "disk"
    disk.mkdir()
    needed = sum(path.stat().st_size for path in (root / "older").iterdir())
    found = {}
    for pages in range(1, needed // 4096 + 3):
        answer = saver.ask("save", disk / "saved", disk_bytes=4096 * pages)
        if answer["error"] == "PermissionError":
            disk.rmdir()
            pytest.skip("file systems cannot be mounted here")
        assert answer["error"] in ("FileError", None), answer
        assert answer["left"] == ([] if answer["error"] else ["saved"])
        found.setdefault("free, of" if "free, of" in answer["text"] else "left" if answer["error"] else "saved", pages)
    assert list(found) == ["free, of", "left", "saved"]
    disk.rmdir()

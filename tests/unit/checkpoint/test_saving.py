"""What a `Saving` answers, whatever becomes of its writer and of the process that waits."""

import gc
import os
import time
from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from fastps.checkpoint import save as saves
from fastps.checkpoint import saving as savings
from fastps.checkpoint.remote import path_of
from fastps.checkpoint.saving import Saving, given_up
from fastps.checkpoint.writer import require_free, require_space
from fastps.errors import FileError, OptionError, RayRequiredError, ShardDiedError, UnavailableError, WaitTimeoutError
from fastps.server.reading import ServerReading
from tests.support.saver import InThisProcess, Reference


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    monkeypatch.setattr(savings, "cluster", InThisProcess())


@pytest.fixture
def under_way(tmp_path):
    """A saving, and the future of its writer."""
    folder = tmp_path / ".saved-0123456789ab"
    folder.mkdir()
    (folder / "arrays").write_text("some")
    future = Future()
    return Saving(tmp_path / "saved", folder, [], Reference(future)), future


def commit(saving):
    saving._folder.rename(saving.path)


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (FileError(28, "full"), FileError), (WaitTimeoutError("late"), WaitTimeoutError),
        (ShardDiedError("gone"), UnavailableError), (UnavailableError("lost"), UnavailableError),
    ],
    ids=str,
)  # fmt: skip
def test_an_error_is_raised_again_and_nothing_is_left(under_way, tmp_path, error, raised):
    saving, future = under_way
    future.set_exception(error)
    for _ in range(3):
        with pytest.raises(raised):
            saving.result()
        assert os.listdir(tmp_path) == []
    assert saving.done()
    (tmp_path / "saved").mkdir()  # by another one, later
    with pytest.raises(raised):
        saving.result()


def test_after_an_interrupt_it_is_given_up(under_way, tmp_path, monkeypatch):
    saving, _ = under_way

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(InThisProcess, "get", interrupted)
    with pytest.raises(KeyboardInterrupt):
        saving.result()
    with pytest.raises(UnavailableError, match="given up; nothing was saved, save again"):
        saving.result()
    assert saving.done()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("error", [WaitTimeoutError("late"), ShardDiedError("gone"), RayRequiredError("no")], ids=str)
def test_an_error_behind_the_commit_is_none(under_way, tmp_path, error):
    saving, future = under_way
    commit(saving)
    future.set_exception(error)
    assert saving.result() == saving.path
    assert os.listdir(tmp_path) == ["saved"]


def test_the_checkpoint_of_another_save_is_not_taken_for_its_own(under_way, tmp_path):
    saving, future = under_way
    (tmp_path / "saved").mkdir()
    future.set_exception(FileError(17, "there already"))
    for _ in range(2):
        with pytest.raises(FileError, match="there already"):
            saving.result()
    assert os.listdir(tmp_path) == ["saved"]


def in_a_child(function):
    """What a forked process says."""
    hears, says = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            os.write(says, function().encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(says)
    said = os.read(hears, 1000).decode()
    os.close(hears)
    return said


def test_a_forked_process_does_not_give_up_what_its_parent_saves(under_way, tmp_path, monkeypatch):
    saving, future = under_way
    holder = [saving]

    def child():
        monkeypatch.setattr(InThisProcess, "get", lambda *_: raising(RayRequiredError("needs Ray")))
        try:
            found = str(holder[0].result(0.0))
        except RayRequiredError as error:
            found = str(error)
        holder.clear()
        nonlocal saving, under_way
        saving = under_way = None
        gc.collect()
        return found

    def raising(error):
        raise error

    assert in_a_child(child) == "needs Ray"
    assert len(os.listdir(tmp_path)) == 1
    commit(saving)
    assert in_a_child(child) == str(tmp_path / "saved")
    future.set_result(None)
    assert saving.result() == tmp_path / "saved"


def test_one_that_is_dropped_leaves_nothing(tmp_path):
    folder = tmp_path / ".saved-0123456789ab"
    folder.mkdir()
    Saving(tmp_path / "saved", folder, [], Reference(Future()))
    gc.collect()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("length", [15, 100, 245, 246, 247, 255])
def test_what_can_be_made_can_be_given_up_whatever_the_length_of_its_name(tmp_path, length):
    folder = tmp_path / ("." + "x" * (length - 14) + "-0123456789ab")
    folder.mkdir()
    (folder / "arrays").write_text("some")
    assert given_up(folder, [])
    assert os.listdir(tmp_path) == []
    assert not given_up(folder, [])


def test_both_parts_of_a_save_have_one_deadline_together(monkeypatch):
    waited = []

    class Slow:
        def result(self, timeout):
            waited.append(timeout)

    def save(attachment, path, since, consistent, timeout):
        assert timeout == 50.0
        time.sleep(0.2)
        return Slow()

    monkeypatch.setattr(saves, "save", save)
    session = SimpleNamespace(limit=lambda timeout: 50.0 if timeout is None else timeout)
    server = SimpleNamespace(attachment=SimpleNamespace(session=session))
    ServerReading.save(server, "x")
    assert waited[0] <= 49.8


@pytest.mark.parametrize("path", ["a\0b", b"a\0b", "\ud800", 3, None, [], object()], ids=range(7))
def test_what_is_no_path_is_refused(path):
    with pytest.raises(OptionError, match="save: expected a path"):
        path_of(path, "save")


def test_what_cannot_be_looked_at_is_a_typed_error(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("file/saved", "x" * 300, "loop/saved"):
        with pytest.raises(FileError, match="nothing was saved; pass a path"):
            require_free(tmp_path / name)
    for name in ("file", "loop"):
        with pytest.raises(FileError, match="there already"):
            require_free(tmp_path / name)
    require_free(tmp_path / "none" / "saved")


def test_a_node_that_does_not_have_the_directory_or_the_space_says_so(tmp_path):
    with pytest.raises(FileError, match="on the nodes of the shards"):
        require_space(tmp_path / "none", 1)
    with pytest.raises(FileError, match=r"bytes free, of .* that are needed; nothing was saved; make room"):
        require_space(tmp_path, 1 << 62)

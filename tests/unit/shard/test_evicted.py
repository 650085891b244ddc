"""The files to which evicted rows are appended."""

import contextlib
import os
import resource

import numpy as np
import pyarrow as pa
import pytest

import fastps
from fastps.errors import FileError, OptionError
from fastps.shard.evicted import EvictedRows
from fastps.spec.table import Table, TableInfo

INFO = TableInfo.of(("a", "b"), Table(2, rule=fastps.Adagrad(0.1)), 1)


def test_what_was_appended_is_read_while_the_file_is_still_open(tmp_path):
    evicted = EvictedRows(INFO, tmp_path, 3)
    assert list(tmp_path.iterdir()) == []
    for n in (1, 2):
        rows = [np.full((n, 2), n, np.float32), np.zeros((n, 2), np.float32)]
        evicted.append(np.arange(n, dtype=np.uint64), rows)
        (path,) = tmp_path.glob("a%2Fb-3-*.arrows")
        found = pa.ipc.open_stream(path.read_bytes()).read_all()
        assert found["key"].to_pylist() == [0, 0, 1][: 2 * n - 1]
        assert found.column_names == ["key", "row", "sum"]
    assert found["row"].to_pylist() == [[1, 1], [2, 2], [2, 2]]


def test_a_directory_that_cannot_be_written_to_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for directory in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(OptionError, match="on_evict of table `a/b`: expected a directory"):
            EvictedRows(INFO, directory, 0)


def rows(n, value):
    return np.full(n, value, np.uint64), [np.full((n, 2), value, np.float32), np.full((n, 2), -value, np.float32)]


@contextlib.contextmanager
def at_most(nbytes):
    """Files of this process grow no larger, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def found_in(folder):
    """The number of rows, and the only value, of each batch of each file."""
    files = []
    for path in sorted(folder.glob("*.arrows"), key=lambda path: path.stat().st_ctime_ns):
        batches = list(pa.ipc.open_stream(path.read_bytes()))
        for batch in batches:
            (key,) = set(batch["key"].to_pylist())
            assert set(np.ravel(batch["row"].to_pylist())) == {key}
            assert set(np.ravel(batch["sum"].to_pylist())) == {-key}
        files.append([(batch.num_rows, batch["key"][0].as_py()) for batch in batches])
    return files


def test_rows_that_the_disk_has_no_room_for_are_named_and_all_others_are_readable(tmp_path):
    evicted = EvictedRows(INFO, tmp_path, 0)
    evicted.append(*rows(100, 1))
    (path,) = tmp_path.iterdir()
    with at_most(path.stat().st_size + 1000), pytest.raises(FileError, match=r"100 evicted rows are lost, .*\[2, 2, 2"):
        evicted.append(*rows(100, 2))
    evicted.append(*rows(100, 3))
    evicted.append(*rows(5, 4))
    assert found_in(tmp_path) == [[(100, 1), (100, 3), (5, 4)]]


def test_what_cannot_be_taken_back_is_followed_by_another_file(tmp_path, monkeypatch):
    def fails(descriptor, nbytes):
        raise OSError("read-only by now")

    evicted = EvictedRows(INFO, tmp_path, 0)
    evicted.append(*rows(100, 1))
    (path,) = tmp_path.iterdir()
    whole = path.stat().st_size
    monkeypatch.setattr(os, "ftruncate", fails)
    with at_most(whole + 1000), pytest.raises(FileError):
        evicted.append(*rows(100, 2))
    evicted.append(*rows(100, 3))
    assert path.stat().st_size == whole + 1000
    path.write_bytes(path.read_bytes()[:whole])  # a reader gets this far
    assert found_in(tmp_path) in ([[(100, 1)], [(100, 3)]], [[(100, 3)], [(100, 1)]])


def test_a_file_that_cannot_begin_is_not_left(tmp_path):
    evicted = EvictedRows(INFO, tmp_path, 0)
    with at_most(8), pytest.raises(FileError):
        evicted.append(*rows(3, 1))
    assert list(tmp_path.iterdir()) == []
    evicted.append(*rows(3, 2))
    assert found_in(tmp_path) == [[(3, 2)]]

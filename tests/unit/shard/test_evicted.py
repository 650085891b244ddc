"""The files to which evicted rows are appended."""

import numpy as np
import pyarrow as pa
import pytest

import fastps
from fastps.errors import OptionError
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

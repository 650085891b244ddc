"""Parquet files and Arrow data of a table, without a server: a double records what would be set."""

import random
import re
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastps.errors import DtypeError, FastPSError, FileError, MissingFileError, NamesError, OptionError
from fastps.rules import Add
from fastps.spec.table import Table, TableInfo
from fastps.tables import parquet

N, DIM = 300, 4


class Rows:
    """A double of `fastps.tables.parquet.Rows`."""

    def __init__(self, raises=None):
        self.info, self.rows, self.raises = TableInfo.of((), Table(DIM, rule=Add()), 1), {}, raises

    def require_alive(self):
        pass

    def set(self, keys, streams, timeout):
        if self.raises is not None:
            raise self.raises
        self.rows |= dict(zip(keys.tolist(), streams[0], strict=True))

    def scan(self, most, wanted, timeout):
        if self.raises is not None:
            raise self.raises
        yield np.arange(N, dtype=np.uint64), [np.ones((N, DIM), np.float32)]


@pytest.fixture
def path(tmp_path):
    assert parquet.write(Rows(), tmp_path / "rows.parquet", N, False, None) == N
    return tmp_path / "rows.parquet"


def test_what_was_written_is_read_from_a_path_of_any_kind(path):
    with path.open("rb") as file:
        for source in (path, str(path), bytes(path), file):
            rows = Rows()
            assert parquet.read(rows, source, 100, None) == N
            assert len(rows.rows) == N


def test_whatever_is_damaged_is_a_file_error(path):
    whole, rng = path.read_bytes(), random.Random(7)
    refused = []
    for attempt in range(300):
        damaged = bytearray(whole[: rng.randrange(len(whole))] if attempt % 3 == 0 else whole)
        for _ in range(rng.choice([0, 1, 20]) if damaged else 0):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            parquet.read(Rows(), path, 100, None)
        except FastPSError as error:  # some can be read, and say something else
            refused.append(error)
    files = [error for error in refused if isinstance(error, FileError)]
    assert len(files) > 100
    assert all(str(path) in str(error) and error.__cause__ is not None for error in files)


def test_what_is_raised_while_rows_are_set_or_read_is_not_taken_for_a_damaged_file(path):
    for error in (TimeoutError("of a signal handler"), pa.ArrowInvalid("of a hook")):
        with pytest.raises(type(error)) as caught:
            parquet.read(Rows(error), path, 100, None)
        assert caught.value is error
        with pytest.raises(type(error)) as caught:
            parquet.write(Rows(error), path, 100, False, None)
        assert caught.value is error
        reader = pa.RecordBatchReader.from_batches(TABLE.schema, TABLE.to_batches())
        with pytest.raises(type(error)) as caught:
            parquet.take_all(Rows(error), SimpleNamespace(__arrow_c_stream__=reader.__arrow_c_stream__), None)
        assert caught.value is error
    assert [file.name for file in path.parent.iterdir()] == ["rows.parquet"]


def test_a_file_that_cannot_be_written_is_a_file_error_that_names_it(tmp_path):
    (tmp_path / "directory").mkdir()
    for target in (tmp_path / "missing" / "rows.parquet", tmp_path / "directory"):
        with pytest.raises(FileError, match=re.escape(repr(str(target)))) as caught:
            parquet.write(Rows(), target, 100, False, None)
        assert isinstance(caught.value.__cause__, OSError)
        assert caught.value.errno == caught.value.__cause__.errno
        assert isinstance(caught.value, FileNotFoundError) == (target.name == "rows.parquet")
    assert [file.name for file in tmp_path.iterdir()] == ["directory"]


def test_a_file_that_is_not_there_is_what_open_would_raise_and_a_directory_is_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="0 rows were set before") as caught:
        parquet.read(Rows(), tmp_path / "rows.parquet", 100, None)
    assert isinstance(caught.value, MissingFileError)
    with pytest.raises(FileError) as caught:
        parquet.read(Rows(), tmp_path, 100, None)
    assert not isinstance(caught.value, FileNotFoundError)


@pytest.mark.parametrize("path", [None, 5, ["rows.parquet"]])
def test_what_is_no_path_is_an_option_error(path):
    with pytest.raises(OptionError, match="load: expected a path"):
        parquet.read(Rows(), path, 100, None)
    with pytest.raises(OptionError, match="export: expected a path"):
        parquet.write(Rows(), path, 100, False, None)


TABLE = pa.table({"key": [1, 2], "row": pa.array([[1.0] * DIM] * 2, pa.list_(pa.float32(), DIM))})


def test_a_batch_that_does_not_fit_is_refused_in_the_name_of_the_operation_and_sets_nothing(tmp_path):
    pq.write_table(TABLE.rename_columns(["key", "another"]), tmp_path / "rows.parquet")
    rows = Rows()
    with pytest.raises(NamesError, match="load `table`: expected the columns"):
        parquet.read(rows, tmp_path / "rows.parquet", 100, None)
    with pytest.raises(NamesError, match="from_arrow `table`: expected the columns"):
        parquet.take_all(rows, TABLE.rename_columns(["key", "another"]), None)
    assert rows.rows == {}


def test_a_stream_that_breaks_is_a_dtype_error_that_says_how_far_it_came():
    def batches():
        yield from TABLE.to_batches()
        raise RuntimeError("of theirs")

    def refuse(schema=None):
        raise KeyError("of theirs")

    reader = pa.RecordBatchReader.from_batches(TABLE.schema, batches())
    for data, n in ((reader, 2), (SimpleNamespace(__arrow_c_stream__=refuse), 0), (pa.array([1]), 0)):
        if hasattr(data, "__arrow_c_stream__"):
            with pytest.raises(DtypeError, match=f"{n} rows were set before; pass a pyarrow.Table") as caught:
                parquet.take_all(Rows(), data, None)
            assert caught.value.__cause__ is not None
        else:
            with pytest.raises(DtypeError, match=r"pass a pyarrow\.Table"):
                parquet.take_all(Rows(), data, None)

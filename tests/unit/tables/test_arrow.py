"""Files and Arrow data of a table, without a server: what a table would set is noted."""

import random
import re
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from fastps.errors import DtypeError, FastPSError, FileError, MissingFileError, NamesError, OptionError, ShapeError
from fastps.rules import Add
from fastps.spec.table import Table, TableInfo
from fastps.tables import arrow

N, DIM = 300, 4


class Rows:
    """In the place of a TableSession."""

    def __init__(self, raises=None):
        self.info, self.rows, self.raises = TableInfo.of((), Table(DIM, rule=Add()), 1), {}, raises
        self.session = SimpleNamespace(require_alive=lambda: None)

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
    assert arrow.write(Rows(), tmp_path / "rows.parquet", N, False, None) == N
    return tmp_path / "rows.parquet"


def test_what_was_written_is_read_from_a_path_of_any_kind(path):
    with path.open("rb") as file:
        for source in (path, str(path), bytes(path), file):
            rows = Rows()
            assert arrow.read(rows, source, 100, None) == N
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
            arrow.read(Rows(), path, 100, None)
        except FastPSError as error:  # some can be read, and say something else
            refused.append(error)
    files = [error for error in refused if isinstance(error, FileError)]
    assert len(files) > 100
    assert all(str(path) in str(error) and error.__cause__ is not None for error in files)


def test_what_is_raised_while_rows_are_set_or_read_is_not_taken_for_a_damaged_file(path):
    for error in (TimeoutError("of a signal handler"), pa.ArrowInvalid("of a hook")):
        with pytest.raises(type(error)) as caught:
            arrow.read(Rows(error), path, 100, None)
        assert caught.value is error
        with pytest.raises(type(error)) as caught:
            arrow.write(Rows(error), path, 100, False, None)
        assert caught.value is error
        reader = pa.RecordBatchReader.from_batches(TABLE.schema, TABLE.to_batches())
        with pytest.raises(type(error)) as caught:
            arrow.take_all(Rows(error), SimpleNamespace(__arrow_c_stream__=reader.__arrow_c_stream__), None)
        assert caught.value is error
    assert [file.name for file in path.parent.iterdir()] == ["rows.parquet"]


def test_a_file_that_cannot_be_written_is_a_file_error_that_names_it(tmp_path):
    (tmp_path / "directory").mkdir()
    for target in (tmp_path / "missing" / "rows.parquet", tmp_path / "directory"):
        with pytest.raises(FileError, match=re.escape(repr(str(target)))) as caught:
            arrow.write(Rows(), target, 100, False, None)
        assert isinstance(caught.value.__cause__, OSError)
        assert caught.value.errno == caught.value.__cause__.errno
        assert isinstance(caught.value, FileNotFoundError) == (target.name == "rows.parquet")
    assert [file.name for file in tmp_path.iterdir()] == ["directory"]


def test_a_file_that_is_not_there_is_what_open_would_raise_and_a_directory_is_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="0 rows were set before") as caught:
        arrow.read(Rows(), tmp_path / "rows.parquet", 100, None)
    assert isinstance(caught.value, MissingFileError)
    with pytest.raises(FileError) as caught:
        arrow.read(Rows(), tmp_path, 100, None)
    assert not isinstance(caught.value, FileNotFoundError)


@pytest.mark.parametrize("path", [None, 5, ["rows.parquet"]])
def test_what_is_no_path_is_an_option_error(path):
    with pytest.raises(OptionError, match="load: expected a path"):
        arrow.read(Rows(), path, 100, None)
    with pytest.raises(OptionError, match="export: expected a path"):
        arrow.write(Rows(), path, 100, False, None)


ROWS = pa.array([[1.0] * DIM] * 2, pa.list_(pa.float32(), DIM))
TABLE = pa.table({"key": pa.array([1, 2]), "row": ROWS})


@pytest.mark.parametrize(
    ("table", "error", "words"),
    [
        (pa.table([[1, 2], ROWS, ROWS], names=["key", "row", "row"]), NamesError, "each once"),
        (pa.table({f"c{i}": [1] for i in range(5000)}), NamesError, "5,000 in all"),
        (pa.table({"key": pa.array([1, None]), "row": ROWS}), DtypeError, "key has nulls; leave their rows out"),
        (pa.table({"key": [1, 2], "row": [[1.0] * DIM, [1.0]]}), ShapeError, "expected 4 values a row"),
    ],
)
def test_columns_that_do_not_fit_are_told(table, error, words):
    rows = Rows()
    with pytest.raises(error, match=words) as caught:
        arrow.take_all(rows, table, None)
    assert len(str(caught.value)) < 400
    assert rows.rows == {}


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float64(), DIM), pa.list_(pa.float64()), pa.list_(pa.int32()), pa.large_list(pa.float64())]
)
def test_what_is_told_of_a_column_of_another_type_works(kind):
    table = pa.table({"key": [1, 2], "row": pa.array([[1] * DIM] * 2, kind)})
    with pytest.raises(DtypeError) as caught:
        arrow.take_all(Rows(), table, None)
    kind = eval(re.search(r"cast it to (pa\.list_\(.*\))$", str(caught.value)).group(1), {"pa": pa})
    rows = Rows()
    assert arrow.take_all(rows, table.set_column(1, "row", table["row"].cast(kind)), None) == 2
    assert rows.rows[2].tolist() == [1] * DIM


def test_lists_of_any_size_are_rows_where_all_have_the_same():
    for kind in (pa.list_(pa.float32()), pa.large_list(pa.float32())):
        rows = Rows()
        arrow.take_all(rows, pa.table({"key": [1, 2], "row": pa.array([[1, 2, 3, 4]] * 2, kind)}), None)
        assert rows.rows[1].tolist() == [1, 2, 3, 4]


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
                arrow.take_all(Rows(), data, None)
            assert caught.value.__cause__ is not None
        else:
            with pytest.raises(DtypeError, match=r"pass a pyarrow\.Table"):
                arrow.take_all(Rows(), data, None)

"""The rows of a table as Arrow columns, and back."""

import re

import numpy as np
import pyarrow as pa
import pytest

import fastps
from fastps.errors import DtypeError, NamesError, ShapeError
from fastps.rules import Add
from fastps.spec.columns import batch_of, rows_of, schema_of
from fastps.spec.table import Table, TableInfo

DIM = 4
INFO = TableInfo.of(("t",), Table(DIM, rule=Add()), 1)
ROWS = pa.array([[1.0] * DIM] * 2, pa.list_(pa.float32(), DIM))


def rows_from(table, info=INFO):
    (batch,) = table.to_batches()
    return rows_of(info, batch, "from_arrow `t`")


@pytest.mark.parametrize("kind", ["int64", "uint64", "bytes"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_with_their_slots_come_back_as_they_were(kind, dtype, rng):
    info = TableInfo.of(("t",), Table(DIM, rule=fastps.Adam(0.1), keys=kind, dtype=dtype), 1)
    keys = np.array([2**64 - 1, 0, 7], np.uint64)
    streams = [rng.normal(size=(3, n)).astype(dtype) for _, n in info.streams]
    schema = schema_of(info, True)
    assert schema.names == ["key", *(name for name, _ in info.streams)]
    found, back = rows_of(info, batch_of(info, schema, keys, streams), "load `t`")
    assert found.tolist() == keys.tolist()
    for one, other in zip(streams, back, strict=True):
        assert other.dtype == dtype
        assert np.array_equal(one, other)


def test_a_slot_of_one_value_per_row_is_a_column_of_plain_numbers():
    info = TableInfo.of(("t",), Table(DIM, rule=fastps.RowAdagrad(0.1)), 1)
    assert [n for _, n in info.streams] == [DIM, 1]
    schema = schema_of(info, True)
    assert schema.types == [pa.int64(), pa.list_(pa.float32(), DIM), pa.float32()]
    assert schema_of(info, False).types == schema.types[:2]
    values = [np.ones((2, DIM), np.float32), np.array([[3], [4]], np.float32)]
    _, streams = rows_of(info, batch_of(info, schema, np.arange(2, dtype=np.uint64), values), "load `t`")
    assert streams[1].tolist() == [[3], [4]]


def test_a_stream_without_a_column_is_none():
    info = TableInfo.of(("t",), Table(DIM, rule=fastps.Adagrad(0.1)), 1)
    keys, (rows, slot) = rows_from(pa.table({"row": ROWS, "key": [5, 6]}), info)
    assert keys.tolist() == [5, 6]
    assert rows.shape == (2, DIM)
    assert slot is None


@pytest.mark.parametrize(
    ("table", "error", "words"),
    [
        (pa.table([[1, 2], ROWS, ROWS], names=["key", "row", "row"]), NamesError, "each once"),
        (pa.table({f"c{i}": [1] for i in range(5000)}), NamesError, "5,000 in all"),
        (pa.table({"key": pa.array([1, None]), "row": ROWS}), DtypeError, "key has nulls; omit their rows"),
        (pa.table({"key": [1, 2], "row": [[1.0] * DIM, [1.0]]}), ShapeError, "expected 4 values per row, got 1 to 4"),
    ],
)
def test_columns_that_do_not_fit_are_refused_with_a_short_message(table, error, words):
    with pytest.raises(error, match=words) as caught:
        rows_from(table)
    assert str(caught.value).startswith("from_arrow `t`: ")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float64(), DIM), pa.list_(pa.float64()), pa.list_(pa.int32()), pa.large_list(pa.float64())]
)
def test_the_cast_that_a_message_proposes_works(kind):
    table = pa.table({"key": [1, 2], "row": pa.array([[1] * DIM] * 2, kind)})
    with pytest.raises(DtypeError) as caught:
        rows_from(table)
    kind = eval(re.search(r"cast it to (pa\.list_\(.*\))$", str(caught.value)).group(1), {"pa": pa})
    _, (rows,) = rows_from(table.set_column(1, "row", table["row"].cast(kind)))
    assert rows.tolist() == [[1] * DIM] * 2


def test_lists_of_any_arrow_kind_are_rows_where_all_have_as_many_values():
    for kind in (pa.list_(pa.float32()), pa.large_list(pa.float32())):
        _, (rows,) = rows_from(pa.table({"key": [1, 2], "row": pa.array([[1, 2, 3, 4]] * 2, kind)}))
        assert rows[0].tolist() == [1, 2, 3, 4]

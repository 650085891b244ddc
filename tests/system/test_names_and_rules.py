"""What a server knows by name, and which rule its tables have."""

from __future__ import annotations

import numpy as np
import pytest

import fastps

pytestmark = pytest.mark.usefixtures("ray_local")

KEYS, ONES = np.arange(3), np.ones((3, 4), np.float32)


@pytest.fixture(scope="module")
def table(ray_local):
    """A table whose keys, if it has rows, are KEYS."""
    with fastps.ParameterServer(fastps.Table(4)) as ps:
        yield ps.table


def rows_after(ps, name, pushes):
    ps[name].set(KEYS, np.zeros((3, 4), np.float32))
    for _ in range(pushes):
        ps[name].push(KEYS, ONES)
    return float(ps[name].pull(KEYS)[0, 0])


def test_tables_inherit_the_rule_of_the_server_unless_they_have_their_own():
    params = {
        "w": np.zeros(5, np.float32),
        "deep": {"t": fastps.Table(4)},
        "own": fastps.Table(4, rule=fastps.SGD(1.0)),
    }
    with fastps.ParameterServer(params, rule=fastps.SGD(0.1, momentum=0.9)) as ps:
        assert rows_after(ps, "deep/t", 2) == pytest.approx(-0.1 - 0.19)
        assert rows_after(ps, "own", 2) == pytest.approx(-2)
        ps.push({"w": np.ones(5, np.float32)})
        ps.configure(lr=0.5)  # wherever there is one
        assert ps["deep/t"].hyper["lr"] == ps["own"].hyper["lr"] == 0.5
        assert "SGD(0.1, momentum=0.9)" in repr(ps)


def test_without_a_rule_arrays_and_tables_add():
    with fastps.ParameterServer({"w": np.zeros(5), "t": fastps.Table(4)}) as ps:
        ps.push({"w": np.ones(5)})
        assert ps.pull()["w"].tolist() == [1] * 5
        assert rows_after(ps, "t", 3) == 3
    with fastps.ParameterServer(fastps.Table(4), rule=fastps.RowAdagrad(0.5)) as ps:  # a rule of rows
        assert rows_after(ps, "table", 1) == pytest.approx(-0.5)


def test_patterns_are_for_tables_too():
    params = {"emb_a": fastps.Table(4), "emb_b": fastps.Table(4), "w": np.zeros(3), "b": np.zeros(3)}
    rules = {"emb*": fastps.RowAdagrad(0.5), "b": fastps.SGD(1.0), "*": fastps.Adam(1e-3)}
    with fastps.ParameterServer(params, rule=rules) as ps:
        assert rows_after(ps, "emb_b", 1) == pytest.approx(-0.5)
        assert sorted(ps.hyper) == ["*", "b", "emb_a", "emb_b"]
        ps.configure("emb*", lr=0.25)
        assert ps["emb_a"].hyper["lr"] == ps["emb_b"].hyper["lr"] == 0.25
        assert ps.hyper["b"]["lr"] == 1.0


def test_names_are_those_of_arrays_and_tables():
    params = {"a": {"w": np.zeros((2, 3), np.float32)}, "b": np.zeros(3), "t": fastps.Table(4)}
    with fastps.ParameterServer(params) as ps:
        assert list(ps) == ["a/w", "b", "t"]
        assert len(ps) == 3
        assert "a/w" in ps
        assert "t" in ps
        assert "a" not in ps
        assert 0 not in ps
        ps.push({"a": {"w": np.ones((2, 3), np.float32)}, "b": np.ones(3)})
        assert ps["a/w"].pull().tolist() == [[1] * 3] * 2
        assert ps["a/w"].view().tolist() == [[1] * 3] * 2
        assert repr(ps["a/w"]) == "<array `a/w`: float32[2, 3]>"
        with pytest.raises(fastps.NamesError, match="no array or table is called 'w'"):
            ps["w"]
        with pytest.raises(KeyError):
            ps[0]


def test_gradients_of_a_mapping_may_be_a_list_of_as_many():
    with fastps.ParameterServer({"a": np.zeros(2), "b": np.zeros(3)}) as ps:
        arrays = [np.ones(2), np.ones(3)]
        with pytest.raises(fastps.NamesError, match="the 2 arrays of gradients in a list, got a list of 1"):
            ps.push(arrays[:1])
        ps.push(arrays)
        assert ps.pull()["b"].tolist() == [1, 1, 1]


def test_a_server_of_many_arrays_prints_in_one_line_and_numbers_of_numpy_are_sizes():
    with fastps.ParameterServer({f"{i:04}": np.zeros(1) for i in range(2000)}) as ps:
        assert len(repr(ps)) < 500
        assert "\n" not in repr(ps)
    with fastps.ParameterServer(np.prod((2, 3)), num_shards=np.int8(1), timeout=np.float32(30)) as ps:
        assert ps.pull().tolist() == [0] * 6
        assert list(ps) == ["params"]
        assert ps["params"].pull().tolist() == [0] * 6


def test_a_file_that_pandas_has_written_again_is_loaded(table, tmp_path):
    pandas = pytest.importorskip("pandas")
    table.set(KEYS, ONES * KEYS[:, np.newaxis].astype(np.float32))
    table.export(tmp_path / "rows.parquet")
    pandas.read_parquet(tmp_path / "rows.parquet").to_parquet(tmp_path / "again.parquet")
    table.evict(KEYS)
    assert table.load(tmp_path / "again.parquet") == 3
    assert table.pull(KEYS)[:, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "changed", "directory", "text"])
def test_a_file_that_is_damaged_is_a_file_error_that_names_it(table, damage, tmp_path):
    path = tmp_path / "rows.parquet"
    table.set(KEYS, ONES)
    table.export(path)
    whole = path.read_bytes()
    if damage == "directory":
        path = tmp_path
    elif damage == "missing":
        path = tmp_path / "nothing.parquet"
    else:
        changed = whole[:-40] + b"\xff" * 32 + whole[-8:]
        path.write_bytes(
            {"empty": b"", "cut": whole[: len(whole) // 2], "changed": changed, "text": b"hi" * 99}[damage]
        )
    with pytest.raises(fastps.FileError) as caught:
        table.load(path)
    assert str(path) in str(caught.value)
    assert "0 rows were set" in str(caught.value)
    assert isinstance(caught.value, OSError)
    assert (table.pull(KEYS) == 1).all()


def test_what_is_told_of_tensors_works_for_rows_and_vectors_too(table):
    torch = pytest.importorskip("torch")
    tensor = torch.ones(3, 4, dtype=torch.float64)
    with pytest.raises(fastps.DtypeError, match=r"\.to\(torch\.float32\)"):
        table.set(KEYS, tensor)
    table.set(KEYS, tensor.to(torch.float32))
    with pytest.raises(fastps.ShapeError, match=r"pass it as \.reshape\(3, 4\)"):
        table.set(KEYS, np.ones(12, np.float32))
    for vector in (torch.ones(4, requires_grad=True), [1, 1, 1, 1], range(4), np.ones(4)):
        assert len(table.nearest(vector)[0]) == 3
    with pytest.raises(fastps.DtypeError) as caught:
        table.nearest("x" * 100_000)
    assert len(str(caught.value)) < 300
    with pytest.raises(fastps.DtypeError, match="fill it first"):
        table.nearest(np.ma.array(np.ones(4), mask=[1, 0, 0, 0]))
    with pytest.raises(fastps.ShapeError, match=r"pass np\.empty\(\(3, 4\), np\.float32\), or omit out="):
        table.pull(KEYS, out=np.empty((4, 3), np.float32))

"""The arrays of a checkpoint in one file, and the rows of a table."""

import copy
import io
import os
from pathlib import Path

import numpy as np
import pytest

import fastps
from fastps import CheckpointError, FileError, MissingFileError, OptionError, Table
from fastps.checkpoint.export import NamedArrays, export_arrays, export_table, last_of, named_arrays, write_safetensors
from fastps.checkpoint.load import load
from fastps.checkpoint.summary import summary
from tests.support.checkpoints import add_increment, rewrite, write_checkpoint


def a_model():
    dtypes = pytest.importorskip("ml_dtypes")
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    return {
        "layers": [{"w": weight, "half": np.array([1, 2, 3], dtypes.bfloat16)}],
        "tied": weight,
        "double": np.array(1.5),
        "mask": np.array([True, False, True]),
        "n": np.array([41]),
        "nothing": np.zeros((0, 4), np.float32),
        "kind": "constant",
    }


def exported(folder, target, write=write_safetensors, **options):
    named = named_arrays(load(folder, True).state, **options)
    export_arrays(target, named, write)
    return named


def read_by_others(path):
    """By name: type, shape, bytes."""
    safetensors = pytest.importorskip("safetensors")
    return {
        name: (found["dtype"], tuple(found["shape"]), bytes(found["data"]))
        for name, found in safetensors.deserialize(path.read_bytes())
    }


def test_safetensors_reads_the_arrays_by_their_own_names(tmp_path):
    model = a_model()
    write_checkpoint(tmp_path / "saved", model)
    exported(tmp_path / "saved", tmp_path / "model.safetensors")
    found = read_by_others(tmp_path / "model.safetensors")
    weight = ("F32", (2, 3), model["tied"].tobytes())
    assert found == {
        "layers/0/w": weight,
        "layers/0/half": ("BF16", (3,), model["layers"][0]["half"].tobytes()),
        "tied": weight,
        "double": ("F64", (), np.array(1.5).tobytes()),
        "mask": ("BOOL", (3,), b"\1\0\1"),
        "n": ("I64", (1,), np.array([41]).tobytes()),
        "nothing": ("F32", (0, 4), b""),
    }
    assert sorted(os.listdir(tmp_path)) == ["model.safetensors", "saved"]


def test_one_array_has_the_name_that_it_has_in_the_checkpoint(tmp_path):
    write_checkpoint(tmp_path / "saved", np.ones(3))
    assert list(exported(tmp_path / "saved", tmp_path / "a").arrays) == ["params"]


def test_stored_values_of_half_precision_are_float32(tmp_path):
    write_checkpoint(tmp_path / "saved", a_model())
    exported(tmp_path / "saved", tmp_path / "a", stored=True)
    found = read_by_others(tmp_path / "a")
    assert found["layers/0/half"] == ("F32", (3,), np.array([1, 2, 3], np.float32).tobytes())
    assert found["double"][0] == "F64"


def test_slots_are_beside_the_arrays(tmp_path):
    write_checkpoint(tmp_path / "saved", a_model(), rule=fastps.Adam(0.1), slots={"m": 2.0, "v": 3.0})
    without = exported(tmp_path / "saved", tmp_path / "a").arrays
    found = exported(tmp_path / "saved", tmp_path / "b", slots=True).arrays
    assert set(found) - set(without) == {
        f"slots/{slot}/{name}" for slot in "mv" for name in ("layers/0/w", "layers/0/half", "double")
    }
    assert found["slots/v/layers/0/half"].dtype == np.float32
    assert (found["slots/v/layers/0/w"] == 3).all()


def test_types_that_others_do_not_have_are_omitted_and_named(tmp_path):
    params = {"w": np.zeros(2), "text": np.array(["ab"]), "pair": np.zeros(2, [("x", "<i4")])}
    write_checkpoint(tmp_path / "saved", params)
    named = exported(tmp_path / "saved", tmp_path / "a")
    assert list(named.arrays) == ["w"]
    assert named.omitted == ("text", "pair")


def test_torch_reads_a_state_dict_with_weights_only(tmp_path):
    torch = pytest.importorskip("torch")
    from fastps.checkpoint.state_dict import write_state_dict

    write_checkpoint(tmp_path / "saved", a_model())
    exported(tmp_path / "saved", tmp_path / "model.pt", write_state_dict)
    found = torch.load(tmp_path / "model.pt", weights_only=True)
    assert {name: (str(value.dtype), tuple(value.shape), value.tolist()) for name, value in found.items()} == {
        "layers/0/w": ("torch.float32", (2, 3), [[0, 1, 2], [3, 4, 5]]),
        "layers/0/half": ("torch.bfloat16", (3,), [1, 2, 3]),
        "tied": ("torch.float32", (2, 3), [[0, 1, 2], [3, 4, 5]]),
        "double": ("torch.float64", (), 1.5),
        "mask": ("torch.bool", (3,), [True, False, True]),
        "n": ("torch.int64", (1,), [41]),
        "nothing": ("torch.float32", (0, 4), []),
    }
    assert found["tied"].data_ptr() == found["layers/0/w"].data_ptr()


def test_a_model_of_torch_loads_what_was_exported(tmp_path):
    torch = pytest.importorskip("torch")
    from fastps.checkpoint.state_dict import write_state_dict

    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    write_checkpoint(tmp_path / "saved", model.state_dict())
    exported(tmp_path / "saved", tmp_path / "model.pt", write_state_dict)
    other = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


def test_rows_have_the_columns_of_a_table(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = {5: [[1.0, 2.0], [0.5]], -6: [[3.0, 4.0], [0.25]]}
    tables = {"users": (Table(2, rule=fastps.RowAdagrad(0.1), admit=2), rows), "words": (Table(1, keys="bytes"), {})}
    write_checkpoint(tmp_path / "saved", np.zeros(2), tables)
    found = load(tmp_path / "saved")
    assert export_table(tmp_path / "a", found, "users") == 2
    assert parquet.read_table(tmp_path / "a").to_pylist() == [
        {"key": 5, "row": [1.0, 2.0]}, {"key": -6, "row": [3.0, 4.0]},
    ]  # fmt: skip
    assert export_table(tmp_path / "b", found, "users", slots=True) == 2
    assert [row["sum"] for row in parquet.read_table(tmp_path / "b").to_pylist()] == [0.5, 0.25]
    assert export_table(tmp_path / "c", found, "words") == 0
    assert str(parquet.read_schema(tmp_path / "c").field("key").type) == "uint64"
    with pytest.raises(OptionError, match=r"'users', 'words'"):
        export_table(tmp_path / "d", found, None)
    with pytest.raises(OptionError, match=r"no table 'others'"):
        export_table(tmp_path / "d", found, "others")
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c", "saved"]


def test_the_newest_of_rows_in_increments_counts(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    write_checkpoint(tmp_path / "saved", None, {"t": (Table(1), {key: [[0.0]] for key in range(5)})})
    add_increment(tmp_path / "saved", 0, {3: [[1.0]], -7: [[1.0]]})
    add_increment(tmp_path / "saved", 0, {3: [[2.0]], 4: [[2.0]]})
    (table,) = summary(tmp_path / "saved").tables
    assert (table.rows, table.changes) == (5, 4)
    assert export_table(tmp_path / "a", load(tmp_path / "saved"), None) == 6
    found = {row["key"]: row["row"] for row in parquet.read_table(tmp_path / "a").to_pylist()}
    assert found == {0: [0.0], 1: [0.0], 2: [0.0], 3: [2.0], 4: [2.0], -7: [1.0]}
    add_increment(tmp_path / "saved", 0, {key: [[3.0]] for key in (0, 1, 2, 3, 4, -7)})
    assert export_table(tmp_path / "b", load(tmp_path / "saved"), None) == 6
    assert set(parquet.read_table(tmp_path / "b").column("row").to_pylist()[0]) == {3.0}


def test_the_last_of_each_key_is_chosen(rng):
    batches = [rng.integers(0, 9, n).astype(np.uint64) for n in (5, 0, 12, 1)]
    batches = [np.unique(keys) for keys in batches]
    wanted = {key: number for number, keys in enumerate(batches) for key in keys.tolist()}
    chosen = last_of(batches)
    assert [len(one) for one in chosen] == [len(keys) for keys in batches]
    found = [(key, number) for number, keys in enumerate(batches) for key in keys[chosen[number]].tolist()]
    assert sorted(found) == sorted(wanted.items())
    assert last_of([]) == []


def test_a_server_without_arrays_or_tables_has_none_to_export(tmp_path):
    write_checkpoint(tmp_path / "arrays", np.zeros(2))
    write_checkpoint(tmp_path / "table", None, {"t": (Table(1), {1: [[2.0]]})})
    with pytest.raises(OptionError, match="no tables"):
        export_table(tmp_path / "a", load(tmp_path / "arrays"), None)
    with pytest.raises(OptionError, match="tables alone"):
        named_arrays(load(tmp_path / "table").state)
    assert export_table(tmp_path / "a", load(tmp_path / "table"), None) == 1


def test_a_name_that_comes_twice_is_an_error(tmp_path):
    manifest = write_checkpoint(tmp_path, {"a": np.zeros(2), "b": np.ones(2)})
    server = copy.deepcopy(manifest.server)
    server["structure"]["tree"]["names"] = ["a", "a"]
    rewrite(tmp_path, server=server)
    with pytest.raises(CheckpointError, match="two arrays are called `a`"):
        named_arrays(load(tmp_path).state)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "no space"), FileError(28, "no space")])
def test_after_an_error_nothing_is_left(tmp_path, error):
    write_checkpoint(tmp_path / "saved", np.zeros(2))

    def write(path, named):
        path.write_bytes(b"some")
        assert len(os.listdir(tmp_path)) == 2
        raise error

    with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else FileError):
        exported(tmp_path / "saved", tmp_path / "a", write)
    assert os.listdir(tmp_path) == ["saved"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(27, "too large")], ids=repr)
def test_what_ends_a_write_of_torch_is_not_hidden_by_it(tmp_path, monkeypatch, error):
    pytest.importorskip("torch")
    from fastps.checkpoint.state_dict import write_state_dict

    class Failing(io.FileIO):
        def write(self, data):
            raise error

    monkeypatch.setattr(Path, "open", lambda path, mode: Failing(path, mode))
    with pytest.raises(type(error)):
        write_state_dict(tmp_path / "a", NamedArrays({"w": np.zeros(1000)}, ()))


def test_what_is_there_is_not_replaced(tmp_path):
    write_checkpoint(tmp_path / "saved", np.zeros(2), {"t": (Table(1), {})})
    found = load(tmp_path / "saved")
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")

    def write(path, named):
        write_safetensors(path, named)
        (tmp_path / "new").write_text("mine")

    for name, writer in (("mine", write_safetensors), ("link", write_safetensors), ("new", write)):
        with pytest.raises(FileError, match="there already"):
            export_arrays(tmp_path / name, named_arrays(found.state), writer)
    with pytest.raises(FileError, match="there already"):
        export_table(tmp_path / "mine", found, None)
    with pytest.raises(MissingFileError):
        export_arrays(tmp_path / "none" / "a", named_arrays(found.state), write_safetensors)
    assert {(tmp_path / name).read_text() for name in ("mine", "new")} == {"mine"}
    assert sorted(os.listdir(tmp_path)) == ["link", "mine", "new", "saved"]

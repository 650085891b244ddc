"""What a manifest alone says of a checkpoint, without the code of its rules and the classes of its containers."""

import copy
from collections import namedtuple

import numpy as np
import pytest

import fastps
from fastps import CheckpointError, Table
from fastps.checkpoint.load import load
from fastps.checkpoint.summary import summary
from tests.support.checkpoints import rewrite, write_checkpoint

Pair = namedtuple("Pair", "one other")


@fastps.rule
def halving(p, g, *, lr=0.5):
    return p - lr * g


def test_arrays_have_names_types_counts_and_slots(tmp_path):
    weight = np.zeros((2, 3), np.float32)
    params = {"in": weight, "out": weight, "half": np.zeros(4, np.float16), "n": np.array(3)}
    write_checkpoint(tmp_path, params, rule=fastps.Adam(0.1), slots={"m": 0.0, "v": 0.0}, step=12)
    tied, half, carried = summary(tmp_path).arrays
    assert (tied.names, tied.dtype, tied.shape, tied.step, tied.slots) == (
        ("in", "out"), "float32", (2, 3), 12, ("m", "v"),
    )  # fmt: skip
    assert (half.dtype, half.stored) == ("float16", "float32")
    assert (carried.dtype, carried.shape, carried.step, carried.slots) == ("int64", (), None, ())


def test_tables_have_settings_and_counts_without_those_of_sightings(tmp_path):
    rows = {5: [[1.0, 2.0], [0.5]], 6: [[3.0, 4.0], [0.5]]}
    table = Table(2, rule=fastps.RowAdagrad(0.25), admit=3, init=1.0)
    write_checkpoint(tmp_path, None, {"users": (table, rows)}, step=4)
    found = summary(tmp_path)
    (users,) = found.tables
    assert (users.info.name, users.info.dim, users.info.admit, users.rows, users.steps) == ("users", 2, 3, 2, (4,))
    assert users.hyper["lr"] == 0.25
    assert users.info.streams == [("row", 2), ("sum", 1)]
    assert found.updates == (4,)
    assert len(found.files) == 2  # with the sightings


def test_code_and_classes_of_the_user_are_named_and_not_needed(tmp_path):
    manifest = write_checkpoint(tmp_path, {"layers": [Pair(np.zeros(2), np.ones(3))]}, rule=halving(0.25))
    assert summary(tmp_path).classes == (f"{__name__}.Pair",)
    server = copy.deepcopy(manifest.server)
    server["structure"]["tree"]["children"][0]["children"][0]["made_by"] = ["no.such", "Pair"]
    rewrite(tmp_path, server=server)
    found = summary(tmp_path)
    assert found.classes == ("no.such.Pair",)
    assert [one.names for one in found.arrays] == [("layers/0/one",), ("layers/0/other",)]
    assert found.rules[0].source is not None
    assert found.hyper == ({"lr": 0.25},)
    with pytest.raises(CheckpointError, match=r"import no\.such"):
        load(tmp_path)
    assert load(tmp_path, True).state.arrays[1].tolist() == [1, 1, 1]


def test_a_schedule_has_no_number(tmp_path):
    write_checkpoint(tmp_path, np.zeros(3), rule=fastps.SGD(fastps.schedules.cosine(0.5, steps=10)))
    found = summary(tmp_path)
    assert found.hyper[0]["lr"] is None
    assert found.rules[0].scheduled == {"lr"}


def test_a_file_that_is_missing_or_has_another_size_has_a_problem(tmp_path):
    write_checkpoint(tmp_path, np.zeros(3))
    (file,) = tmp_path.glob("arrays-*")
    assert summary(tmp_path).problem is None
    file.write_bytes(file.read_bytes() + b"x")
    assert summary(tmp_path).problem == f"{file.name}: 129 bytes in place of 128"
    file.unlink()
    assert summary(tmp_path).problem == f"{file.name}: missing"


@pytest.mark.parametrize("part", ["structure", "tables", "rules", "consistency", "gradients"])
def test_what_is_missing_from_a_description_is_an_error(tmp_path, part):
    manifest = write_checkpoint(tmp_path, np.zeros(3))
    server = dict(manifest.server)
    del server[part]
    rewrite(tmp_path, server=server)
    with pytest.raises(CheckpointError, match=part):
        summary(tmp_path)

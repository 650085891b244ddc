"""A server is saved, and the command line lists, shows, verifies and exports what was saved."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import fastps
from fastps import RowAdagrad, Table
from tests.support.checkpoints import flip


@fastps.rule(slots={"sum": 0.0})
def slow(p, g, sum, *, lr):
    return p - lr * g, sum + g


def run(folder, *words):
    """The exit code, stdout and stderr of a process of its own, which knows no rule of this module."""
    done = subprocess.run(
        [sys.executable, "-m", "fastps", "checkpoint", *words], capture_output=True, text=True, check=False, cwd=folder
    )
    return done.returncode, done.stdout, done.stderr


def test_a_server_that_was_saved_is_listed_shown_verified_and_exported(ray_local, tmp_path, rng):
    safetensors = pytest.importorskip("safetensors")
    dtypes = pytest.importorskip("ml_dtypes")
    parquet = pytest.importorskip("pyarrow.parquet")
    weight = rng.normal(size=(40, 30)).astype(np.float32)
    params = {
        "layers": [{"w": weight, "half": rng.normal(size=500).astype(dtypes.bfloat16)}],
        "tied": weight,
        "batches": np.array([41]),
        "users": Table(4, rule=RowAdagrad(0.1), admit=2),
    }
    keys = rng.permutation(500)
    grads = {"layers": [{"w": weight, "half": np.ones(500, np.float32)}], "tied": weight}
    with fastps.ParameterServer(params, rule=slow(0.5), num_shards=2) as ps:
        for _ in range(2):
            ps["users"].pull(keys)
        ps["users"].push(keys, rng.normal(size=(500, 4)).astype(np.float32))
        ps.save(tmp_path / "step-0")
        ps.push(grads)
        ps.save(tmp_path / "step-1", since=tmp_path / "step-0")
        ps["users"].evict(keys[:5])
        ps["users"].push(keys[5:25], rng.normal(size=(20, 4)).astype(np.float32))
        ps.save(tmp_path / "step-2", since=tmp_path / "step-1")
        now, sums = ps.pull(), ps.slots("sum")
        ps["users"].export(tmp_path / "wanted.parquet", slots=True)

    code, out, errors = run(tmp_path, "ls", "--json", ".")
    assert (code, errors) == (0, "")
    zero, _, one = json.loads(out)
    assert (zero["name"], zero["state"], zero["updates"]) == ("step-0", "complete", [0])
    assert (one["name"], one["shards"], one["updates"], one["arrays"], one["tables"]) == ("step-2", 2, [1], 3, 1)
    listed = [line.split()[0] for line in run(tmp_path, "ls", ".")[1].splitlines()]
    assert listed == ["NAME", "step-0", "step-1", "step-2"]

    code, out, errors = run(tmp_path, "show", "step-2")
    assert (code, errors) == (0, "")
    assert "slow(0.5) (of the user)" in out
    assert "layers/0/w = tied" in out
    found = json.loads(run(tmp_path, "show", "step-2", "--json")[1])
    assert [(array["names"], array["step"], array["slots"]) for array in found["arrays"]] == [
        (["layers/0/w", "tied"], 1, ["sum"]), (["layers/0/half"], 1, ["sum"]), (["batches"], None, []),
    ]  # fmt: skip
    (users,) = found["tables"]
    assert (users["rows"], users["changes"], users["admit"]) == (500, 20, 2)
    assert sum(file["bytes"] for file in found["files"]) == found["bytes"] == one["bytes"]

    assert run(tmp_path, "verify", "step-2")[0::2] == (0, "")

    assert run(tmp_path, "export", "step-2", "-o", "a.safetensors", "--slots")[0::2] == (0, "")
    arrays = {
        name: bytes(tensor["data"])
        for name, tensor in safetensors.deserialize((tmp_path / "a.safetensors").read_bytes())
    }
    assert arrays == {
        "layers/0/w": now["tied"].tobytes(),
        "layers/0/half": now["layers"][0]["half"].tobytes(),
        "tied": now["tied"].tobytes(),
        "batches": now["batches"].tobytes(),
        "slots/sum/layers/0/w": sums["tied"].tobytes(),
        "slots/sum/layers/0/half": sums["layers"][0]["half"].tobytes(),
    }
    assert run(tmp_path, "export", "step-2", "--table", "users", "-o", "users.parquet", "--slots")[0::2] == (0, "")
    wanted, got = (parquet.read_table(tmp_path / f"{name}.parquet").sort_by("key") for name in ("wanted", "users"))
    assert got.schema.equals(wanted.schema, check_metadata=True)
    assert got.to_pylist() == wanted.to_pylist()
    assert got.num_rows == 495

    flip(next((tmp_path / "step-2").glob("rows-*")))
    code, out, errors = run(tmp_path, "verify", "step-2")
    assert (code, out.count("\n"), errors.count("\n")) == (1, 1, 1)
    code, _, errors = run(tmp_path, "export", "step-2", "-o", "b.safetensors")
    assert (code, errors.count("\n")) == (1, 1)
    assert sorted(os.listdir(tmp_path)) == [
        "a.safetensors",
        "step-0",
        "step-1",
        "step-2",
        "users.parquet",
        "wanted.parquet",
    ]


def test_torch_loads_the_state_dict_of_a_server(ray_local, tmp_path):
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(30, 20, dtype=torch.bfloat16)
    with fastps.ParameterServer(model.state_dict(), num_shards=2) as ps:
        ps.push({name: np.full(value.shape, 0.3, np.float32) for name, value in model.state_dict().items()})
        ps.save(tmp_path / "saved")
        now = ps.pull()
    assert run(tmp_path, "export", "saved", "-o", "model.pt") == (0, "model.pt: 2 arrays\n", "")
    model.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    for name, value in model.state_dict().items():
        assert value.view(torch.int16).numpy().tobytes() == now[name].tobytes()

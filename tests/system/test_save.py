"""A server that is saved and restored goes on as if nothing had happened, on any number of shards."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
import signal
import time

import numpy as np
import pytest

import fastps
from fastps import BSP, SGD, Adam, CheckpointError, FileError, LocalSGD, MissingFileError, OptionError
from fastps.checkpoint.load import load
from tests.support.extent import short_or_long
from tests.support.leftovers import started_here
from tests.support.waiting import GUARD_SECONDS


def a_model(rng):
    return {
        "embed": rng.normal(size=(700, 31)).astype(np.float32),
        "layers": [{"w": rng.normal(size=(40, 30)), "b": np.zeros(30, np.float32)}, {"w": rng.normal(size=(3, 3))}],
        "batches": np.array([41], np.int64),
        "mask": np.array([True, False, True]),
        "nothing": np.zeros((0, 4), np.float32),
    }


RULE = {"layers/*": Adam(fastps.schedules.cosine(1e-2, steps=100)), "*": SGD(0.1, momentum=0.9)}


def grads_of(model, rng):
    return {
        "embed": rng.normal(size=(700, 31)).astype(np.float32),
        "layers": [
            {k: rng.normal(size=v.shape).astype(v.dtype) for k, v in layer.items()} for layer in model["layers"]
        ],
    }


def leaves(tree):
    if isinstance(tree, dict):
        return [leaf for name in tree for leaf in leaves(tree[name])]
    if isinstance(tree, list):
        return [leaf for one in tree for leaf in leaves(one)]
    return [tree]


def check_same(one, other):
    for a, b in zip(leaves(one), leaves(other), strict=True):
        assert a.dtype == b.dtype
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize(("before", "after"), short_or_long([(1, 3), (3, 2)], [(1, 1), (1, 3), (3, 1), (3, 2), (2, 8)]))
def test_a_training_goes_on_exactly_on_another_number_of_shards(ray_local, tmp_path, rng, before, after):
    model = a_model(rng)
    steps = [grads_of(model, rng) for _ in range(12)]
    part = {"layers": [{"w": None, "b": None}, steps[0]["layers"][1]]}
    with fastps.ParameterServer(model, rule=RULE, num_shards=before) as ps:
        for grads in steps[:6]:
            ps.push(grads)
        ps.push(part, partial=True)
        ps.configure("*", momentum=0.5)
        assert ps.save(tmp_path / "saved").path == tmp_path / "saved"
        saved, slots, counts, hyper = ps.pull(), ps.slots(), ps.steps(), ps.hyper
        for grads in steps[6:]:
            ps.push(grads)
        wanted, wanted_slots = ps.pull(), ps.slots()
    with fastps.restore(tmp_path / "saved", num_shards=after) as ps:
        assert ps.num_shards == after
        check_same(ps.pull(), saved)
        assert ps.steps() == counts
        assert ps.hyper == hyper
        for name, slot in slots.items():
            check_same(ps.slots(name), slot)
        for grads in steps[6:]:
            ps.push(grads)
        check_same(ps.pull(), wanted)
        for name, slot in wanted_slots.items():
            check_same(ps.slots(name), slot)


def test_rounds_go_on_exactly(ray_local, tmp_path, rng):
    grads = [rng.normal(size=1000) for _ in range(8)]
    with fastps.ParameterServer(np.zeros(1000), rule=Adam(0.1), consistency=BSP(workers=1), num_shards=2) as ps:
        with ps.worker() as w:
            for grad in grads[:4]:
                w.push(grad)
        ps.save(tmp_path / "saved")
        with ps.worker() as w:
            for grad in grads[4:]:
                w.push(grad)
            wanted = w.pull()
    with fastps.restore(tmp_path / "saved", num_shards=3) as ps, ps.worker() as w:
        for grad in grads[4:]:
            w.push(grad)
        assert w.pull().tobytes() == wanted.tobytes()


def test_what_is_saved_can_be_read_without_fastps(ray_local, tmp_path, rng):
    safetensors = pytest.importorskip("safetensors.numpy")
    model = a_model(rng)
    with fastps.ParameterServer(model, rule=RULE) as ps:
        ps.push(grads_of(model, rng))
        ps.save(tmp_path / "saved")
        now, slots = ps.pull(), ps.slots()
    manifest = json.loads((tmp_path / "saved" / "manifest.json").read_text())
    found = {}
    for file in manifest["files"]:
        found |= safetensors.load_file(tmp_path / "saved" / file["name"])
    assert np.array_equal(found["params/embed"], now["embed"])
    assert np.array_equal(found["params/layers/0/w"], now["layers"][0]["w"])
    assert np.array_equal(found["params/batches"], now["batches"])
    assert np.array_equal(found["params/mask"], now["mask"])
    assert np.array_equal(found["slots/m/layers/1/w"], slots["m"]["layers"][1]["w"])


def test_half_precision_tied_arrays_and_copies_come_back(ray_local, tmp_path):
    dtypes = pytest.importorskip("ml_dtypes")
    weight = np.arange(12, dtype=dtypes.bfloat16)
    with fastps.ParameterServer({"in": weight, "out": weight, "b": np.zeros(2)}, consistency=LocalSGD(2)) as ps:
        ps.save(tmp_path / "saved")
    with fastps.restore(tmp_path / "saved", num_shards=2) as ps:
        found = ps.pull()
        assert found["in"].dtype == weight.dtype
        assert np.array_equal(found["in"], weight)
        assert found["in"] is found["out"]


def test_a_save_goes_on_while_others_push(ray_local, tmp_path):
    """What is saved of each shard is the state after a whole number of pushes."""
    with fastps.ParameterServer(np.zeros(400_000), num_shards=2) as ps:
        saving = ps.save(tmp_path / "saved", wait=False)
        pushed = 0
        while not saving.done():
            ps.push(np.ones(400_000))
            pushed += 1
        assert saving.result(GUARD_SECONDS) == tmp_path / "saved"
    with fastps.restore(tmp_path / "saved") as ps:
        versions = load(tmp_path / "saved").manifest.versions
        for half, version in zip(np.split(ps.pull(), 2), versions, strict=True):
            assert set(half.tolist()) == {float(version)}
            assert version <= pushed
        assert ps.versions == (max(versions),) * 2


def writers():
    """The processes that write a checkpoint now."""
    return [pid for pid, name in started_here(shared=True).items() if name.startswith("ray::CheckpointWriter")]


def until(found):
    deadline = time.monotonic() + GUARD_SECONDS
    while not (result := found()) and time.monotonic() < deadline:
        time.sleep(0.001)
    return result


def test_a_save_that_is_given_up_leaves_nothing(ray_local, tmp_path):
    with fastps.ParameterServer(np.zeros(8_000_000), num_shards=2) as ps:
        with pytest.raises(fastps.WaitTimeoutError):
            ps.save(tmp_path / "late", wait=False).result(0.0)
        ps.save(tmp_path / "dropped", wait=False)
        gc.collect()
        assert until(lambda: not writers())
        assert os.listdir(tmp_path) == []
        ps.save(tmp_path / "saved")
        assert os.listdir(tmp_path) == ["saved"]


def test_the_death_of_a_writer_leaves_all_or_nothing(ray_local, tmp_path):
    with fastps.ParameterServer(np.arange(8_000_000.0), num_shards=2) as ps:
        for number in range(4):
            saving = ps.save(tmp_path / "saved", wait=False)
            for pid in until(writers):
                time.sleep(0.03 * number)
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(fastps.UnavailableError):
                saving.result(GUARD_SECONDS)
                load(tmp_path / "saved")
            assert os.listdir(tmp_path) in ([], ["saved"])
            shutil.rmtree(tmp_path / "saved", ignore_errors=True)
            assert until(lambda: not writers())
        ps.save(tmp_path / "saved")
        ps.push(np.ones(8_000_000))


def test_what_is_carried_leaves_what_follows_aligned(ray_local, tmp_path):
    params = {"odd": np.array([True] * 3), "w": np.arange(5.0), "f": np.arange(5, dtype=np.float32)}
    with fastps.ParameterServer(params) as ps:
        ps.save(tmp_path / "saved")
    assert all(array.flags.aligned for array in load(tmp_path / "saved").state.arrays)
    with fastps.restore(tmp_path / "saved", num_shards=2) as ps:
        assert ps.pull()["w"].tolist() == [0, 1, 2, 3, 4]
        assert ps.pull()["odd"].tolist() == [True] * 3


def test_what_is_in_the_way_or_missing_is_refused_and_nothing_is_left(ray_local, tmp_path):
    (tmp_path / "file").write_text("mine")
    with fastps.ParameterServer(np.zeros(3)) as ps:
        for path, error in (
            (tmp_path / "file", FileError),
            (tmp_path / "none" / "saved", MissingFileError),
            (tmp_path / "file" / "saved", FileError),
            (3.5, OptionError),
        ):
            with pytest.raises(error):
                ps.save(path)
        ps.save(tmp_path / "saved")
        with pytest.raises(FileError, match="there already"):
            ps.save(tmp_path / "saved")
        assert sorted(os.listdir(tmp_path)) == ["file", "saved"]
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(MissingFileError):
        fastps.restore(tmp_path / "none")
    with pytest.raises(OptionError):
        fastps.restore(None)


def test_every_damage_is_found(ray_local, tmp_path, rng):
    with fastps.ParameterServer({"w": rng.normal(size=3000), "n": np.arange(3)}, rule=Adam(0.1)) as ps:
        folder = ps.save(tmp_path / "saved").path
    names = sorted(os.listdir(folder))
    for name in names:
        data = (folder / name).read_bytes()
        for bit in rng.integers(0, 8 * len(data), 200).tolist():
            broken = bytearray(data)
            broken[bit // 8] ^= 1 << bit % 8
            (folder / name).write_bytes(broken)
            with pytest.raises(CheckpointError):
                load(folder)
        for damaged in (data[:-1], data + b"\0", b"", data[1:]):
            (folder / name).write_bytes(damaged)
            with pytest.raises(CheckpointError):
                load(folder)
        (folder / name).unlink()
        with pytest.raises(MissingFileError):
            load(folder)
        (folder / name).write_bytes(data)
    load(folder)


def test_a_rule_of_the_user_is_passed_and_must_be_the_same(ray_local, tmp_path):
    with fastps.ParameterServer(np.zeros(10), rule=halving) as ps:
        ps.push(np.ones(10))
        ps.save(tmp_path / "saved")
    with pytest.raises(fastps.FastPSError, match="rule="):
        fastps.restore(tmp_path / "saved")
    with pytest.raises(fastps.FastPSError):
        fastps.restore(tmp_path / "saved", rule=Adam(0.1))
    with fastps.restore(tmp_path / "saved", rule=halving) as ps:
        assert ps.pull().tolist() == [0.5] * 10


@fastps.rule
def halving(p, g):
    return p + g / 2

"""Checkpoints of shards on several nodes, which write to one directory, and servers that begin with them there."""

from __future__ import annotations

import numpy as np
import pytest

import fastps
from fastps import BSP, Adam, OptionError, Table
from fastps.checkpoint.manifest import Manifest


def test_a_training_goes_on_exactly_on_other_nodes(cluster3, tmp_path, rng):
    here, there, third = cluster3.ids
    steps = [(rng.normal(size=500), rng.normal(size=(60, 4)).astype(np.float32)) for _ in range(6)]
    keys = np.arange(60)

    def train(ps, some):
        for grads, rows in some:
            ps.push({"w": grads})
            ps["t"].push(keys, rows)

    params = {"w": np.zeros(500), "t": Table(4, rule=fastps.Adagrad(0.1), track=True)}
    with fastps.ParameterServer(params, rule=Adam(0.1), num_shards=3, placement=[here, there, there]) as ps:
        train(ps, steps[:2])
        ps.save(tmp_path / "first")
        train(ps, steps[2:3])
        ps.save(tmp_path / "second", since=tmp_path / "first")
        train(ps, steps[3:])
        wanted, wanted_rows = ps.pull(names=["w"])["w"], ps["t"].peek(keys)
    assert len({file.name.split("-")[1] for file in Manifest.read(tmp_path / "second").files}) == 2  # nodes
    for placement in ([there, third], [here]):
        with fastps.restore(tmp_path / "second", num_shards=len(placement), placement=placement) as ps:
            assert ps["t"].activity(keys)[1].tolist() == [3] * 60
            train(ps, steps[3:])
            assert ps.pull(names=["w"])["w"].tobytes() == wanted.tobytes()
            assert ps["t"].peek(keys).tobytes() == wanted_rows.tobytes()


def test_rounds_on_several_nodes_are_saved_as_one_round(cluster3, tmp_path, rng):
    here, there, _ = cluster3.ids
    grads = [rng.normal(size=100) for _ in range(4)]
    options = {"rule": Adam(0.1), "consistency": BSP(workers=1), "num_shards": 2, "placement": [here, there]}
    with fastps.ParameterServer(np.zeros(100), **options) as ps, ps.worker() as w:
        for grad in grads[:2]:
            w.push(grad)
        ps.save(tmp_path / "saved")
        for grad in grads[2:]:
            w.push(grad)
        wanted = w.pull()
    assert Manifest.read(tmp_path / "saved").versions == (2, 2)
    with fastps.restore(tmp_path / "saved", placement=[there, there]) as ps, ps.worker() as w:
        for grad in grads[2:]:
            w.push(grad)
        assert w.pull().tobytes() == wanted.tobytes()


def test_shards_on_several_nodes_have_one_moment_in_rounds_alone(cluster3, tmp_path):
    placement = list(cluster3.ids[:2])
    refused = pytest.raises(OptionError, match=r"is of shards on one node, these are on 2; .*BSP")
    with fastps.ParameterServer(np.zeros(5), num_shards=2, placement=placement) as ps, refused:
        ps.save(tmp_path / "saved", consistent="all")
    with fastps.ParameterServer(np.zeros(5), num_shards=2, placement=placement, consistency=BSP()) as ps:
        ps.save(tmp_path / "saved", consistent="all")

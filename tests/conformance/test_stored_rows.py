"""Rows that are stored in half precision: rules compute in float32, what is stored is rounded, slots are float32."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import fastps
from fastps import SGD, Adagrad, OptionError, Table
from tests.support.extent import samples

HALVES = [ml_dtypes.bfloat16, np.float16]
NODES = {"shm": (0, 0), "ray": (1, 1), "mixed": (0, 1)}
DIM = 33  # values and slots do not begin at multiples of four bytes
everywhere = samples(where=list(NODES), half=HALVES)


def placed(where, cluster3):
    return {"num_shards": 2, "placement": [cluster3.ids[node] for node in NODES[where]]}


def rounded(values, half):
    return np.asarray(values, np.float32).astype(half).astype(np.float32)


@everywhere
def test_rounding_to_nearest_does_what_numpy_does(cluster3, where, rng, half):
    table = Table(DIM, rule=Adagrad(0.1), init=fastps.init.Normal(0, 3), seed=3, stored=half, rounding="nearest")
    keys = np.arange(40)
    with fastps.ParameterServer(table, **placed(where, cluster3)) as ps:
        rows, t = ps.table.initial(keys), ps.table
        assert np.array_equal(rows, rounded(rows, half))
        assert np.array_equal(t.peek(keys), rows)
        assert np.array_equal(t.pull(keys[:20]), rows[:20])
        total = np.zeros_like(rows)
        for _ in range(4):
            grads = rng.normal(size=rows.shape).astype(np.float32)
            total += grads * grads
            rows = rounded(rows - np.float32(0.1) * grads / (np.sqrt(total) + np.float32(1e-10)), half)
            pulled = t.push_pull(keys, grads)
            assert np.array_equal(pulled, rounded(pulled, half))
            np.testing.assert_allclose(pulled, rows, rtol=2e-2, atol=1e-3)
            assert np.array_equal(t.pull(keys), pulled)
            rows = pulled
            for kind in HALVES:
                out = np.empty(rows.shape, kind)
                with np.errstate(over="ignore"):
                    assert np.array_equal(t.pull(keys, out=out).view(np.uint16), rows.astype(kind).view(np.uint16))
        given = rng.normal(size=rows.shape).astype(np.float32)
        t.set(keys, given)
        assert np.array_equal(t.pull(keys), rounded(given, half))
        (found,) = t.to_arrow(slots=True).to_batches() if ps.num_shards == 1 else [t.to_arrow(slots=True)]
        by_key = {row["key"]: row for row in found.to_pylist()}
        assert np.array_equal(np.array([by_key[k]["row"] for k in keys], np.float32), rounded(given, half))
        np.testing.assert_allclose([by_key[k]["sum"] for k in keys], total, rtol=1e-5)  # of float32
        out = np.empty(rows.shape, half)
        t.push_pull(keys, np.zeros_like(rows), out=out)
        assert np.array_equal(out.astype(np.float32), rounded(given, half))


@everywhere
def test_stochastic_rounding_adds_up_what_is_too_small_for_one_step(cluster3, where, rng, half):
    tables = {
        name: Table(64, rule=SGD(1.0), init=1.0, stored=half, rounding=name) for name in ("stochastic", "nearest")
    }
    keys, n = np.arange(50), 200
    grads = np.full((50, 64), -1e-4, np.float32)  # a fortieth of a step of bfloat16 at 1, a tenth of one of float16
    with fastps.ParameterServer(tables, **placed(where, cluster3)) as ps:
        for t in (ps["stochastic"], ps["nearest"]):
            for _ in range(n):
                t.push(keys, grads)
        assert (ps["nearest"].pull(keys) == 1).all()
        rows = ps["stochastic"].pull(keys)
        assert np.array_equal(rows, rounded(rows, half))
        assert rows.mean() == pytest.approx(1 + n * 1e-4, rel=1e-3)
        assert len(np.unique(rows)) > 2


def test_the_same_pushes_give_the_same_bits(cluster3, rng):
    keys, steps = np.arange(100), [rng.normal(size=(100, 8)).astype(np.float32) for _ in range(5)]
    found = []
    for seed in (1, 1, 2):
        with fastps.ParameterServer(Table(8, rule=SGD(0.1), init=0.5, seed=seed, stored="bfloat16")) as ps:
            for grads in steps:
                ps.table.push(keys, grads)
            found.append(ps.table.pull(keys).tobytes())
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("half", HALVES, ids=["bfloat16", "float16"])
def test_a_view_is_of_what_is_stored_and_rows_take_half_the_memory(cluster3, half):
    tables = {"half": Table(512, stored=half), "whole": Table(512)}
    with fastps.ParameterServer(tables) as ps:
        (view,) = ps["half"].view([7])
        assert view.dtype == half
        assert np.array_equal(view.astype(np.float32), ps["half"].pull([7])[0])
        for name in tables:
            ps[name].pull(np.arange(20_000))
        taken = {name: ps[name].stats()[0].bytes for name in tables}
        assert taken["half"] < 0.6 * taken["whole"]


def test_what_cannot_be_stored_is_refused(cluster3):
    for options in (
        {"stored": "int8"},
        {"stored": "float32"},
        {"stored": "float16", "dtype": "float64"},
        {"stored": 3},
    ):
        with pytest.raises(OptionError, match="Table stored"):
            Table(3, **options)
    with pytest.raises(OptionError, match="rounding"):
        Table(3, stored="float16", rounding="up")
    assert "stored='float16', rounding='stochastic'" in repr(Table(3, stored=np.float16))


def test_they_are_saved_and_restored_and_go_on_exactly(cluster3, tmp_path, rng):
    keys, steps = np.arange(60), [rng.normal(size=(60, 5)).astype(np.float32) for _ in range(6)]
    with fastps.ParameterServer(Table(5, rule=Adagrad(0.1), stored="bfloat16"), num_shards=2) as ps:
        for grads in steps[:3]:
            ps.table.push(keys, grads)
        ps.save(tmp_path / "saved")
        for grads in steps[3:]:
            ps.table.push(keys, grads)
        wanted = ps.table.pull(keys)
    with fastps.restore(tmp_path / "saved") as ps:
        for grads in steps[3:]:
            ps.table.push(keys, grads)
        assert ps.table.pull(keys).tobytes() == wanted.tobytes()


def test_outputs_of_half_precision_of_a_table_with_sightings(cluster3):
    with fastps.ParameterServer(Table(3, init=0.3, admit=2, stored="bfloat16")) as ps:
        out = np.empty((2, 3), np.float16)
        assert ps.table.push_pull([1, 2], np.ones((2, 3), np.float32), out=out) is out
        assert out.astype(np.float32) == pytest.approx(float(np.float32(0.3).astype(ml_dtypes.bfloat16)), rel=1e-3)

"""Gradients and outputs of half precision do what those of float32 do, bit for bit: gradients are widened, what is
stored stays float32, outputs are rounded."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import fastps
from tests.support.extent import samples

HALVES = [ml_dtypes.bfloat16, np.float16]
N = 70_000  # more than one stripe
half = pytest.mark.parametrize("half", HALVES, ids=["bfloat16", "float16"])
NODES = {"shm": (0, 0), "ray": (1, 1), "mixed": (0, 1)}  # of two shards; the worker is on node 0
half_anywhere = samples(where=list(NODES), half=HALVES)


def bits(array):
    return array.view({2: np.uint16, 4: np.uint32, 8: np.uint64}[array.itemsize])


def outs(half):
    return {"w": np.empty((7, N // 7), half), "b": np.empty(3, np.float32), "wide": np.empty(5)}


def gradients(rng, half):
    """With values that are rounded, subnormal, and too large for float16."""
    w = np.exp(rng.normal(scale=8, size=(7, N // 7))).astype(np.float32) * rng.choice([-1, 1], (7, N // 7))
    return {"w": np.minimum(np.abs(w), 1e4).astype(half), "b": np.ones(3, np.float32), "wide": np.full(5, 0.1)}


def widened(grads):
    return {name: grad.astype(np.float32) if grad.itemsize == 2 else grad for name, grad in grads.items()}


def require_same(server, reference, half):
    """That both have the same parameters, also where they are read in half precision."""
    found, expected = outs(half), reference.pull()
    server.pull(out=found)
    for name, values in expected.items():
        with np.errstate(over="ignore"):
            rounded = values.astype(found[name].dtype)
        assert np.array_equal(bits(found[name]), bits(rounded)), name
    for name, values in server.pull().items():
        assert np.array_equal(bits(values), bits(expected[name])), name


def placed(where, cluster3):
    """The placement of two shards."""
    return {"num_shards": 2, "placement": [cluster3.ids[node] for node in NODES[where]]}


@half_anywhere
def test_pushes_and_pulls_have_the_bits_of_float32_rounded(cluster3, where, rng, half):
    start = {"w": rng.normal(size=(7, N // 7)).astype(np.float32), "b": np.zeros(3, np.float32), "wide": np.ones(5)}
    options = {"rule": fastps.Adam(0.01), "clip_norm": 3.0, **placed(where, cluster3)}
    with fastps.ParameterServer(start, **options) as ps, fastps.ParameterServer(start, **options) as reference:
        for _ in range(3):
            grads = gradients(rng, half)
            ps.push(grads)
            reference.push(widened(grads))
            require_same(ps, reference, half)
        found = outs(half)
        assert ps.push_pull(grads, out=found) is found
        expected = reference.push_pull(widened(grads))
        with np.errstate(over="ignore"):
            assert np.array_equal(bits(found["w"]), bits(expected["w"].astype(half)))
        with np.errstate(over="ignore"):
            values = grads["w"].astype(half)
        names = {"w": values, "b": np.zeros(3, np.float32), "wide": np.zeros(5)}
        ps.set(slots={"m": names})
        assert np.array_equal(ps.slots("m")["w"], values.astype(np.float32))


@half_anywhere
def test_rounds_add_up_gradients_of_half_precision(cluster3, where, rng, half):
    start = {"w": np.zeros((7, N // 7), np.float32), "b": np.zeros(3, np.float32), "wide": np.ones(5)}
    options = {"consistency": fastps.BSP(reduce="sum", workers=2), **placed(where, cluster3)}
    with (
        fastps.ParameterServer(start, **options) as ps,
        fastps.ParameterServer(start, **options) as reference,
        ps.worker(0) as a,
        ps.worker(1) as b,
        reference.worker(0) as c,
        reference.worker(1) as d,
    ):
        for step in (False, True):  # two gradients a round of each
            for one, other in ((a, c), (b, d)):
                grads = gradients(rng, half)
                one.push(grads, step=step)
                other.push(widened(grads), step=step)
        require_same(ps, reference, half)


@half
def test_local_steps_take_gradients_of_half_precision(cluster3, rng, half):
    start = {"w": np.zeros((7, N // 7), np.float32), "b": np.zeros(3, np.float32), "wide": np.ones(5)}
    options = {"consistency": fastps.LocalSGD(2, workers=1), "rule": fastps.SGD(0.1, momentum=0.9)}
    with fastps.ParameterServer(start, **options) as ps, fastps.ParameterServer(start, **options) as reference:
        with ps.worker(0) as one, reference.worker(0) as other:
            for _ in range(4):
                grads = gradients(rng, half)
                one.push(grads)
                other.push(widened(grads))
        require_same(ps, reference, half)


@half_anywhere
def test_delayed_gradients_are_compensated_with_parameters_pulled_in_half_precision(cluster3, where, rng, half):
    start = np.asarray(rng.normal(size=1000), np.float32)
    options = {"rule": fastps.DCASGD(0.1), **placed(where, cluster3)}
    with fastps.ParameterServer(start, **options) as ps, fastps.ParameterServer(start, **options) as reference:
        pulled, grad = np.empty(1000, half), rng.normal(size=1000).astype(half)
        ps.pull(out=pulled)
        ps.push(grad, pulled=pulled)
        reference.push(grad.astype(np.float32), pulled=pulled.astype(np.float32))
        assert np.array_equal(ps.pull(), reference.pull())


@half_anywhere
def test_a_model_of_half_precision_is_stored_in_float32_and_pulled_as_it_was(cluster3, where, half):
    with fastps.ParameterServer(np.ones(10, half), **placed(where, cluster3)) as ps:
        assert ps.pull().dtype == half
        for _ in range(8):
            ps.push(np.full(10, 2**-10, np.float32))  # which half precision would round away beside 1
        assert (ps.pull() == half(1 + 2**-7)).all()
        out = np.empty(10, np.float32)
        assert (ps.pull(out=out) == 1 + 2**-7).all()


@half
@pytest.mark.parametrize("what", ["skip", "raise"])
def test_gradients_of_half_precision_that_are_not_finite_are_found(cluster3, half, what):
    with fastps.ParameterServer(np.ones(2000, np.float32), nonfinite=what) as ps:
        grad = np.ones(2000, half)
        grad[1999] = np.nan
        if what == "raise":
            with pytest.raises(fastps.NonfiniteError, match=r"\[1999\]"):
                ps.push(grad)
        else:
            ps.push(grad)
        assert (ps.pull() == 1).all()


@half
def test_outputs_of_half_precision_that_share_memory_are_refused(cluster3, half):
    line = np.zeros(20, half)
    with fastps.ParameterServer({"a": np.ones(10, np.float32), "b": np.ones(10, np.float32)}) as ps:
        with pytest.raises(fastps.OutputError, match="share memory"):
            ps.pull(out={"a": line[:10], "b": line[9:19]})
        assert not line.any()
        ps.pull(out={"a": line[:10], "b": line[10:]})
        assert line.all()
        both = {"a": line[:10], "b": line[10:]}
        assert ps.push_pull(both, out=both) is both  # the gradient's memory is written to
        assert (line == 2).all()


@half
def test_float64_is_not_converted(cluster3, half):
    with fastps.ParameterServer(np.ones(10)) as ps:
        with pytest.raises(fastps.DtypeError, match="astype"):
            ps.push(np.ones(10, half))
        with pytest.raises(fastps.DtypeError, match="or omit out="):
            ps.pull(out=np.ones(10, half))


@pytest.fixture(scope="module", params=[(0,), (1, 1), (0, 1)], ids=["shm", "ray", "mixed"])
def tables(request, cluster3):
    """Two tables with the same rows, on one server."""
    params = {name: fastps.Table(33, init=fastps.init.Uniform(-1, 1), seed=3) for name in ("half", "whole")}
    nodes = [cluster3.ids[node] for node in request.param]
    with fastps.ParameterServer(params, rule=fastps.Adagrad(0.1), num_shards=len(nodes), placement=nodes) as ps:
        yield ps["half"], ps["whole"]


@half
def test_rows_are_pulled_and_pushed_in_half_precision(tables, rng, half):
    ours, theirs = tables
    keys = rng.integers(0, 40, 100)  # each about twice; some new
    grads = rng.normal(size=(100, 33)).astype(half)
    out = np.empty((100, 33), half)
    for read in ("peek", "pull"):
        assert getattr(ours, read)(keys, out=out) is out
        assert np.array_equal(bits(out), bits(getattr(theirs, read)(keys).astype(half)))
    ours.push(keys, grads)
    theirs.push(keys, grads.astype(np.float32))
    assert np.array_equal(bits(ours.pull(keys)), bits(theirs.pull(keys)))
    assert ours.push_pull(keys, grads, out=out) is out
    assert np.array_equal(bits(out), bits(theirs.push_pull(keys, grads.astype(np.float32)).astype(half)))
    ours.set(keys[:3], grads[:3])
    theirs.set(keys[:3], grads[:3].astype(np.float32))
    assert np.array_equal(bits(ours.pull(keys)), bits(theirs.pull(keys)))


def test_rows_that_are_admitted_by_sightings_come_in_half_precision(cluster3):
    with fastps.ParameterServer(fastps.Table(3, init=0.3, admit=2)) as ps:
        out = np.empty((2, 3), ml_dtypes.bfloat16)
        for _ in range(3):
            assert (ps.table.pull([1, 2], out=out) == ml_dtypes.bfloat16(0.3)).all()


@half
def test_a_table_of_float64_is_not_converted(cluster3, half):
    with fastps.ParameterServer(fastps.Table(3, dtype="float64")) as ps:
        with pytest.raises(fastps.DtypeError):
            ps.table.push([1], np.ones((1, 3), half))
        with pytest.raises(fastps.DtypeError):
            ps.table.pull([1], out=np.ones((1, 3), half))

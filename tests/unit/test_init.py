"""How rows begin: the arguments of initializers, and the numbers that they make."""

import math

import numpy as np
import pytest

import fastps
from fastps._core import table_initial
from fastps.errors import OptionError
from fastps.init import Array, Constant, Glorot, Normal, Uniform, initializer
from fastps.spec.table import TableInfo

RANDOM = [Uniform(-0.5, 2.0), Normal(0.25, 3.0), Glorot(1000)]


def rows(init, keys, dim=32, dtype="float64", seed=0):
    """How the rows of keys begin in a table that nobody has created."""
    info = TableInfo.of((), fastps.Table(dim, rule=fastps.Add(), init=init, dtype=dtype, seed=seed), 1)
    out = np.full((len(keys), dim), np.nan, dtype)
    table_initial(info.layout(1), np.ascontiguousarray(keys, np.uint64), out)
    return out


def test_a_number_is_a_constant_and_without_init_rows_vary_by_one_over_the_root_of_their_length():
    assert initializer(2, 8) == Constant(2.0)
    assert initializer(np.float32(0.5), 8) == Constant(0.5)
    assert rows(None, np.arange(1000), 64).std() == pytest.approx(1 / 8, rel=0.05)
    assert rows(None, np.arange(1000), 64).mean() == pytest.approx(0, abs=0.01)
    given = Uniform(0, 1)
    assert initializer(given, 8) is given


def test_glorot_is_uniform_by_both_fans():
    assert Glorot(90).numbers(6) == Uniform(-0.25, 0.25).numbers(6)
    assert Glorot(90, 6).numbers(1000) == Uniform(-0.25, 0.25).numbers(1000)
    assert Glorot(90, gain=2.0).numbers(6) == Uniform(-0.5, 0.5).numbers(6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("dim", [1, 2, 15, 16, 17, 63, 64, 65, 1000])
def test_a_constant_fills_the_row(dim, dtype):
    assert (rows(Constant(0.1), np.arange(3), dim, dtype) == np.dtype(dtype).type(0.1)).all()


@pytest.mark.parametrize("init", RANDOM, ids=repr)
@pytest.mark.parametrize("dim", [1, 2, 15, 16, 17, 63, 64, 65, 1000])
def test_a_float32_row_is_the_float64_one_rounded(init, dim):
    keys = np.arange(20)
    wide = rows(init, keys, dim)
    assert np.isfinite(wide).all()
    assert np.array_equal(rows(init, keys, dim, "float32"), wide.astype(np.float32))


@pytest.mark.parametrize("init", RANDOM, ids=repr)
def test_a_row_is_a_function_of_seed_and_key_alone(init, rng):
    keys = rng.integers(0, 2**63, 100)
    order = rng.permutation(100)
    assert np.array_equal(rows(init, keys)[order], rows(init, keys[order]))
    assert np.array_equal(rows(init, keys, seed=5), rows(init, keys, seed=5))
    for other in (1, 2**63, 2**64 - 1):
        assert (rows(init, keys) != rows(init, keys, seed=other)).mean() > 0.99
    assert len(np.unique(rows(init, np.arange(1000), dim=4), axis=0)) == 1000


def test_uniform_rows_are_uniform():
    found = rows(Uniform(-0.5, 2.0), np.arange(4000)).ravel()
    n = len(found)
    assert found.min() >= -0.5
    assert found.max() <= 2.0
    counts, _ = np.histogram(found, 50, (-0.5, 2.0))
    assert ((counts - n / 50) ** 2 / (n / 50)).sum() < 49 + 7 * math.sqrt(2 * 49)


def test_normal_rows_are_normal():
    found = (rows(Normal(0.25, 3.0), np.arange(4000)).ravel() - 0.25) / 3
    n = len(found)
    edges = np.linspace(-4, 4, 41)
    parts = np.diff([0.5 * (1 + math.erf(edge / math.sqrt(2))) for edge in edges])
    counts, _ = np.histogram(found, edges)
    assert ((counts - n * parts) ** 2 / (n * parts)).sum() < 40 + 7 * math.sqrt(2 * 40)
    assert abs(found.mean()) < 7 / math.sqrt(n)
    assert abs(found.var() - 1) < 7 * math.sqrt(2 / n)


@pytest.mark.parametrize("init", [Uniform(-1, 1), Normal()], ids=repr)
def test_elements_of_a_row_and_rows_of_neighbouring_keys_have_nothing_in_common(init):
    found = rows(init, np.arange(20_000), dim=8)
    columns = np.concatenate([found[:-1], found[1:]], axis=1)
    correlation = np.corrcoef(columns, rowvar=False)
    assert abs(correlation - np.eye(16)).max() < 7 / math.sqrt(len(columns))


def test_ends_that_are_equal_and_a_deviation_of_0_give_constants():
    assert (rows(Uniform(3, 3), np.arange(9)) == 3).all()
    assert (rows(Normal(-2, 0), np.arange(9)) == -2).all()


def test_an_array_has_other_rows_for_other_keys():
    assert (rows(Array(np.ones((2, 32)), others=Constant(7)), np.arange(5, 9)) == 7).all()
    assert not rows(Array(np.ones((2, 32))), np.arange(5, 9)).any()


class Refusing:
    """What numpy cannot have, as a tensor that requires a gradient."""

    def __dlpack__(self, **_):
        raise RuntimeError("of theirs")


WRONG = {
    "NaN": lambda: Constant(math.nan),
    "infinity": lambda: Constant(math.inf),
    "text": lambda: Constant("1"),
    "None": lambda: Constant(None),
    "a bool": lambda: Constant(True),
    "a complex number": lambda: Constant(1j),
    "a list": lambda: Constant([1.0]),
    "a number beyond float64": lambda: Constant(10**400),
    "low above high": lambda: Uniform(1.0, 0.5),
    "NaN as low": lambda: Uniform(math.nan, 1.0),
    "infinity as high": lambda: Uniform(0.0, math.inf),
    "a negative deviation": lambda: Normal(0.0, -1.0),
    "NaN as deviation": lambda: Normal(0.0, math.nan),
    "NaN as mean": lambda: Normal(math.nan, 1.0),
    "no rows": lambda: Glorot(0),
    "a negative fan": lambda: Glorot(10, -3),
    "a fan of 0": lambda: Glorot(10, 0),
    "NaN as fan": lambda: Glorot(math.nan),
    "NaN as gain": lambda: Glorot(10, gain=math.nan),
    "one row": lambda: Array(np.ones(3)),
    "three dimensions": lambda: Array(np.ones((1, 1, 1))),
    "a number as rows": lambda: Array(3.0),
    "rows of different lengths": lambda: Array([[1.0], [1.0, 2.0]]),
    "rows of text": lambda: Array([["a", "b"]]),
    "rows with a mask": lambda: Array(np.ma.ones((2, 2))),
    "rows that break": lambda: Array(Refusing()),
    "fewer keys than rows": lambda: Array(np.ones((3, 2)), keys=[1, 2]),
    "more keys than rows": lambda: Array(np.ones((1, 2)), keys=[1, 2]),
    "a number as keys": lambda: Array(np.ones((1, 2)), keys=1),
    "an array without dimensions as keys": lambda: Array(np.ones((1, 2)), keys=np.array(1)),
    "rows with a mask in a list": lambda: Array([np.ma.array([1.0, 2.0], mask=[0, 1])]),
    "a text in an array": lambda: initializer(np.array("0.5"), 8),
    "a long text": lambda: initializer("y" * 10_000, 8),
    "a number as others": lambda: fastps.Table(2, init=Array(np.ones((1, 2)), others=3)),
    "an unknown one": lambda: initializer("xavier", 8),
    "rows in a list": lambda: initializer([[1.0]], 8),
}


@pytest.mark.parametrize("make", WRONG.values(), ids=WRONG)
def test_arguments_that_cannot_be_raise_option_error(make):
    with pytest.raises(OptionError) as caught:
        make()
    assert len(str(caught.value)) < 300


def test_rows_of_any_library_are_arrays():
    torch = pytest.importorskip("torch")
    for values in ([[1, 2]], torch.ones(1, 2), np.ones((1, 2))):
        assert type(Array(values).values) is np.ndarray


def test_a_message_about_keys_of_rows_is_short():
    with pytest.raises(OptionError) as caught:
        Array(np.ones((2, 2)), keys=list(range(100_000)))
    assert len(str(caught.value)) < 300

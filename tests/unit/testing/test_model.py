import numpy as np
import pytest

import fastps
from fastps.testing import ModelServer, naive


def test_the_model_adds_what_is_pushed_and_answers_copies():
    model = ModelServer({"a": np.zeros(2, np.float32), "b": {"c": np.ones((2, 2))}})
    first = model.pull()
    model.push({"a": np.ones(2, np.float32), "b": {"c": np.ones((2, 2))}})
    assert model.pull()["a"].tolist() == [1, 1]
    assert first["a"].tolist() == [0, 0]
    assert model.pull()["b"]["c"].tolist() == [[2, 2], [2, 2]]
    assert model.versions == (1,)


def test_the_model_changes_nothing_when_a_gradient_does_not_fit():
    model = ModelServer(3)
    for bad, error in [
        (np.zeros(4), fastps.ShapeError), (np.zeros(3, int), fastps.DtypeError),
        ({"a": np.zeros(3)}, fastps.DtypeError),
    ]:  # fmt: skip
        with pytest.raises(error):
            model.push(bad)
    assert model.versions == (0,)


def test_the_model_may_have_its_gradient_as_output():
    model = ModelServer(np.array([1.0, 2.0]))
    both = np.array([10.0, 20.0])
    assert model.push_pull(both, out=both) is both
    assert both.tolist() == [11, 22]


def test_a_closed_model_raises_closed_error():
    with ModelServer(3) as model:
        pass
    with pytest.raises(fastps.ClosedError):
        model.pull()


@pytest.mark.parametrize("rule", [fastps.Add(), fastps.SGD(0.1, 0.01)])
def test_a_twin_equals_its_rule_applied_element_by_element(rule, rng):
    p, g = rng.normal(size=(2, 50)).astype(np.float32)
    hyper = [np.float32(value) for value in rule.hyper]
    expected = [type(rule).step(a, b, *hyper) for a, b in zip(p, g, strict=True)]
    assert naive.apply(rule, p, g).tolist() == [float(value) for value in expected]

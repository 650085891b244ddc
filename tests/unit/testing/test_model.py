import numpy as np
import pytest

import fastps
from fastps.rules import DCASGD, SGD, Add
from fastps.testing import ModelServer


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


def test_every_leaf_of_the_model_follows_the_first_rule_whose_pattern_fits():
    start = {"a": {"bias": np.ones(2), "weight": np.ones(2)}}
    model = ModelServer(start, rule={"*bias": SGD(0.5), "*": Add()})
    model.push(start)
    assert model.pull()["a"]["bias"].tolist() == [0.5, 0.5]
    assert model.pull()["a"]["weight"].tolist() == [2, 2]
    with pytest.raises(fastps.RuleError, match="fits `a/weight`"):
        ModelServer(start, rule={"*bias": SGD(0.5)})


def test_the_model_passes_on_what_the_worker_had_pulled():
    model = ModelServer(np.array([2.0]), rule=DCASGD(0.5, 0.5))
    model.push(np.array([1.0]), pulled=np.array([1.0]))
    assert model.pull().tolist() == [1.25]
    with pytest.raises(fastps.OptionError, match="pulled"):
        model.push(np.array([1.0]))

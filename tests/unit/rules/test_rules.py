import doctest
import importlib
import inspect
import pickle
import pkgutil
from dataclasses import dataclass

import numpy as np
import pytest

import fastps
from fastps import rules
from fastps.errors import OptionError

BUILT_IN = [cls for cls in vars(rules).values() if inspect.isclass(cls) and cls is not rules.Rule]


@pytest.mark.parametrize(
    "name", [module.name for module in pkgutil.iter_modules(rules.__path__) if module.name != "base"]
)
def test_the_examples_in_the_docstrings_hold(name):
    result = doctest.testmod(importlib.import_module(f"fastps.rules.{name}"))
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("cls", BUILT_IN)
def test_the_parameters_of_step_are_the_fields_in_order(cls):
    parameters = list(inspect.signature(cls.step).parameters)
    assert parameters == ["p", "g", *cls.__dataclass_fields__]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), np.float32("nan")])
def test_hyper_parameters_that_are_not_finite_raise_option_error(value):
    with pytest.raises(OptionError, match="finite weight_decay"):
        fastps.SGD(0.1, weight_decay=value)


@pytest.mark.parametrize("value", ["a lot", None, [1.0], object(), 1j])
def test_hyper_parameters_that_are_no_numbers_raise_option_error(value):
    with pytest.raises(OptionError, match="number as lr"):
        fastps.SGD(value)


def test_numbers_of_any_kind_are_hyper_parameters():
    assert fastps.SGD(np.float32(0.5), weight_decay=1).hyper == (0.5, 1.0)
    assert fastps.Add().hyper == ()


def test_a_rule_is_a_value():
    assert fastps.SGD(0.1) == fastps.SGD(0.1)
    assert fastps.SGD(0.1) != fastps.SGD(0.2)
    assert pickle.loads(pickle.dumps(fastps.SGD(0.1, 0.2))) == fastps.SGD(0.1, 0.2)
    with pytest.raises(AttributeError):
        fastps.SGD(0.1).lr = 0.2


def test_a_rule_without_a_step_cannot_be_made():
    @dataclass(frozen=True)
    class Nothing(rules.Rule):
        pass

    with pytest.raises(TypeError, match="step"):
        Nothing()

import math

import numpy as np
import pytest

from fastps.rules import SGD, Adagrad, Adam, Add, rule
from fastps.schedules import Schedule
from fastps.testing import Naive


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_naive_calls_the_rule_with_elements_of_the_parameters_dtype_and_uniform_values_in_float64(dtype):
    seen = []

    @rule(slots={"s": 0.5})
    def watched(p, g, s, *, step, lr, momentum=0.9):
        seen.append((type(p), type(g), type(s), type(step), type(lr), type(momentum), step, lr, s))
        return p - lr * g, s + 1

    naive = Naive(watched(Schedule(lambda version: 1 / (version + 1))), np.zeros((2, 1), dtype))
    for _ in range(2):
        naive.push(np.ones((2, 1), dtype))
    scalar = np.dtype(dtype).type
    types = (scalar, scalar, scalar, float, float, float)
    assert seen == [(*types, 1.0, 1.0, 0.5)] * 2 + [(*types, 2.0, 0.5, 1.5)] * 2
    assert naive.params.tolist() == [[-1.5], [-1.5]]
    assert naive.slots["s"].tolist() == [[2.5], [2.5]]
    assert naive.params.dtype == naive.slots["s"].dtype == dtype
    assert naive.step == 2


def test_naive_agrees_bit_for_bit_with_numpy_where_a_rule_has_no_functions(rng):
    p, g = rng.normal(size=(2, 50)).astype(np.float32)
    naive = Naive(SGD(0.1, weight_decay=0.01), p)
    naive.push(g)
    assert naive.params.tolist() == (p - np.float32(0.1) * (g + np.float32(0.01) * p)).tolist()


def test_naive_scales_and_then_clips_gradients():
    naive = Naive(Add(), np.zeros(4))
    naive.push(np.array([1.0, 3.0, -math.inf, math.nan]), scale=0.5, limit=1.0)
    assert naive.params[:3].tolist() == [0.5, 1.0, -1.0]
    assert math.isnan(naive.params[3])


def test_naive_copies_its_parameters_and_starts_slots_at_a_hyper_parameter():
    start = np.zeros(3)
    naive = Naive(Adagrad(initial_accumulator_value=2.0), start)
    assert naive.slots["sum"].tolist() == [2, 2, 2]
    naive.push(np.ones(3))
    assert start.tolist() == [0, 0, 0]


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (2, 3)])
def test_naive_takes_any_shape(shape):
    naive = Naive(Adam(), np.ones(shape))
    naive.push(np.ones(shape))
    assert naive.params.shape == naive.slots["v"].shape == shape

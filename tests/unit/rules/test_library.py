"""Every rule of the library against its reference, compiled and in plain Python. tests/support/references.py has the
table, and says what the difference is relative to."""

import math

import numpy as np
import pytest

from fastps import rules
from fastps.rules import FTRL, SGD, Adam, Adamax, AdamW, AMSGrad, Lion, NAdam, ProximalSGD, RMSprop, Rule
from fastps.rules.nadam import momentum_product
from fastps.schedules import Schedule, cosine
from fastps.testing import Naive
from tests.support.extent import samples, short_or_long
from tests.support.kernels import Compiled
from tests.support.references import CASES, TOLERANCE, difference, problem

DTYPES = ["float32", "float64"]


def run(machine, grads, pulled):
    uses_pulled = machine.rule.family.uses_pulled
    for grad, seen in zip(grads, pulled, strict=True):
        machine.push(grad, seen if uses_pulled else None)
    return machine.params


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_200_pushes_of_a_compiled_rule_give_what_its_reference_gives(case, dtype, record_property):
    params, grads, pulled = problem(1000, 200, dtype)
    expected = case.final(params, grads, dtype, pulled)
    found = difference(run(Compiled(case.rule, params), grads, pulled), expected, params)
    record_property("difference", found)
    assert found < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_pushes_of_a_rule_in_plain_python_give_what_its_reference_gives(case, dtype):
    params, grads, pulled = problem(40, 25, dtype)
    expected = case.final(params, grads, dtype, pulled)
    assert difference(run(Naive(case.rule, params), grads, pulled), expected, params) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_compiled_slots_are_those_of_plain_python(case, dtype):
    params, grads, pulled = problem(40, 25, dtype)
    compiled, naive = Compiled(case.rule, params), Naive(case.rule, params)
    run(compiled, grads, pulled)
    run(naive, grads, pulled)
    for name, values in naive.slots.items():
        assert difference(compiled.slots[name], values, params) < TOLERANCE[dtype]


def test_every_rule_of_the_library_has_a_case():
    library = {name for name in rules.__all__ if name[0].isupper()} - {"Rule", "RuleFamily"}
    library -= {name for name in library if getattr(getattr(rules, name), "for_rows", False)}  # tests of tables
    assert {case.id.split("-")[0] for case in CASES} == library


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_rule_has_no_slot_that_stays_what_it_was(case):
    params, grads, pulled = problem(40, 3, "float64")
    machine = Naive(case.rule, params)
    before = {name: values.copy() for name, values in machine.slots.items()}
    run(machine, grads, pulled)
    for name, values in machine.slots.items():
        assert not np.array_equal(values, before[name])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_gradient_that_is_not_a_number_shows_in_its_parameter_alone(case):
    params, grads, pulled = problem(40, 1, "float32")
    grads[0][7] = math.nan
    new = run(Compiled(case.rule, params), grads, pulled)
    assert math.isnan(new[7])
    assert np.isfinite(np.delete(new, 7)).all()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_parameter_without_gradient_and_without_penalty_stays(case):
    penalties = {"weight_decay", "l1", "l2"}
    plain = case.rule.family(**{**case.rule.hyper, **dict.fromkeys(penalties & case.rule.hyper.keys(), 0.0)})
    params = np.array([0.0, 1.0, -2.0])
    assert run(Compiled(plain, params), [np.zeros(3)] * 3, [params] * 3).tolist() == params.tolist()


# Which slots a rule has


def test_sgd_without_momentum_keeps_nothing():
    assert SGD(0.1).slots == SGD(0.1, 0.0, 0.5, 0.1).slots == {}
    assert SGD(0.1, 0.9).slots == SGD(0.1, Schedule(lambda version: 0.9)).slots == {"velocity": 0.0}


def test_sgd_with_nesterov_needs_momentum_and_no_dampening():
    for bad in [{}, {"momentum": -0.5}, {"momentum": 0.9, "dampening": 0.1}]:
        with pytest.raises(rules.base.OptionError, match="nesterov=True needs momentum above 0 and no dampening"):
            SGD(0.1, **bad, nesterov=True)
    assert SGD(0.1, Schedule(lambda version: 0.9), nesterov=True).hyper["nesterov"] == 1


@pytest.mark.parametrize(
    ("options", "slots"),
    [
        ({}, {"v"}),
        ({"centered": True}, {"v", "m"}),
        ({"momentum": 0.9}, {"v", "velocity"}),
        ({"momentum": 0.9, "centered": True}, {"v", "m", "velocity"}),
    ],
)
def test_rmsprop_keeps_what_its_variant_needs(options, slots):
    assert RMSprop(**options).slots.keys() == slots


# What the references do not say


def test_centered_rmsprop_of_a_constant_gradient_stays_finite():
    machine = Compiled(RMSprop(centered=True), np.ones(50, np.float32))
    for _ in range(3000):
        machine.push(np.linspace(0.1, 3, 50, dtype=np.float32))
    assert np.isfinite(machine.params).all()


@pytest.mark.parametrize("momentum_decay", [0.0, 1e-9, 4e-3, 0.3, 5.0, 100.0])
@pytest.mark.parametrize("beta1", [0.0, 0.5, 0.9, 0.9999])
def test_the_momentum_product_of_nadam_is_the_product(beta1, momentum_decay):
    logarithms = [math.log1p(-0.5 * 0.96 ** (i * momentum_decay)) for i in range(1, 2001)]
    for step in (1, 2, 10, 300, 2000):
        expected = beta1**step * math.exp(math.fsum(logarithms[:step]))
        found = momentum_product(float(step), beta1, momentum_decay)
        assert found == pytest.approx(expected, rel=1e-11 * step, abs=1e-300)
        assert 1 - found == pytest.approx(1 - expected, rel=1e-14)


def test_ftrl_with_l1_makes_parameters_exactly_zero():
    params, grads, _ = problem(1000, 200, "float32")
    machine = Compiled(FTRL(0.1, l1=1.0), np.zeros_like(params))
    for grad in grads:
        machine.push(grad)
    zero = machine.params == 0
    assert 100 < zero.sum() < 900


def test_ftrl_goes_on_from_parameters_that_are_not_zero():
    """From w it does what it does from 0, plus w."""
    machine = Compiled(FTRL(0.1), np.full(3, 5.0))
    machine.push(np.array([0.0, 1.0, -1.0]))
    shift = Compiled(FTRL(0.1), np.zeros(3))
    shift.push(np.array([0.0, 1.0, -1.0]))
    assert machine.params == pytest.approx(5 + shift.params, rel=1e-15)
    assert machine.params[0] == 5


def test_proximal_sgd_makes_parameters_exactly_zero():
    machine = Compiled(ProximalSGD(0.1, l1=0.5), np.array([0.01, -0.01, 1.0]))
    machine.push(np.zeros(3))
    assert machine.params.tolist() == pytest.approx([0, 0, 0.95])
    assert (machine.params[:2] == 0).all()


@pytest.mark.parametrize("make", [*short_or_long([], [AdamW, AMSGrad, Adamax, Lion]), SGD, Adam, NAdam, RMSprop])
def test_the_learning_rate_of_a_rule_may_follow_a_schedule(make):
    params, grads, _ = problem(50, 20, "float64")
    schedule = cosine(0.1, steps=15, floor=0.01)
    scheduled = Compiled(make(schedule), params)
    by_hand = Compiled(make(0.1), params)
    for i, grad in enumerate(grads):
        by_hand.rule = make(schedule(float(i)))
        scheduled.push(grad)
        by_hand.push(grad)
    assert difference(scheduled.params, by_hand.params, params) < 1e-14


@samples(rule=[SGD(0.1), Adam(0.01)], dtype=DTYPES)
def test_a_kernel_scales_and_clips_gradients_as_plain_python_does(rule: Rule, dtype):
    params, grads, _ = problem(100, 10, dtype)
    grads[3][5] = math.nan
    compiled, naive = Compiled(rule, params, clips=True), Naive(rule, params)
    for grad in grads:
        for machine in (compiled, naive):
            machine.push(grad, scale=0.3, limit=0.5)
    assert math.isnan(compiled.params[5])
    rest = np.arange(100) != 5
    assert difference(compiled.params[rest], naive.params[rest], params) < TOLERANCE[dtype] / 10


@pytest.mark.parametrize("ahead", [0, 4096])
@pytest.mark.parametrize("n", [0, 1, 7, 63, 64, 65, 1000])
def test_a_kernel_computes_the_same_however_it_asks_for_memory(n, ahead):
    params, grads, _ = problem(n, 3, "float32")
    compiled, naive = Compiled(Adam(0.01), params, ahead=ahead), Naive(Adam(0.01), params)
    for grad in grads:
        compiled.push(grad)
        naive.push(grad)
    assert difference(compiled.params, naive.params, params if n else [1.0]) < 1e-6

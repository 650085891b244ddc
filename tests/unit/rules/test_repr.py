"""A rule prints as what a user would write."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastps
from fastps import rules, schedules

FAMILIES = [name for name in rules.__all__ if name not in ("Rule", "RuleFamily", "rule")]
OPTIONS = {
    "SGD": ["lr", "momentum", "dampening", "weight_decay", "nesterov"],
    "RMSprop": ["lr", "alpha", "eps", "weight_decay", "momentum", "centered"],
}
NAMES = {name: getattr(rules, name) for name in FAMILIES} | vars(schedules)


def options_of(name):
    return OPTIONS.get(name) or list(getattr(rules, name).defaults)


@st.composite
def settings(draw, name):
    given = {}
    for option in options_of(name):
        if option in ("lr",) or draw(st.booleans()):
            given[option] = draw(st.floats(1e-6, 0.9))
    if "lr" in given and draw(st.booleans()):
        given["lr"] = schedules.warmup(schedules.cosine(given["lr"], steps=100), steps=10)
    for flag in ("nesterov", "centered", "decoupled_weight_decay"):
        if flag in given:
            given[flag] = draw(st.booleans())
    if given.get("nesterov"):
        given |= {"momentum": 0.9, "dampening": 0.0}
    if name == "Add":
        given.pop("lr", None)
    return given


@pytest.mark.parametrize("name", FAMILIES)
@given(data=st.data())
def test_what_a_rule_prints_makes_it_again(name, data):
    hyper = data.draw(settings(name))
    rule = getattr(rules, name)(**hyper) if name != "Add" else rules.Add()
    text = repr(rule)
    again = eval(text, dict(NAMES))
    assert text.startswith(f"{name}(")
    assert repr(again) == text
    assert again.family == rule.family
    for one, other in zip(again.values, rule.values, strict=True):
        if isinstance(one, schedules.Schedule):
            assert one(17.0) == other(17.0)
        else:
            assert one == other or math.isnan(one)


def test_rules_print_as_they_were_written():
    assert repr(fastps.SGD(0.1)) == "SGD(0.1)"
    assert repr(fastps.SGD(0.1, momentum=0.9, nesterov=True)) == "SGD(0.1, momentum=0.9, nesterov=True)"
    assert repr(fastps.RMSprop(1e-3, centered=True)) == "RMSprop(0.001, centered=True)"
    assert repr(fastps.Adam()) == "Adam()"
    assert repr(fastps.Adam(3e-4, eps=1e-6)) == "Adam(0.0003, eps=1e-06)"
    assert repr(fastps.SGD(schedules.cosine(0.1, steps=5))) == "SGD(cosine(0.1, steps=5, floor=0.0))"


@pytest.mark.parametrize("wrong", ["0.1", True, None, 1j, [0.1]])
def test_an_error_names_what_users_call(wrong):
    with pytest.raises(fastps.OptionError, match=r"SGD lr: expected a finite number, got"):
        fastps.SGD(wrong)

"""One rule for numbers, wherever users give them."""

import math
from collections import UserString
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

import fastps
from fastps import init, schedules
from fastps.deadline import seconds
from fastps.errors import OptionError
from fastps.scalars import choice, finite, flag, positive, real, whole
from fastps.spec.gradients import gradient_policy

WHOLE = [3, np.int8(3), np.uint64(3), np.array(3)]
REAL = [0.5, np.float32(0.5), np.array(0.5), Fraction(1, 2), Decimal("0.5")]
NONE = [True, np.True_, "3", b"3", UserString("3"), None, 1j, [3], np.array([3]), object()]
NONE += [np.complex64(3), np.array("3"), np.array(b"3"), np.array("3", object), np.array(True, object)]
NONE += [np.ma.masked, np.ma.array(3, mask=True), np.timedelta64(3, "s"), np.datetime64(3, "s")]


class Odd:
    """A number that cannot be read, nor printed."""

    def __float__(self):
        raise RuntimeError("no value")

    __index__ = __repr__ = __float__


UNREADABLE = [10**5000, -(10**5000), Odd()]

TAKERS = {
    "whole": lambda value: whole("x", value, 0, 10),
    "real": lambda value: real("x", value),
    "Table dim": lambda value: fastps.Table(value),
    "Table capacity": lambda value: fastps.Table(2, capacity=value),
    "Table ttl": lambda value: fastps.Table(2, ttl=value),
    "SSP": lambda value: fastps.SSP(value),
    "BSP backup": lambda value: fastps.BSP(backup=value),
    "LocalSGD": lambda value: fastps.LocalSGD(value),
    "lease": lambda value: fastps.Async(lease=value),
    "SGD": lambda value: fastps.SGD(value),
    "momentum": lambda value: fastps.SGD(0.1, momentum=value),
    "schedule": lambda value: schedules.step_decay(0.1, every=value),
    "init": lambda value: init.Constant(value),
    "clip_norm": lambda value: gradient_policy("apply", value, None),
    "timeout": seconds,
    "straggler_timeout": lambda value: fastps.BSP(straggler_timeout=value),
    "slot": lambda value: rule_with_a_slot_of(value),
    "warmup": lambda value: schedules.warmup(value, steps=3),
}


def rule_with_a_slot_of(value):
    @fastps.rule(slots={"v": value})
    def averaging(p, g, v, *, lr=0.1):
        return p - lr * g, v

    return averaging()


@pytest.mark.parametrize("taker", TAKERS)
def test_what_is_no_number_is_refused(taker):
    for value in NONE + UNREADABLE:
        if value is None and taker in ("timeout", "clip_norm", "Table capacity", "Table ttl", "straggler_timeout"):
            continue  # None means something there
        if isinstance(value, str) and taker == "slot":
            continue  # the name of a hyper-parameter
        with pytest.raises((OptionError, fastps.RuleError), match="expected") as caught:
            TAKERS[taker](value)
        assert len(str(caught.value)) < 300


def test_tensors_are_numbers_where_they_are():
    torch = pytest.importorskip("torch")
    assert whole("x", torch.tensor(3), 0, 10) == 3
    assert real("x", torch.tensor(0.5, dtype=torch.bfloat16)) == 0.5
    for wrong in (torch.tensor(True), torch.tensor(1j), torch.empty((), device="meta"), torch.ones(1)):
        for taker in (real, seconds, finite):
            with pytest.raises(OptionError, match="expected"):
                taker(wrong) if taker is seconds else taker("x", wrong)


def test_whole_numbers_of_any_kind_are_ints():
    for value in WHOLE:
        assert type(whole("x", value, 0, 10)) is int
        assert fastps.Table(value, capacity=value).dim == 3
        assert fastps.SSP(value).staleness == 3
        assert type(fastps.SSP(value).staleness) is int
    with pytest.raises(OptionError, match=r"x: expected a whole number from 0 to 10, got 3\.0"):
        whole("x", 3.0, 0, 10)


def test_numbers_of_any_kind_are_floats():
    for value in REAL:
        for taker in (real, finite, positive):
            assert taker("x", value) == 0.5
        assert fastps.SGD(value) == fastps.SGD(0.5)
        assert seconds(value) == 0.5
        assert fastps.Table(2, ttl=value).life.ttl == 0.5
        assert gradient_policy("apply", value, None).clip_norm == 0.5


def test_a_timeout_is_seconds_from_0_to_infinity():
    assert seconds(None) is None
    assert seconds(math.inf) == math.inf
    assert seconds(0) == 0
    for wrong in (-1, math.nan, 10**400, 10**5000, -math.inf):
        with pytest.raises(OptionError, match="timeout: expected seconds, 0 or more, or None"):
            seconds(wrong)


LONG = ["y" * 10_000, list(range(10_000)), np.zeros(10_000)]
CHOOSERS = {
    "choice": lambda value: choice("x", value, ("a", "b")),
    "flag": lambda value: flag("x", value),
    "reduce": lambda value: fastps.BSP(reduce=value),
    "nonfinite": lambda value: gradient_policy(value, None, None),
    "evict": lambda value: fastps.Table(2, capacity=9, evict=value),
    "keys": lambda value: fastps.Table(2, keys=value),
    "dtype": lambda value: fastps.Table(2, dtype=value),
    "track": lambda value: fastps.Table(2, track=value),
    "deterministic": lambda value: fastps.BSP(deterministic=value),
    "nesterov": lambda value: fastps.SGD(0.1, momentum=0.9, nesterov=value),
    "centered": lambda value: fastps.RMSprop(centered=value),
}


@pytest.mark.parametrize("chooser", CHOOSERS)
def test_what_is_none_of_the_choices_is_refused(chooser):
    for wrong in ["no", "f4,(", 0.5, ["mean"], np.array(["lru", "lfu"]), np.zeros(2), Odd(), 10**5000, *LONG]:
        with pytest.raises(OptionError, match="expected") as caught:
            CHOOSERS[chooser](wrong)
        assert len(str(caught.value)) < 300


def test_flags_are_true_or_false_of_any_kind():
    for yes in (True, np.True_, 1, 1.0):
        assert flag("x", yes) is True
        assert fastps.BSP(deterministic=yes).deterministic is True
        assert fastps.Table(2, track=yes).track is True
        assert fastps.SGD(0.1, momentum=0.9, nesterov=yes) == fastps.SGD(0.1, momentum=0.9, nesterov=True)
        assert fastps.RMSprop(centered=yes) == fastps.RMSprop(centered=True)
    for no in (False, np.False_, 0):
        assert flag("x", no) is False
        assert fastps.RMSprop(centered=no) == fastps.RMSprop()


def test_a_message_is_short_whatever_was_given():
    for value in LONG:
        for taker in (lambda v: real("x", v), lambda v: whole("x", v, 0, 10), lambda v: positive("x", v), seconds):
            with pytest.raises(OptionError) as caught:
                taker(value)
            assert len(str(caught.value)) < 300


def test_seconds_of_a_consistency_are_no_more_than_clocks_can_count():
    for wrong in (1e300, math.inf, 10**400, 1.1e9):
        for options in ({"straggler_timeout": wrong}, {"lease": wrong}):
            with pytest.raises(OptionError, match=r"expected seconds, more than 0 and at most 1e\+09"):
                fastps.BSP(**options)

"""One rule for numbers, wherever users give them."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

import fastps
from fastps import init, schedules
from fastps.errors import OptionError
from fastps.gradients import gradient_policy
from fastps.scalars import finite, positive, real, whole
from fastps.seconds import seconds

WHOLE = [3, np.int8(3), np.uint64(3), np.array(3)]
REAL = [0.5, np.float32(0.5), np.array(0.5), Fraction(1, 2), Decimal("0.5")]
NONE = [True, np.True_, "3", b"3", None, 1j, [3], np.array([3]), object()]

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
}


@pytest.mark.parametrize("taker", TAKERS)
def test_what_is_no_number_is_refused(taker):
    for value in NONE:
        if value is None and taker in ("timeout", "clip_norm", "Table capacity", "Table ttl"):
            continue  # None means something there
        with pytest.raises(OptionError, match="expected"):
            TAKERS[taker](value)


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
    for wrong in (-1, math.nan, 10**400, -math.inf):
        with pytest.raises(OptionError, match="timeout: expected seconds, 0 or more, or None"):
            seconds(wrong)


def test_a_message_is_short_whatever_was_given():
    with pytest.raises(OptionError) as caught:
        real("x", "y" * 10_000)
    assert len(str(caught.value)) < 300

"""Schedules as plain Python functions; tests/unit/rules/test_library.py runs them compiled."""

import math
import pickle

import cloudpickle
import pytest

from fastps import schedules as schedule
from fastps.errors import OptionError
from fastps.schedules import Schedule, constant, cosine, step_decay, warmup


def test_a_constant_does_not_change():
    assert [constant(0.5)(version) for version in (0.0, 7.0, 1e9)] == [0.5] * 3


def test_step_decay_multiplies_after_every_so_many_pushes():
    decay = step_decay(1.0, every=3, factor=0.5)
    assert [decay(float(version)) for version in range(7)] == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]


def test_cosine_falls_to_its_floor_and_stays_there():
    falling = cosine(3.0, steps=4, floor=1.0)
    values = [falling(float(version)) for version in (0, 1, 2, 3, 4, 5, 1000)]
    assert values == pytest.approx([3, 2 + math.sqrt(0.5), 2, 2 - math.sqrt(0.5), 1, 1, 1])


def test_warmup_rises_to_the_number_that_follows_it():
    assert [warmup(2.0, steps=4)(float(version)) for version in range(6)] == [0.5, 1, 1.5, 2, 2, 2]


def test_warmup_is_followed_by_a_schedule_that_begins_when_it_ends():
    both = warmup(step_decay(1.0, every=2, factor=0.5), steps=2)
    assert [both(float(version)) for version in range(7)] == [0.5, 1, 1, 1, 0.5, 0.5, 0.25]


def test_warmup_is_followed_by_a_plain_function():
    both = warmup(lambda version: 1 / (version + 1), steps=2)
    assert [both(float(version)) for version in range(4)] == [0.5, 1, 1, 0.5]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: constant(math.nan), "constant value: expected a finite number, got nan"),
        (lambda: constant("much"), "constant value: expected a finite number, got 'much'"),
        (lambda: step_decay(math.inf, every=2), "step_decay value: expected a finite number, got inf"),
        (lambda: step_decay(1.0, every=0), "step_decay every: expected a number, more than 0, got 0"),
        (lambda: step_decay(1.0, every=2, factor=None), "step_decay factor: expected a finite number, got None"),
        (lambda: cosine(1.0, steps=-1), "cosine steps: expected a number, more than 0, got -1"),
        (lambda: cosine(1.0, steps=5, floor=math.nan), "cosine floor: expected a finite number, got nan"),
        (lambda: warmup(1.0, steps="3"), "warmup steps: expected a number, more than 0, got '3'"),
        (lambda: warmup(math.inf, steps=3), "warmup then: expected a finite number, got inf"),
    ],
)
def test_numbers_that_cannot_be_raise_option_error(make, message):
    with pytest.raises(OptionError) as caught:
        make()
    assert message in str(caught.value)


def test_schedules_print_as_they_are_written():
    assert repr(constant(1)) == "constant(1.0)"
    for made in [
        step_decay(1.0, every=10, factor=0.5), cosine(0.1, steps=5), warmup(0.5, steps=2),
        warmup(cosine(0.1, steps=5), steps=2),
    ]:  # fmt: skip
        again = eval(repr(made), vars(schedule))
        assert repr(again) == repr(made)
        assert [again(float(version)) for version in range(9)] == [made(float(version)) for version in range(9)]

    def halving(version):
        return 0.5**version

    assert repr(Schedule(halving)) == "<schedule halving>"


def test_schedules_are_pickled_by_value():
    for made in [warmup(cosine(0.1, steps=5), steps=2), Schedule(lambda version: 0.5**version)]:
        copy = pickle.loads(cloudpickle.dumps(made))
        assert repr(copy) == repr(made)
        assert [copy(float(version)) for version in range(9)] == [made(float(version)) for version in range(9)]


@pytest.mark.parametrize("wrong", ["x", None, 0.5, "y" * 10_000])
def test_a_schedule_that_is_no_function_is_refused(wrong):
    with pytest.raises(OptionError, match="Schedule: expected a function of the version, got") as caught:
        Schedule(wrong)
    assert len(str(caught.value)) < 300


def test_an_error_in_what_follows_a_warmup_names_it():
    with pytest.raises(OptionError, match="warmup then: expected a finite number, got 'x'"):
        warmup("x", steps=4)

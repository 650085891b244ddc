"""What a rule is: how it is made, what it says when it cannot be, and how it travels."""

import doctest
import importlib
import math
import pickle
import pkgutil
import subprocess
import sys
from fractions import Fraction

import cloudpickle
import numpy as np
import pytest

import fastps
from fastps import rules
from fastps.errors import OptionError, RuleError
from fastps.rules import SGD, Adagrad, Adam, Add, Rule, RuleFamily, rule
from fastps.schedules import Schedule, cosine
from tests.support.waiting import GUARD_SECONDS

MODULES = [importlib.import_module(f"fastps.rules.{module.name}") for module in pkgutil.iter_modules(rules.__path__)]
DOCUMENTED = [m for m in MODULES if m.__name__.rpartition(".")[2] not in ("source", "assignment")]
LIBRARY = [thing for module in MODULES for thing in vars(module).values() if isinstance(thing, RuleFamily)]


@rule(slots={"velocity": 0.0, "first": "start"})
def heavy_ball(p, g, velocity, first, *, step, lr, momentum=0.9, start=0.5):
    velocity = momentum * velocity + g
    return p - lr * velocity, velocity, first


# The library


@pytest.mark.parametrize("module", DOCUMENTED, ids=lambda m: m.__name__)
def test_the_examples_in_the_docstrings_hold(module):
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
    tests = finder.find(module)
    for family in vars(module).values():  # doctest itself looks into functions and classes alone
        if isinstance(family, RuleFamily) and family.__module__ == module.__name__:
            examples = finder.find(family, family.name, module, globs=vars(module))
            assert sum(len(test.examples) for test in examples) > 0
            tests += examples
    assert sum(runner.run(test).attempted for test in tests) > 0
    assert runner.summarize().failed == 0


@pytest.mark.parametrize("family", LIBRARY, ids=lambda family: family.name)
def test_a_rule_of_the_library_says_what_it_does(family):
    for word in [*family.slots, *family.defaults, "Examples"]:
        assert word in family.__doc__, f"{family.name} does not tell of `{word}`"
    assert ("Slots: none" in family.__doc__) == (not family.slots)


@pytest.mark.parametrize("family", LIBRARY, ids=lambda family: family.name)
def test_a_rule_of_the_library_is_pickled_by_reference(family):
    for dumps in (pickle.dumps, cloudpickle.dumps):
        data = dumps(family)
        assert pickle.loads(data) is family
        assert len(data) < 100


# Hyper-parameters


def test_hyper_parameters_are_given_by_position_by_name_or_not_at_all():
    given = heavy_ball(0.1, start=2)
    assert given.hyper == {"lr": 0.1, "momentum": 0.9, "start": 2.0}
    assert given == heavy_ball(lr=0.1, momentum=0.9, start=2.0) == heavy_ball(0.1, 0.9, 2.0)
    assert given.slots == {"velocity": 0.0, "first": 2.0}
    assert given.name == "heavy_ball"


def test_numbers_of_any_kind_are_hyper_parameters():
    assert heavy_ball(np.float32(0.5), np.int8(1), np.array(3)).values == (0.5, 1.0, 3.0)
    assert all(type(value) is float for value in heavy_ball(1, Fraction(1, 2)).values)


@pytest.mark.parametrize(
    ("values", "named", "message"),
    [
        ((), {}, r"heavy_ball: missing hyper-parameters \['lr'\]"),
        ((), {"momentum": 0.5}, r"heavy_ball: missing hyper-parameters \['lr'\]"),
        ((1, 2, 3, 4), {}, r"heavy_ball: expected at most 3 hyper-parameters \['lr', 'momentum', 'start'\], got 4"),
        ((1,), {"lr": 2}, "heavy_ball: hyper-parameter `lr` was given twice"),
        ((1,), {"speed": 2}, r"heavy_ball: unknown hyper-parameter `speed`; it has \['lr', 'momentum', 'start'\]"),
        ((1,), {"step": 2}, "heavy_ball: unknown hyper-parameter `step`"),
        (("a lot",), {}, "heavy_ball lr: expected a finite number, got 'a lot'"),
        ((None,), {}, "heavy_ball lr: expected a finite number, got None"),
        (([1.0],), {}, "heavy_ball lr: expected a finite number, got"),
        ((1j,), {}, "heavy_ball lr: expected a finite number, got"),
        ((math.nan,), {}, "heavy_ball lr: expected a finite number, got nan"),
        ((0.1, np.float32("inf")), {}, "heavy_ball momentum: expected a finite number, got inf"),
    ],
)
def test_hyper_parameters_that_do_not_fit_raise_option_error(values, named, message):
    with pytest.raises(OptionError, match=message):
        heavy_ball(*values, **named)


def test_a_schedule_or_a_function_takes_the_place_of_a_number():
    schedule = cosine(0.1, steps=10)
    assert heavy_ball(schedule).schedules == {"lr": schedule}
    made = heavy_ball(lambda version: 0.5**version)
    assert isinstance(made.hyper["lr"], Schedule)
    assert made.hyper["lr"](2.0) == 0.25
    assert heavy_ball(0.1).schedules == {}


def test_a_slot_cannot_begin_as_a_schedule():
    with pytest.raises(
        RuleError, match="Adagrad: slot `sum` begins as `initial_accumulator_value`, which must be a number"
    ):
        Adagrad(initial_accumulator_value=cosine(0.1, steps=10)).slots  # noqa: B018


def test_step_and_pulled_are_no_hyper_parameters_and_no_slots():
    @rule(slots={"s": 0.0})
    def late(p, g, s, pulled, *, step, lr):
        return p - lr * g * (p - pulled), s

    assert late.uses_step
    assert late.uses_pulled
    assert late(0.1).hyper == {"lr": 0.1}
    assert late.slot_order == ("s",)
    assert not heavy_ball.uses_pulled
    assert not Add.uses_step


def test_slots_are_told_in_the_order_of_the_arguments():
    @rule(slots={"b": 1.0, "a": 0.0})
    def two(p, g, a, b):
        return p, a, b

    assert list(two().slots.items()) == [("a", 0.0), ("b", 1.0)]


# A rule is a value


def test_a_rule_prints_as_it_is_written():
    assert repr(heavy_ball(0.1)) == "heavy_ball(0.1)"
    assert repr(Add()) == "Add()"
    assert repr(heavy_ball(cosine(0.1, steps=10))) == "heavy_ball(cosine(0.1, steps=10, floor=0.0))"
    assert repr(heavy_ball) == "<update rule heavy_ball(lr, momentum, start)>"
    assert eval(repr(Adam(0.5)), {"Adam": Adam}) == Adam(0.5)


def test_rules_are_compared_by_value_and_cannot_be_changed():
    assert Adam(0.1) == Adam(0.1)
    assert hash(Adam(0.1)) == hash(Adam(lr=0.1))
    assert Adam(0.1) != Adam(0.2)
    assert SGD(0.1) != Adam(0.1)
    assert len({Adam(0.1), Adam(0.1), Adam(0.2), SGD(0.1)}) == 3
    with pytest.raises(AttributeError):
        Adam(0.1).values = ()


def test_families_are_equal_when_their_code_slots_defaults_and_closures_are():
    def made(factor, initial=0.0, default=1.0):
        @rule(slots={"s": initial})
        def scaled(p, g, s, *, lr=default):
            return p - factor * lr * g, s

        return scaled

    assert made(1.0) == made(1.0)
    assert hash(made(1.0)) == hash(made(1.0))
    assert made(1.0) != made(2.0)
    assert made(1.0) != made(1.0, initial=0.5)
    assert made(1.0) != made(1.0, default=2.0)
    assert made(1.0) != "scaled"


def test_a_rule_of_the_library_survives_pickling():
    for made in [SGD(0.1, 0.9), Adam(0.1), Add()]:
        assert pickle.loads(pickle.dumps(made)) == made


def test_a_rule_in_a_closure_is_pickled_by_value():
    factor = 3.0

    @rule(slots={"s": 0.5})
    def scaled(p, g, s, *, lr):
        return p - factor * lr * g, s + 1

    copy = pickle.loads(cloudpickle.dumps(scaled(0.5)))
    assert copy == scaled(0.5)
    assert copy.family is not scaled
    assert copy.family.function(1.0, 1.0, 0.0, lr=0.5) == (-0.5, 1.0)


def test_a_rule_without_a_file_is_pickled_by_value():
    names = {"rule": rule, "__name__": "__main__"}
    exec("@rule\ndef halved(p, g, *, lr=0.5):\n    return p - lr * g", names)
    copy = pickle.loads(cloudpickle.dumps(names["halved"]()))
    assert copy == names["halved"]()
    assert copy.family.function(1.0, 1.0, lr=0.5) == 0.5


def test_a_rule_of_a_script_reaches_another_process():
    script = (
        "import sys, cloudpickle, fastps.rules\n"
        "HALF = 0.5\n"
        "@fastps.rules.rule\n"
        "def halved(p, g, *, lr):\n"
        "    return p - HALF * lr * g\n"
        "sys.stdout.buffer.write(cloudpickle.dumps(halved(0.5)))\n"
    )
    data = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=GUARD_SECONDS).stdout
    copy = pickle.loads(data)
    assert isinstance(copy, Rule)
    assert copy.family.function(1.0, 1.0, **copy.hyper) == 0.75


# What is no rule


def refused(make, *parts):
    """Checks what is said, and that the line that defines the function is quoted."""
    with pytest.raises(RuleError) as caught:
        make()
    message = str(caught.value)
    for part in parts:
        assert part in message
    return message


def test_a_slot_without_an_initial_value_raises_rule_error_with_the_line():
    def make():
        @rule
        def forgets(p, g, m, *, lr):
            return p, m

    message = refused(make, "rule forgets: the argument `m` is a slot without an initial value", "@rule(slots=")
    assert message.endswith("    def forgets(p, g, m, *, lr):")
    assert f"{__file__}:" in message


def test_a_slot_that_is_no_argument_raises_rule_error_with_the_line():
    def make():
        @rule(slots={"m": 0.0})
        def unused(p, g, *, lr):
            return p

    refused(make, "slots names `m`, which is no argument", "def unused(p, g, *, lr):")


@pytest.mark.parametrize("arguments", ["", "p", "p, *, g"])
def test_a_function_without_parameter_and_gradient_raises_rule_error(arguments):
    names = {"rule": rule, "__name__": "somewhere"}
    refused(
        lambda: exec(f"@rule\ndef small({arguments}):\n    return 0", names),
        "rule small: expected a parameter, its gradient and the slots as arguments",
    )


@pytest.mark.parametrize(("arguments", "name"), [("p, g, *rest", "rest"), ("p, g, **rest", "rest")])
def test_arguments_without_a_number_raise_rule_error(arguments, name):
    names = {"rule": rule, "__name__": "somewhere"}
    refused(lambda: exec(f"@rule\ndef many({arguments}):\n    return p", names), f"`*{name}` is not supported")


def test_a_default_before_the_star_raises_rule_error_with_the_line():
    def make():
        @rule
        def mixed(p, g, lr=0.1):
            return p - lr * g

    refused(make, "`lr` has a default, so it is a hyper-parameter; write a `*` before it", "def mixed(p, g, lr=0.1):")


@pytest.mark.parametrize(("slots", "hyper"), [(16, 0), (0, 17)])
def test_too_many_slots_or_hyper_parameters_raise_rule_error(slots, hyper):
    def make(slots, hyper):
        named = [f"s{i}" for i in range(slots)]
        arguments = ", ".join(["p", "g", *named, *(["*"] if hyper else []), *(f"h{i}" for i in range(hyper))])
        names = {"rule": rule, "__name__": "somewhere"}
        exec(f"@rule(slots=dict.fromkeys({named}, 0.0))\ndef large({arguments}):\n    return p", names)

    refused(lambda: make(slots, hyper), "expected at most 15 slots and 16 hyper-parameters")
    make(max(slots - 1, 0), max(hyper - 1, 0))


@pytest.mark.parametrize(
    ("initial", "message"),
    [
        ("speed", "slot `m` begins as `speed`, which is no hyper-parameter"),
        ("step", "slot `m` begins as `step`, which is no hyper-parameter"),
        (None, "slot `m`: expected a number or a hyper-parameter's name, got None"),
        ([0.0], "slot `m`: expected a number or a hyper-parameter's name, got [0.0]"),
    ],
)
def test_a_slot_that_begins_as_no_number_raises_rule_error_with_the_line(initial, message):
    def make():
        @rule(slots={"m": initial})
        def slotted(p, g, m, *, step, lr):
            return p, m

    refused(make, message, "def slotted(p, g, m, *, step, lr):")


@pytest.mark.parametrize("thing", [3, "adam", Adam, print, type, {"m": 0.0}])
def test_what_is_no_function_raises_rule_error(thing):
    refused(lambda: rule(thing), "rule: expected a Python function, got")
    refused(lambda: rule(slots={})(thing), "rule: expected a Python function, got")


def test_slots_that_are_no_mapping_raise_rule_error():
    refused(lambda: rule(slots=["m", "v"]), "expected slots to be a mapping of names to initial values, got list")


def test_a_default_that_is_no_finite_number_raises_option_error():
    with pytest.raises(OptionError, match="odd lr: expected a finite number, got inf"):

        @rule
        def odd(p, g, *, lr=math.inf):
            return p

    with pytest.raises(OptionError, match="odd lr: expected a finite number, got 'fast'"):

        @rule
        def odd(p, g, *, lr="fast"):
            return p


def test_rule_errors_survive_pickling():
    with pytest.raises(RuleError) as caught:
        rule(3)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert isinstance(caught.value, fastps.FastPSError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"slots": {"v": True}}, "slot `v`: expected a number or a hyper-parameter's name, got True"),
        ({"slots": {"v": math.nan}}, "slot `v`: expected a number or a hyper-parameter's name, got nan"),
        ({"slots": {"v": None}}, "slot `v`: expected a number or a hyper-parameter's name, got None"),
        ({"slots": {"v": 0.0}, "row_slots": 3}, "expected row_slots to be a sequence of names, got 3"),
    ],
)
def test_slots_that_cannot_be_raise_rule_error(declared, message):
    with pytest.raises(RuleError, match=message):

        @rule(**declared)
        def averaging(p, g, v, *, lr=0.1):
            return p - lr * g, v


def test_a_slot_begins_as_a_number_of_any_kind():
    @rule(slots={"v": np.float32(0.5)})
    def averaging(p, g, v, *, lr=0.1):
        return p - lr * g, v

    assert averaging().slots == {"v": 0.5}

"""What an update rule is: a scalar function of one parameter, its gradient and its slots, and hyper-parameters.

`@rule` turns the function into a `RuleFamily`; calling that with hyper-parameters makes a `Rule`, which is a value: it
can be compared, printed and pickled. `fastps.kernels` compiles it. Nothing here compiles or loads numba.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, overload

from fastps.errors import OptionError, RuleError
from fastps.messages import brief
from fastps.rules.source import at_line_of
from fastps.scalars import finite, flag
from fastps.schedules import Schedule

PULLED = "pulled"  # arguments that are neither slots nor hyper-parameters
MEAN_SQUARE = "mean_square"
NO_SLOTS = (PULLED, MEAN_SQUARE)
MAX_HYPER, MAX_SLOTS = 16, 15  # FPS_MAX_HYPER and FPS_MAX_SLOTS in csrc/layout.h


class RuleFamily:
    """An update rule without values for its hyper-parameters. Made by `rule`; call it with them to get a `Rule`.

    Attributes
    ----------
    name : of the function
    label, fixed : where a function such as `SGD` chooses among rules: its name, and the argument that chose this one
    function : as it was written; `family.function(p, g, ..., lr=0.1)` computes one element in plain Python
    slots : each slot's initial value: a number, or the name of the hyper-parameter that holds it
    defaults : each hyper-parameter's default; `REQUIRED` for those without one
    row_slots : those slots that are one value for the whole row of a table
    uses_step, uses_pulled, uses_mean_square : whether the function has an argument `step`, `pulled`, `mean_square`
    """

    REQUIRED = inspect.Parameter.empty

    def __init__(
        self, function: Callable[..., Any], slots: Mapping[str, float | str], row_slots: Sequence[str] = ()
    ) -> None:
        self.name, self.function, self.row_slots = function.__name__, function, tuple(row_slots)
        self.label, self.fixed = self.name, ""
        self.__name__, self.__qualname__, self.__doc__ = function.__name__, function.__qualname__, function.__doc__
        self.__module__ = function.__module__
        self.slots: Mapping[str, float | str] = MappingProxyType(dict(slots))
        positional, keywords = _parameters(function)
        self.uses_step, self.uses_pulled = "step" in keywords, PULLED in positional
        self.uses_mean_square = MEAN_SQUARE in positional
        self.defaults = MappingProxyType({n: p.default for n, p in keywords.items() if n != "step"})
        self._check(positional)

    def _check(self, positional: list[str]) -> None:
        def refuse(text: str) -> None:
            raise RuleError(f"rule {self.name}: {text}{at_line_of(self.function)}")

        if len(positional) < 2:
            refuse(f"expected a parameter, its gradient and the slots as arguments, got {positional}")
        order = [name for name in positional[2:] if name not in NO_SLOTS]
        for slot in order:
            if slot not in self.slots:
                refuse(f"the argument `{slot}` is a slot without an initial value; add it to @rule(slots={{...}})")
        for slot in self.slots:
            if slot not in order:
                refuse(f"slots names `{slot}`, which is no argument; write def {self.name}(p, g, {slot}, *, ...)")
        for slot in self.row_slots:
            if slot not in self.slots:
                refuse(f"row_slots names `{slot}`, which is no slot")
        if len(self.slots) > MAX_SLOTS or len(self.defaults) > MAX_HYPER:
            refuse(f"expected at most {MAX_SLOTS} slots and {MAX_HYPER} hyper-parameters")
        for slot, initial in self.slots.items():
            if isinstance(initial, str) and initial not in self.defaults:
                refuse(f"slot `{slot}` begins as `{initial}`, which is no hyper-parameter")
            if not isinstance(initial, str):
                try:
                    finite(f"slot `{slot}`", initial, "a number or a hyper-parameter's name")
                except OptionError as error:
                    refuse(str(error))
        for name, default in self.defaults.items():
            if default is not self.REQUIRED:
                _number(self.name, name, default, isinstance(default, bool))

    @property
    def slot_order(self) -> tuple[str, ...]:
        """The slots as the function takes and returns them."""
        return tuple(name for name in _parameters(self.function)[0][2:] if name not in NO_SLOTS)

    @property
    def for_rows(self) -> bool:
        """Whether it can be used only in tables, since it depends on a row as a whole."""
        return bool(self.row_slots) or self.uses_mean_square

    def __call__(self, *values: Any, **named: Any) -> Rule:
        names = list(self.defaults)
        if len(values) > len(names):
            raise OptionError(
                f"{self.label}: expected at most {len(names)} hyper-parameters {names}, got {len(values)}"
            )
        given = dict(zip(names, values, strict=False))
        for name, value in named.items():
            if name not in self.defaults:
                raise OptionError(f"{self.label}: unknown hyper-parameter `{name}`; it has {names}")
            if name in given:
                raise OptionError(f"{self.label}: hyper-parameter `{name}` was given twice")
            given[name] = value
        missing = [n for n, d in self.defaults.items() if d is self.REQUIRED and n not in given]
        if missing:
            raise OptionError(f"{self.label}: missing hyper-parameters {missing}")
        hyper = {n: _value(self.label, n, given.get(n, d), isinstance(d, bool)) for n, d in self.defaults.items()}
        return Rule(self, tuple(hyper.values()))

    @property
    def of_library(self) -> bool:
        return str(self.__module__).split(".")[0] == "fastps"  # None in an `exec` without `__name__`

    def __reduce__(self) -> Any:
        if self.of_library:
            return self.__qualname__  # by reference
        return type(self), (self.function, dict(self.slots), self.row_slots)

    def __eq__(self, other: object) -> bool:
        """Equal code, slots, defaults and closure. A copy with a helper function of its own in its closure is not
        equal."""
        if not isinstance(other, RuleFamily):
            return NotImplemented
        mine, its = self.function, other.function
        return mine is its or (
            (mine.__code__, self.slots, self.row_slots, mine.__kwdefaults__)
            == (its.__code__, other.slots, other.row_slots, its.__kwdefaults__)
            and [c.cell_contents for c in mine.__closure__ or ()] == [c.cell_contents for c in its.__closure__ or ()]
        )

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"<update rule {self.name}({', '.join(self.defaults)})>"


@dataclass(frozen=True, repr=False)
class Rule:
    """An update rule with its hyper-parameters.

    Attributes
    ----------
    family : the rule without them
    values : one per hyper-parameter, in the order of the family's: a number or a Schedule
    """

    family: RuleFamily
    values: tuple[float | Schedule, ...]

    @property
    def name(self) -> str:
        return self.family.name

    @property
    def hyper(self) -> dict[str, float | Schedule]:
        """The hyper-parameters by name."""
        return dict(zip(self.family.defaults, self.values, strict=True))

    @property
    def slots(self) -> dict[str, float]:
        """The initial value of each slot, in the order in which the function takes them."""
        return {name: self._initial(name) for name in self.family.slot_order}

    def _initial(self, slot: str) -> float:
        value = self.family.slots[slot]
        number = self.hyper[value] if isinstance(value, str) else value
        if isinstance(number, Schedule):
            raise RuleError(
                f"{self.family.label}: slot `{slot}` begins as `{value}`, which must be a number, not a schedule"
            )
        return float(number)

    @property
    def schedules(self) -> dict[str, Schedule]:
        """The hyper-parameters that follow a schedule."""
        return {name: value for name, value in self.hyper.items() if isinstance(value, Schedule)}

    def __repr__(self) -> str:
        """As it is written: hyper-parameters that are not the default, the first one without its name."""
        family, given = self.family, []
        for i, ((name, default), value) in enumerate(zip(family.defaults.items(), self.values, strict=True)):
            text = repr(bool(value) if isinstance(default, bool) and value in (0.0, 1.0) else value)
            if default is family.REQUIRED or isinstance(value, Schedule) or value != default:
                given.append(text if i == 0 else f"{name}={text}")
        return f"{family.label}({', '.join(filter(None, [*given, family.fixed]))})"


@overload
def rule(function: Callable[..., Any], /) -> RuleFamily: ...
@overload
def rule(
    *, slots: Mapping[str, float | str] = ..., row_slots: Sequence[str] = ...
) -> Callable[[Callable[..., Any]], RuleFamily]: ...


def rule(
    function: Callable[..., Any] | None = None,
    /,
    *,
    slots: Mapping[str, float | str] | None = None,
    row_slots: Sequence[str] = (),
) -> Any:
    """Makes an update rule from a scalar function.

    The function takes a parameter, its gradient and the slots, and, after a ``*``, hyper-parameters and optionally
    `step`: the number of this push among those that had the array, from 1. It returns the new parameter, followed by
    the new slots in the order of the arguments. An argument called `pulled` is the parameter as the worker had it when
    it computed the gradient; the worker then passes it to `push`. In tables, an argument called `mean_square` is the
    mean of the squares of the row's gradient. The function may use arithmetic, comparisons, ``if``, `abs`, `min`,
    `max`, the functions of `math`, `numpy.sign`, `numpy.clip`, and call other such functions.
    docs/rules.md has the details.

    A value that depends only on hyper-parameters and `step` is uniform: it is computed in float64, once per array. A
    value that depends on an element is computed in the dtype of the parameters. A division by a uniform value is a
    multiplication by its reciprocal.

    Parameters
    ----------
    slots : mapping of names to numbers, or to names of hyper-parameters
        State that a rule keeps for each parameter, by name, and its initial value.
    row_slots : sequence of names, optional
        Those of the slots that are one value for the whole row of a table. What the rule returns for them may depend
        only on such slots, `mean_square` and hyper-parameters; what it returns for the last element of the row is kept.

    Raises
    ------
    RuleError
        The signature is not that of a rule. Code that cannot be compiled is refused when a server is created.

    Examples
    --------
    >>> import fastps
    >>> @fastps.rule(slots={"velocity": 0.0})
    ... def heavy_ball(p, g, velocity, *, lr, momentum=0.9):
    ...     velocity = momentum * velocity + g
    ...     return p - lr * velocity, velocity
    >>> heavy_ball(lr=0.1)
    heavy_ball(0.1)
    """
    if function is not None:
        return _family(function, {}, ())
    given = {} if slots is None else slots
    if not isinstance(given, Mapping):
        raise RuleError(f"rule: expected slots to be a mapping of names to initial values, got {type(slots).__name__}")
    if not isinstance(row_slots, Sequence):
        raise RuleError(f"rule: expected row_slots to be a sequence of names, got {brief(row_slots)}")
    names = [row_slots] if isinstance(row_slots, str) else list(row_slots)
    return lambda function: _family(function, given, names)


def _family(function: Callable[..., Any], slots: Mapping[str, float | str], row_slots: Sequence[str]) -> RuleFamily:
    if not inspect.isfunction(function):
        raise RuleError(f"rule: expected a Python function, got {type(function).__name__} {brief(function)}")
    return RuleFamily(function, slots, row_slots)


def _parameters(function: Callable[..., Any]) -> tuple[list[str], dict[str, inspect.Parameter]]:
    """The names of the positional arguments, and the keyword-only ones."""
    positional, keywords = [], {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise RuleError(f"rule {function.__name__}: `*{name}` is not supported{at_line_of(function)}")
        if parameter.kind is parameter.KEYWORD_ONLY:
            keywords[name] = parameter
        elif parameter.default is not parameter.empty:
            raise RuleError(
                f"rule {function.__name__}: `{name}` has a default, so it is a hyper-parameter; write a `*` before it"
                f"{at_line_of(function)}"
            )
        else:
            positional.append(name)
    return positional, keywords


def _number(what: str, name: str, value: Any, is_flag: bool) -> float:
    return float(flag(f"{what} {name}", value)) if is_flag else finite(f"{what} {name}", value)


def _value(what: str, name: str, value: Any, is_flag: bool) -> float | Schedule:
    if isinstance(value, Schedule):
        return value
    if inspect.isfunction(value):
        return Schedule(value)
    return _number(what, name, value, is_flag)

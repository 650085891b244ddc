"""Hyper-parameters that change with the update count: learning-rate schedules.

A schedule is a function of the update count before a push, 0 at the first one. It is compiled with the rule and
evaluated once per push, under the shard's lock: every push uses the value for its own update count.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from fastps.errors import OptionError
from fastps.messages import brief
from fastps.scalars import finite, positive


@dataclass(frozen=True, repr=False)
class Schedule:
    """A function of the update count, in place of a hyper-parameter's value.

    Attributes
    ----------
    function : takes the update count, a float, and returns the value; compiled like a rule, so it may use arithmetic,
        `if`, the functions of `math`, constants, and functions of that kind
    label : its repr
    """

    function: Callable[[float], float]
    label: str = ""

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise OptionError(f"Schedule: expected a function of the version, got {brief(self.function)}")

    def __call__(self, version: float) -> float:
        return self.function(version)

    def __repr__(self) -> str:
        return self.label or f"<schedule {getattr(self.function, '__name__', type(self.function).__name__)}>"


def constant(value: float) -> Schedule:
    """Always `value`."""
    value = finite("constant value", value)
    return Schedule(lambda version: value, f"constant({value!r})")


def step_decay(value: float, *, every: int, factor: float = 0.1) -> Schedule:
    """`value`, multiplied by `factor` after each `every` pushes, as torch's StepLR.

    >>> [step_decay(1.0, every=10, factor=0.5)(version) for version in (0, 9, 10, 25)]
    [1.0, 1.0, 0.5, 0.25]
    """
    value, factor = finite("step_decay value", value), finite("step_decay factor", factor)
    period = positive("step_decay every", every)
    return Schedule(
        lambda version: value * factor ** float(math.floor(version / period)),
        f"step_decay({value!r}, every={every}, factor={factor!r})",
    )


def cosine(value: float, *, steps: int, floor: float = 0.0) -> Schedule:
    """From `value` down to `floor` in `steps` pushes along half a cosine, then `floor` (Loshchilov and Hutter, SGDR,
    2017, without restarts).

    >>> [round(cosine(1.0, steps=100)(version), 6) for version in (0, 50, 100, 1000)]
    [1.0, 0.5, 0.0, 0.0]
    """
    value, floor = finite("cosine value", value), finite("cosine floor", floor)
    period = positive("cosine steps", steps)
    return Schedule(
        lambda version: floor + 0.5 * (value - floor) * (1 + math.cos(math.pi * min(version / period, 1.0))),
        f"cosine({value!r}, steps={steps}, floor={floor!r})",
    )


def warmup(then: float | Schedule | Callable[[float], float], *, steps: int) -> Schedule:
    """Linearly up in `steps` pushes to `then`, a number or a schedule, which begins when the warm-up ends.

    The first push is made with 1 / `steps` of `then`'s first value.

    >>> [warmup(1.0, steps=4)(version) for version in (0, 1, 3, 4, 9)]
    [0.25, 0.5, 1.0, 1.0, 1.0]
    """
    period = positive("warmup steps", steps)
    then = then if isinstance(then, Schedule) or callable(then) else finite("warmup then", then)
    schedule = then if isinstance(then, Schedule) else Schedule(then) if callable(then) else constant(then)
    after = schedule.function
    return Schedule(
        lambda version: after(0.0) * (version + 1) / period if version < period else after(version - period),
        f"warmup({then!r}, steps={steps})",
    )

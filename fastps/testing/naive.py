"""Update rules executed in Python: the oracle of the compiled kernels.

The rule's own function is called for one element after the other. Elements are numpy scalars of the parameters' dtype,
hyper-parameters and `step` are Python floats: so values that do not depend on elements are computed in float64, as in a
kernel, and the rest in the elements' dtype.

A kernel agrees bit for bit if a rule only adds, subtracts, multiplies and compares, as `Add` and `SGD` without momentum
do. Otherwise it agrees to a few units in the last place, for two reasons: functions of `math` return a Python float, so
that a float32 is not rounded after a root; and a kernel multiplies by the reciprocal of a uniform divisor. Where Python
raises (a division of two of its own floats by zero, `math.sqrt` of a negative number), a kernel has inf or NaN; a rule
for which that is expected should use numpy's functions.
"""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np

from fastps.errors import OptionError
from fastps.rules.base import PULLED, Rule
from fastps.schedules import Schedule

Array = np.ndarray[Any, np.dtype[Any]]


class Naive:
    """Parameters with the slots of a rule.

    Attributes
    ----------
    params : the parameters, a copy of those given
    slots : each slot's values by name, in the parameters' shape and dtype
    step : the number of pushes so far
    """

    def __init__(self, rule: Rule, params: Any) -> None:
        self.rule, self.params, self.step = rule, np.array(params), 0
        self.slots: dict[str, Array] = {name: np.full_like(self.params, at) for name, at in rule.slots.items()}

    def push(self, grads: Any, pulled: Any = None, scale: float = 1.0, limit: float = math.inf) -> None:
        """One push of `grads`, which are multiplied by `scale` and then clipped to [-limit, limit]."""
        family, number = self.rule.family, self.params.dtype.type
        if family.uses_pulled and pulled is None:
            raise OptionError(f"{self.rule.name}: needs `pulled`")
        self.step += 1
        uniform = {name: self._at_this_push(value) for name, value in self.rule.hyper.items()}
        if family.uses_step:
            uniform["step"] = float(self.step)
        with np.errstate(all="ignore"):
            clipped = np.clip(grads * number(scale), -number(limit), number(limit))
            named = {**self.slots, PULLED: pulled} if family.uses_pulled else self.slots
            behind = [name for name in inspect.signature(family.function).parameters if name in named]
            arrays = [self.params, clipped, *(named[name] for name in behind)]
            elements = zip(*(np.ravel(array) for array in arrays), strict=True)
            new = [family.function(*element, **uniform) for element in elements]
        results = zip(*new, strict=True) if self.slots else [new]
        for array, values in zip([self.params, *self.slots.values()], results, strict=bool(new)):
            array[...] = np.array(values, array.dtype).reshape(array.shape)

    def _at_this_push(self, value: float | Schedule) -> float:
        return float(value(self.step - 1.0) if isinstance(value, Schedule) else value)

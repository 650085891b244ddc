"""What an update rule is: a scalar function of one parameter and its gradient, and its hyper-parameters.

A rule is a frozen dataclass whose fields are the hyper-parameters, all of them numbers, and whose static method `step`
takes the parameter, the gradient and the hyper-parameters in the order of the fields and returns the new parameter. It
is compiled to a loop over arrays (`fastps.kernels`) and is also plain Python, to be read and tested as such.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable

from fastps.errors import OptionError


@dataclasses.dataclass(frozen=True)
class Rule(ABC):
    """The base of all rules."""

    @staticmethod
    @abstractmethod
    def step(p: float, g: float, *hyper: float) -> float:
        """The new value of one parameter `p` with gradient `g`."""

    def __post_init__(self) -> None:
        for field, value in zip(dataclasses.fields(self), self.hyper, strict=True):
            if not math.isfinite(value):
                raise OptionError(f"{self!r}: expected a finite {field.name}, got {value}")

    @property
    def hyper(self) -> tuple[float, ...]:
        """The hyper-parameters in the order in which `step` takes them."""
        values = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            try:
                values.append(float(value))
            except (TypeError, ValueError):
                raise OptionError(
                    f"{type(self).__name__}: expected a number as {field.name}, got {type(value).__name__} {value!r}"
                ) from None
        return tuple(values)

    @property
    def scalar(self) -> Callable[..., float]:
        """The function to compile."""
        return type(self).step

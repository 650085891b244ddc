"""Initial values of rows: a function of the table's seed and the row's key alone.

csrc/initial.c computes them from a counter, with plain arithmetic: the same bits on every machine, whatever the number
of shards and the order of creation.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastps.arrays.interchange import as_array
from fastps.errors import DtypeError, OptionError
from fastps.messages import brief
from fastps.scalars import finite, is_masked, is_no_number

CONSTANT, UNIFORM, NORMAL = range(3)  # fps_initial in csrc/layout.h


def _finite(owner: Any, *names: str) -> None:
    for name in names:
        object.__setattr__(owner, name, finite(f"{type(owner).__name__} {name}", getattr(owner, name)))


class Initializer(ABC):
    """The base class of initializers."""

    @abstractmethod
    def numbers(self, dim: int) -> tuple[int, float, float]:
        """(kind, first, second) of csrc/initial.c for rows of `dim` values."""


@dataclass(frozen=True)
class Constant(Initializer):
    """All values are `value`."""

    value: float = 0.0

    def __post_init__(self) -> None:
        _finite(self, "value")

    def numbers(self, dim: int) -> tuple[int, float, float]:
        return CONSTANT, float(self.value), 0.0


@dataclass(frozen=True)
class Uniform(Initializer):
    """Uniform in [low, high]."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _finite(self, "low", "high")
        if self.low > self.high:
            raise OptionError(f"Uniform: expected low <= high, got {self.low} and {self.high}")

    def numbers(self, dim: int) -> tuple[int, float, float]:
        return UNIFORM, float(self.low), float(self.high)


@dataclass(frozen=True)
class Normal(Initializer):
    """Normal, of this mean and standard deviation."""

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        _finite(self, "mean", "std")
        if self.std < 0:
            raise OptionError(f"Normal: expected std >= 0, got {self.std}")

    def numbers(self, dim: int) -> tuple[int, float, float]:
        return NORMAL, float(self.mean), float(self.std)


@dataclass(frozen=True)
class Glorot(Initializer):
    """Uniform in [-b, b], b = gain sqrt(6 / (fan_in + fan_out)): Glorot and Bengio, Understanding the difficulty of
    training deep feedforward neural networks, AISTATS 2010.

    `fan_in` is the approximate number of rows, which a table does not fix. `fan_out` is its dim unless given. torch's
    `xavier_uniform_` on an embedding's weight is the same.
    """

    fan_in: int
    fan_out: int | None = None
    gain: float = 1.0

    def __post_init__(self) -> None:
        _finite(self, "fan_in", "gain", *(["fan_out"] if self.fan_out is not None else []))
        if self.fan_in < 1 or (self.fan_out is not None and self.fan_out < 1):
            raise OptionError(f"Glorot: expected fans of at least 1, got {self.fan_in} and {self.fan_out}")

    def numbers(self, dim: int) -> tuple[int, float, float]:
        bound = self.gain * math.sqrt(6 / (self.fan_in + (self.fan_out or dim)))
        return UNIFORM, -bound, bound


@dataclass(frozen=True, eq=False)
class Array(Initializer):
    """Rows that exist from the beginning.

    Attributes
    ----------
    values : array[n, dim], copied into the table when the server is created
    keys : of the rows; 0 to n - 1 without them
    others : the initializer of rows of other keys
    """

    values: Any
    keys: Any = None
    others: Initializer = Constant(0.0)

    def __post_init__(self) -> None:
        given = self.values
        rows = given if isinstance(given, (list, tuple)) else []
        try:
            for at, row in enumerate(rows):
                if is_masked(row):
                    as_array(row, f"Array values[{at}]")  # says why it cannot be
            values = np.asarray(rows or as_array(given, "Array values"))
        except DtypeError as error:
            raise OptionError(str(error)) from error
        except ValueError:
            raise OptionError("Array: expected values[n, dim], got rows of different lengths") from None
        if values.ndim != 2 or values.dtype.kind not in "fiu":
            raise OptionError(f"Array: expected numbers as values[n, dim], got {values.dtype}{list(values.shape)}")
        object.__setattr__(self, "values", values)
        if self.keys is not None and _length(self.keys) != len(values):
            raise OptionError(f"Array: expected a key for each of {len(values)} rows, got {brief(self.keys)}")
        if not isinstance(self.others, Initializer):
            raise OptionError(f"Array: expected others to be an initializer, got {brief(self.others)}")

    def numbers(self, dim: int) -> tuple[int, float, float]:
        return self.others.numbers(dim)


def _length(keys: Any) -> int | None:
    try:
        return len(keys)
    except Exception:  # an iterator, an array without dimensions
        return None


def initializer(value: Any, dim: int) -> Initializer:
    """The initializer for a user's argument: an initializer, a number, an array of rows, or None for a uniform one of
    standard deviation 1 / sqrt(dim)."""
    if value is None:
        return Glorot(fan_in=dim, fan_out=dim)
    if isinstance(value, Initializer):
        return value
    if hasattr(value, "__array__") and np.ndim(value) == 2:
        return Array(value)
    if (hasattr(value, "__float__") or hasattr(value, "__index__")) and not is_no_number(value):
        return Constant(finite("init", value))
    raise OptionError(
        f"init: expected a number, an array[n, dim] or one of fastps.init.Constant, Uniform, Normal, Glorot and Array, "
        f"got {brief(value)}"
    )

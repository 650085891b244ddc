"""Numbers as users give them: one rule for all options, hyper-parameters and timeouts.

A whole number is what `operator.index` takes, another one what `float` takes: numpy's scalars and arrays without
dimensions are numbers. Not so bool, which is a slip of the pen far more often than a count, and text.
"""

from __future__ import annotations

import math
import operator
from typing import Any

from fastps.errors import OptionError


def whole(what: str, value: Any, least: int, most: int) -> int:
    """An int in this range. Raises OptionError."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or is_no_number(value) or not least <= number <= most:
        raise OptionError(f"{what}: expected a whole number from {least:,} to {most:,}, got {value!r}")
    return number


def real(what: str, value: Any, expected: str = "a finite number") -> float:
    """A float, infinite or NaN where `value` is. Raises OptionError for what is none, or too large for one."""
    try:
        if not is_no_number(value):
            return float(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise OptionError(f"{what}: expected {expected}, got {repr(value)[:200]}")


def finite(what: str, value: Any) -> float:
    """The same, but finite."""
    number = real(what, value)
    if not math.isfinite(number):
        raise OptionError(f"{what}: expected a finite number, got {number}")
    return number


def positive(what: str, value: Any, most: float = math.inf, expected: str = "a number") -> float:
    """The same, above 0 and at most `most`, infinity excluded."""
    bound = f", more than 0 and at most {most:g}" if most < math.inf else ", more than 0"
    number = real(what, value, expected + bound)
    if not 0 < number <= most or number == math.inf:
        raise OptionError(f"{what}: expected {expected}{bound}, got {value!r}")
    return number


def is_no_number(value: Any) -> bool:
    """What `float` would take, or `operator.index`, and is meant as something else."""
    return isinstance(value, (bool, str, bytes, bytearray)) or (
        hasattr(value, "dtype") and (getattr(value, "ndim", 0) > 0 or str(value.dtype).endswith("bool"))
    )

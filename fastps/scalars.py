"""Users' numbers, flags and words: one policy for all options, hyper-parameters and timeouts.

A whole number is anything that `operator.index` accepts, another number anything that `float` accepts: numpy's scalars
and arrays without dimensions included. Refused are bool, which is far more often a mistake than a count, text, and
values that would lose a part: a unit of time, an imaginary part, a mask. A flag is True or False, or 1 or 0, as rules
store theirs.
"""

from __future__ import annotations

import math
import operator
import re
import sys
from collections import UserString
from numbers import Real
from typing import Any

import numpy as np

from fastps.errors import OptionError
from fastps.messages import brief

NO_NUMBERS = (bool, str, bytes, bytearray, UserString)
NUMERIC = re.compile(r"\b(u?int|b?float)\d")  # dtypes by their names, those of torch and ml_dtypes included


def is_masked(value: Any) -> bool:
    """Whether it is a masked array of numpy. Loads nothing: who has one has loaded numpy.ma, which takes 5 ms."""
    masked = sys.modules.get("numpy.ma")
    return masked is not None and isinstance(value, masked.MaskedArray)


def whole(what: str, value: Any, least: int, most: int) -> int:
    """An int in this range. Raises OptionError."""
    try:
        number = None if is_no_number(value) else operator.index(value)
    except Exception:  # whatever the class of the value raises
        number = None
    if number is None or not least <= number <= most:
        raise OptionError(f"{what}: expected a whole number from {least:,} to {most:,}, got {brief(value)}")
    return number


def real(what: str, value: Any, expected: str = "a finite number") -> float:
    """A float, infinite or NaN if `value` is. Raises OptionError for other values, and those too large for a float."""
    try:
        if not is_no_number(value):
            return float(value)
    except Exception:  # whatever the class of the value raises
        pass
    raise OptionError(f"{what}: expected {expected}, got {brief(value)}")


def finite(what: str, value: Any, expected: str = "a finite number") -> float:
    """The same, but finite."""
    number = real(what, value, expected)
    if not math.isfinite(number):
        raise OptionError(f"{what}: expected {expected}, got {number}")
    return number


def positive(what: str, value: Any, most: float = math.inf, expected: str = "a number") -> float:
    """The same, above 0 and at most `most`, infinity excluded."""
    bound = f", more than 0 and at most {most:g}" if most < math.inf else ", more than 0"
    number = real(what, value, expected + bound)
    if not 0 < number <= most or number == math.inf:
        raise OptionError(f"{what}: expected {expected}{bound}, got {brief(value)}")
    return number


def flag(what: str, value: Any) -> bool:
    """A bool. Raises OptionError."""
    if isinstance(value, (bool, np.bool_)) or (isinstance(value, Real) and value in (0, 1)):
        return bool(value)
    raise OptionError(f"{what}: expected True or False, got {brief(value)}")


def choice(what: str, value: Any, choices: tuple[str, ...], otherwise: str = "") -> str:
    """One of these words. Raises OptionError, whose text names `otherwise` as a further possibility."""
    if isinstance(value, str) and value in choices:
        return value
    raise OptionError(f"{what}: expected one of {choices}{otherwise}, got {brief(value)}")


def is_no_number(value: Any) -> bool:
    """Whether `float` or `operator.index` might accept a value that is meant as something else."""
    if isinstance(value, NO_NUMBERS) or is_masked(value):
        return True
    if not hasattr(value, "dtype"):
        return False
    return getattr(value, "ndim", 0) > 0 or not NUMERIC.search(getattr(value.dtype, "name", str(value.dtype)))

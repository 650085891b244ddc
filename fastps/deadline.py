"""Users' timeouts, and the deadlines that follow from them, in seconds of the monotonic clock."""

from __future__ import annotations

import time
from typing import Any

from fastps.errors import OptionError
from fastps.scalars import real


def deadline_after(timeout: float) -> float:
    return time.monotonic() + timeout


def left_until(deadline: float) -> float:
    """Seconds, never negative."""
    return max(0.0, deadline - time.monotonic())


def default_seconds(timeout: Any) -> float:
    """A server's timeout, which its operations inherit: as theirs, infinity included, but more than 0: creation has
    to wait. Raises OptionError."""
    number = real("timeout", timeout, "seconds, more than 0")
    if not number > 0:  # NaN included
        raise OptionError(f"timeout: expected seconds, more than 0, got {number}")
    return number


def seconds(timeout: Any) -> float | None:
    """A timeout in seconds, 0 or more, infinity included; or None for the server's. Raises OptionError."""
    if timeout is None:
        return None
    number = real("timeout", timeout, "seconds, 0 or more, or None")
    if not number >= 0:  # NaN included
        raise OptionError(f"timeout: expected seconds, 0 or more, or None, got {number}")
    return number

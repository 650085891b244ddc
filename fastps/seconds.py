"""The timeout of an operation, as users give it."""

from __future__ import annotations

from typing import Any

from fastps.errors import OptionError
from fastps.scalars import real


def seconds(timeout: Any) -> float | None:
    """A timeout in seconds, 0 or more, infinity included; or None for the server's. Raises OptionError."""
    if timeout is None:
        return None
    number = real("timeout", timeout, "seconds, 0 or more, or None")
    if not number >= 0:  # NaN included
        raise OptionError(f"timeout: expected seconds, 0 or more, or None, got {number}")
    return number

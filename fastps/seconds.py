"""The timeout of an operation, as users give it."""

from __future__ import annotations

from typing import Any

from fastps.errors import OptionError


def seconds(timeout: Any) -> float | None:
    """`timeout` itself, in seconds, or None for the server's. Raises OptionError."""
    if timeout is None or (isinstance(timeout, (int, float)) and timeout >= 0):
        return timeout
    raise OptionError(f"timeout: expected seconds, 0 or more, or None, got {timeout!r}")

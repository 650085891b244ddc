"""Points in time until which something may take. Seconds of the monotonic clock."""

from __future__ import annotations

import time


def deadline_after(timeout: float) -> float:
    return time.monotonic() + timeout


def left_until(deadline: float) -> float:
    """Seconds, never negative."""
    return max(0.0, deadline - time.monotonic())

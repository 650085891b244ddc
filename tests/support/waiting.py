"""Waiting for what will come, without a limit on how long that takes."""

from __future__ import annotations

import time


def wait_until(condition, seconds, what):
    """Waits for `condition()` to be true; a guard against hanging, not a limit on speed."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)

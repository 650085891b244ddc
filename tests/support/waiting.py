"""Waiting for what will come. No limit here is one on speed: they end what hangs, on a machine that is busy as well."""

from __future__ import annotations

import time

GUARD_SECONDS = 600  # for what takes some seconds on a quiet machine; less than a test's own timeout
PATIENCE = 20


def wait_until(condition, seconds, what):
    """Waits for `condition()` to be true, which may take `seconds` on a quiet machine: PATIENCE times as long."""
    deadline = time.monotonic() + PATIENCE * seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {PATIENCE * seconds} s: {what}")
        time.sleep(0.02)

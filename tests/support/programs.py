"""Programs of the command line as a user runs them: a process each."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

from tests.support.waiting import GUARD_SECONDS

DID_NOT_START, STARTS = "Ray did not start", 5
ENVIRONMENT = {**os.environ, "RAY_ADDRESS": "local", "COLUMNS": "100"}


def run(command: Sequence[str], *options: object, address: str = "local") -> subprocess.CompletedProcess[str]:
    """Runs a program to its end, with a Ray of its own, or with the cluster at `address`. Again where Ray gave up
    starting: it waits half a minute, which on a busy machine may be too short, and is not to be set."""
    for _ in range(STARTS):
        done = subprocess.run(
            [*command, *map(str, options)],
            capture_output=True,
            text=True,
            timeout=GUARD_SECONDS,
            env={**ENVIRONMENT, "RAY_ADDRESS": address},
            check=False,
        )
        if DID_NOT_START not in done.stderr:
            break
    return done

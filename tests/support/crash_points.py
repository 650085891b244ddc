"""Crash points: the calls of a program that change files below one directory, counted in all processes that have the
library of `crash_points.c` loaded before others. At a chosen one a process dies or stops, or the call fails.

In three steps: `points = CrashPoints(folder)`; a program is started with `points.environment`; `points.arm(root, at=3,
how=Crash.BEFORE)` begins to count below `root`, until `points.disarm()`.
"""

from __future__ import annotations

import enum
import mmap
import os
import struct
import subprocess
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).with_name("crash_points.c")
# struct control and struct call
HEAD, PATH_BYTES, CALL, MOST_CALLS = struct.Struct("=qqiiii"), 488, struct.Struct("=i20s488s"), 4096
BYTES = HEAD.size + PATH_BYTES + MOST_CALLS * CALL.size


class Crash(enum.IntEnum):
    """What happens at the chosen call."""

    NOTHING = 0
    DIE_BEFORE = 1
    DIE_BEHIND = 2
    DIE_HALFWAY = 3  # a write writes half of its bytes first
    STOP_BEFORE = 4
    FAIL = 5  # with `error`
    FILL = 6  # a write writes half of its bytes; what needs space from then on fails with `error`
    WRITE_LITTLE = 7  # half of the bytes, as the system may do


class Call(NamedTuple):
    pid: int
    name: str
    path: str


class CrashPoints:
    """Counts calls, from 1. `folder` gets the library and the file of the counter."""

    def __init__(self, folder: Path) -> None:
        library = folder / "crash_points.so"
        subprocess.run(
            [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, SOURCE, "-ldl"],
            check=True,
        )
        control = folder / "crash_points.control"
        control.write_bytes(bytes(BYTES))
        with control.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), BYTES)
        # Ray gives this variable to its workers only when told to.
        preload = {"LD_PRELOAD": str(library), "RAY_LD_PRELOAD_ON_WORKERS": "1"}
        self.environment = {"FASTPS_TEST_CRASH_POINTS": str(control), **preload}

    def arm(self, root: Path, at: int = 0, how: Crash = Crash.NOTHING, error: int = 0, victim: int = 0) -> None:
        """Counts from 1 again. `victim` dies or stops instead of the process that makes the call."""
        self.disarm()
        self._memory[HEAD.size : HEAD.size + PATH_BYTES] = bytes(root).ljust(PATH_BYTES, b"\0")
        HEAD.pack_into(self._memory, 0, 0, at, how, error, victim, 1)

    def disarm(self) -> None:
        HEAD.pack_into(self._memory, 0, *HEAD.unpack_from(self._memory)[:5], 0)

    @property
    def count(self) -> int:
        return HEAD.unpack_from(self._memory)[0]

    @property
    def calls(self) -> list[Call]:
        """All of them, in their order."""
        assert self.count <= MOST_CALLS
        found = []
        for number in range(self.count):
            pid, *texts = CALL.unpack_from(self._memory, HEAD.size + PATH_BYTES + number * CALL.size)
            found.append(Call(pid, *(text.partition(b"\0")[0].decode() for text in texts)))
        return found

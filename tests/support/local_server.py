"""A server without Ray: arenas of this process, in one group. What the tests of the core work on.

It also knows how to take a lock of an arena from outside, or a turn, as a process that is stopped in the middle of an
operation would hold it.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from dataclasses import dataclass

import numpy as np

from fastps._core import Arena, Group
from fastps.kernels.cache import image_of
from fastps.kernels.loader import addresses_of
from fastps.rules import Add
from fastps.spec.initial import structure_of
from fastps.spec.partition import partition

# csrc/layout.h: where the words of fps_layout lie, and how large a stripe's record is.
FORMAT_VERSION_AT, TOTAL_BYTES_AT, ARENA_ID_AT, N_SESSIONS_AT, STRIPE_BYTES_AT = 8, 16, 24, 48, 56
STRIPES_OFFSET_AT, PARAMS_OFFSET_AT, PARAMS_BYTES_AT, CHECKSUM_AT = 80, 96, 104, 240
STRIPE_RECORD_BYTES = 128
READY_AT = 256 + 40
SESSIONS_OFFSET_AT, SEAT_BYTES, SEAT_STATE_AT, TURN_AT = 72, 256, 40, 320 + 20


@dataclass
class LocalServer:
    """`num_shards` arenas of this process that hold `params` (one array), and a group over them."""

    arenas: list[Arena]
    ids: list[bytes]
    group: Group
    spans: list

    @classmethod
    def create(cls, params, *, rule=None, num_shards=1, max_sessions=8, isolated=True, stripe_bytes=0, timeout=600.0):
        rule = rule or Add()
        structure, (array,) = structure_of(params)
        leaf = structure.leaves[0]
        arenas, ids, spans = [], [], []
        for plan in partition(structure, num_shards):
            ids.append(os.urandom(16))
            label = f"shard {plan.index} of {num_shards}"
            arenas.append(
                Arena.create(
                    ids[-1],
                    label,
                    plan.index,
                    num_shards,
                    plan.params_bytes,
                    max_sessions,
                    isolated,
                    stripe_bytes,
                    len(rule.slots),
                )
            )
            arenas[-1].configure(0, dict(enumerate(rule.values)), 1.0)
            spans.append(
                [
                    (r.position, r.count * leaf.item_bytes, 0, r.start * leaf.item_bytes, 0, leaf.item_bytes, 0)
                    for r in plan.runs
                ]
            )
        rules = [(*addresses_of(image_of(rule, leaf.dtype)), len(rule.slots), 0)]
        group = Group(arenas, spans, rules, 1, timeout, [(np.dtype(leaf.dtype), leaf.shape)])
        group.run([array], None, streams=[[0]], initial=True)
        for part in range(num_shards):
            group.begin(part, [list(rule.slots.values())])
        return cls(arenas, ids, group, spans)

    def push_from(self, grad, timeout=None):
        """True; or False, having done nothing, when `grad` does not fit."""
        return self.group.run_if_fits(True, grad, False, None, timeout)

    def pull_into(self, out, timeout=None):
        return self.group.run_if_fits(False, None, True, out, timeout)

    def push_pull(self, grad, out, timeout=None):
        return self.group.run_if_fits(True, grad, True, out, timeout)


def word(fd: int, at: int, kind: str = "Q") -> int:
    """One number of an arena's header."""
    return struct.unpack(kind, os.pread(fd, struct.calcsize(kind), at))[0]


def give_turn_to(pid: int, fd: int) -> None:
    """Makes it the turn of a process that does nothing with it, as if it were stopped: it must have a session."""
    for seat in range(word(fd, N_SESSIONS_AT, "I")):
        at = word(fd, SESSIONS_OFFSET_AT) + seat * SEAT_BYTES + SEAT_STATE_AT
        if (word(fd, at, "I"), word(fd, at + 4, "I")) == (1, pid):
            os.pwrite(fd, struct.pack("I", seat + 1), TURN_AT)
            return
    raise AssertionError(f"process {pid} has no session")


HOLDER = """
import ctypes, mmap, os, sys
path, at, total = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
fd = os.open(path, os.O_RDWR)
memory = mmap.mmap(fd, total)
lock = ctypes.c_char.from_buffer(memory, at)
libc = ctypes.CDLL(None)
if libc.pthread_mutex_lock(ctypes.byref(lock)) != 0:
    sys.exit("lock")
print("locked", flush=True)
sys.stdin.readline()
if libc.pthread_mutex_unlock(ctypes.byref(lock)) != 0:
    sys.exit("unlock")
print("unlocked", flush=True)
"""


class Holder:
    """Another process that holds the lock of one stripe of an arena until told to let go."""

    def __init__(self, pid: int, fd: int, stripe: int = 0) -> None:
        path = f"/proc/{pid}/fd/{fd}"
        peek = os.open(path, os.O_RDONLY)
        at = word(peek, STRIPES_OFFSET_AT) + stripe * STRIPE_RECORD_BYTES
        total = word(peek, TOTAL_BYTES_AT)
        os.close(peek)
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-c", HOLDER, path, str(at), str(total)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.pid = self._process.pid
        assert self._process.stdout.readline() == "locked\n"

    def let_go(self) -> None:
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "unlocked\n"

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Holder:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()

"""Arrays at addresses of which a run's speed does not depend by chance.

numpy puts small arrays 16 bytes beyond wherever its heap is: half of all vector loads then touch two cache lines, or
none does, and an addition of 80 KB takes 2.5 us or 2.0 from run to run. Here every array begins a cache line, and those
that are worked on together begin 512 B or more apart modulo a page, so that no load waits for a store 4 KiB before it.
Large ones ask for huge pages, as numpy does.
"""

from __future__ import annotations

import mmap

import numpy as np

PLACES = {"out": 64, "grad": 64 + 1024, "params": 64 + 2048, "other": 64 + 3072, "m": 64 + 512, "v": 64 + 1536}
SLOT_PLACES = ("m", "v")
HUGE, LARGE = 2 << 20, 4 << 20


def array(elements: int, place: str, value: float = 0.0) -> np.ndarray:
    """float32[elements] of one value, at one of PLACES modulo a page; of a huge page from 4 MiB on."""
    nbytes = 4 * elements
    page = HUGE if nbytes >= LARGE else mmap.PAGESIZE
    memory = mmap.mmap(-1, nbytes + 2 * page, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if nbytes >= LARGE:
        memory.madvise(mmap.MADV_HUGEPAGE)
    whole = np.frombuffer(memory, np.uint8)
    start = -whole.ctypes.data % page + PLACES[place]
    found = whole[start : start + nbytes].view(np.float32)
    found[:] = value
    return found

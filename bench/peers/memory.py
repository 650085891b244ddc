"""Arrays with a fixed alignment, so that the speed of a run does not depend on chance.

numpy's small arrays start 16 bytes past an allocation: in some runs half of all vector loads touch two cache lines, in
others none does, and an addition of 80 KB takes 2.5 us or 2.0. Here every array starts on a cache-line boundary, and
arrays that are used together start at page offsets 512 B or more apart, so that no load waits for a store 4 KiB before
it. Large ones ask for huge pages, as numpy does.
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

# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=False
"""The border between Python and csrc: check the arguments, release the GIL, one C call, check the answer."""

from fastps._core.fps cimport *

include "status.pxi"
include "arena.pxi"
include "group.pxi"


def life_generation():
    """How many forks lie between the first process of this family and this one."""
    return fps_life_generation()


BLOCK_BYTES = FPS_BLOCK_BYTES

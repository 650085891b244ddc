# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=False
"""The border between Python and csrc: check the arguments, release the GIL, one C call, check the return code."""

import math

cimport cython
cimport numpy as np
from libc.errno cimport errno as c_errno
from libc.math cimport fmax
from libc.string cimport memcpy, memset

from numpy import array as np_array
from numpy import array_equal as np_array_equal
from numpy import ascontiguousarray as np_contiguous
from numpy import empty as np_empty
from numpy import frombuffer as np_frombuffer
from numpy import uint8 as np_uint8
from numpy import where as np_where

from fastps._core.fps cimport *

np.import_array()

include "status.pxi"
include "outcome.pxi"
include "arena.pxi"
include "values.pxi"
include "expected.pxi"
include "lane.pxi"
include "selection.pxi"
include "obstacle.pxi"
include "group.pxi"
include "queue.pxi"
include "keys.pxi"
include "table_lane.pxi"
include "table.pxi"
include "table_rows.pxi"
include "rounds.pxi"
include "member.pxi"


def life_generation():
    """The number of forks between the first process and this one."""
    return fps_life_generation()


def copy(object to, object source):
    """Copies between two flat byte arrays of the same length; bypasses the caches if they are large."""
    cdef size_t nbytes = np.PyArray_NBYTES(to)
    cdef void *target = np.PyArray_DATA(to)
    cdef const void *origin = np.PyArray_DATA(source)
    if nbytes != <size_t>np.PyArray_NBYTES(source):
        raise ValueError(f"copy: {np.PyArray_NBYTES(source)} bytes into {nbytes}")
    with nogil:
        if nbytes < FPS_STREAM_BYTES:
            fps_copy(target, origin, nbytes)
        else:
            fps_copy_stream(target, origin, nbytes)
            fps_copy_drain()


BLOCK_BYTES = FPS_BLOCK_BYTES

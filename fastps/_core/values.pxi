# The values of arrays: the type of their elements, their norm, whether they are finite, and their checksum.

import sys

cdef extern from "numpy/arrayobject.h":
    int NPY_HALF, NPY_USERDEF

cdef int bfloat16_number = -1  # numpy's number of ml_dtypes.bfloat16, once it has been seen


cdef inline uint8_t half_of(object array):
    """FPS_FLOAT16 or FPS_BFLOAT16; 0 for other types."""
    global bfloat16_number
    cdef int number = np.PyArray_TYPE(array)
    if number == np.NPY_FLOAT or number == np.NPY_DOUBLE:
        return 0
    if number == NPY_HALF:
        return FPS_FLOAT16
    if number < NPY_USERDEF:
        return 0
    if number != bfloat16_number:
        known = sys.modules.get("ml_dtypes")  # who has made the array has imported it
        if known is None or array.dtype != known.bfloat16:
            return 0
        bfloat16_number = number
    return FPS_BFLOAT16


cdef uint32_t type_of(np.ndarray array):
    """The type of the elements as csrc/half.h has it."""
    return half_of(array) or <uint32_t>np.PyArray_ITEMSIZE(array)


cdef inline bint is_matrix(object array, np.npy_intp rows, np.npy_intp columns, int number, bint writable):
    """Whether an object is an array of this shape, of the type with numpy's number, or for floats of half precision,
    whose memory can be used as it is."""
    if not np.PyArray_CheckExact(array) or np.PyArray_NDIM(array) != 2:
        return False
    if np.PyArray_TYPE(array) != number and not (number == np.NPY_FLOAT and half_of(array)):
        return False
    if np.PyArray_DIMS(array)[0] != rows or np.PyArray_DIMS(array)[1] != columns:
        return False
    return np.PyArray_ISCARRAY(array) if writable else np.PyArray_ISCARRAY_RO(array)


def all_finite(list arrays):
    """Whether no element of C-contiguous arrays of float32, float64 or half precision is NaN or infinite. Cost: one
    pass."""
    cdef np.ndarray array
    cdef bint finite = True
    cdef const void *data
    cdef size_t n
    cdef uint32_t type
    for array in arrays:
        data, n, type = np.PyArray_DATA(array), np.PyArray_SIZE(array), type_of(array)
        with nogil:
            finite = finite and fps_all_finite(data, n, type)
    return finite


def global_norm(list arrays):
    """The square root of the sum of all elements' squares, in float64. NaN or infinite when an element is. Cost: one
    pass."""
    cdef np.ndarray array
    cdef double total = 0
    cdef const void *data
    cdef size_t n
    cdef uint32_t type
    for array in arrays:
        data, n, type = np.PyArray_DATA(array), np.PyArray_SIZE(array), type_of(array)
        with nogil:
            total += fps_sum_squares(data, n, type)
    return math.sqrt(total)


def crc32c(const uint8_t[::1] data not None, uint32_t before=0):
    """The CRC32C of bytes that follow those of which `before` is the checksum."""
    cdef uint32_t found
    cdef size_t n = <size_t>data.shape[0]
    if n == 0:
        return before
    with nogil:
        found = fps_crc32c(before, &data[0], n)
    return found

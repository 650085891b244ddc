# What the fast path supports: a caller's arrays that an operation can use as they are.

from libc.stdlib cimport calloc, free, qsort

from collections import OrderedDict


cdef inline bint is_dict(object value):
    """Whether it is a mapping that nobody has given other methods."""
    return type(value) is dict or type(value) is OrderedDict


# Whether a caller's arrays can be used as they are.
cdef enum:
    UNFIT, PLAIN, HALF


cdef struct Kind:
    int type  # numpy's number
    int n_dims
    np.npy_intp *dims
    size_t bytes


cdef struct Range:
    size_t start, end


cdef int by_start(const void *one, const void *other) noexcept nogil:
    cdef size_t a = (<const Range *>one).start, b = (<const Range *>other).start
    return (a > b) - (a < b)


@cython.final
cdef class Expected:
    """The arrays that the fast path expects.

    Parameters
    ----------
    kinds : per buffer its (dtype, shape)
    names : of the buffers in a dict; None for a bare array
    """
    cdef uint32_t n_buffers
    cdef list names
    cdef dict numbers
    cdef Kind *kinds
    cdef np.npy_intp *dims

    def __cinit__(self, list kinds, list names):
        cdef Py_ssize_t at = 0
        self.names, self.n_buffers = names, <uint32_t>len(kinds)
        self.numbers = {name: number for number, name in enumerate(names or ())}
        self.kinds = <Kind *>calloc(max(1, len(kinds)), sizeof(Kind))
        self.dims = <np.npy_intp *>calloc(max(1, sum([len(shape) for _, shape in kinds])), sizeof(np.npy_intp))
        if not (self.kinds and self.dims):
            raise MemoryError("a group")
        for i, (dtype, shape) in enumerate(kinds):
            self.kinds[i].type, self.kinds[i].n_dims, self.kinds[i].dims = dtype.num, len(shape), self.dims + at
            self.kinds[i].bytes = dtype.itemsize * math.prod(shape)
            for size in shape:
                self.dims[at] = size
                at += 1

    def __dealloc__(self):
        free(self.kinds)
        free(self.dims)

    cdef inline int fit(self, object array, uint32_t i, void **pointers, uint8_t *halves, bint writable):
        """Puts the address of buffer i's array into `pointers`, and in `halves` whether it is of half precision."""
        cdef const Kind *kind = &self.kinds[i]
        cdef np.npy_intp *dims
        cdef int found = PLAIN
        cdef int k
        if not np.PyArray_CheckExact(array):
            return UNFIT
        if np.PyArray_TYPE(array) != kind.type:
            if kind.type != np.NPY_FLOAT or not half_of(array):
                return UNFIT
            halves[i], found = half_of(array), HALF
        if not (np.PyArray_ISCARRAY(array) if writable else np.PyArray_ISCARRAY_RO(array)):
            return UNFIT
        if np.PyArray_NDIM(array) != kind.n_dims:
            return UNFIT
        dims = np.PyArray_DIMS(array)
        for k in range(kind.n_dims):
            if dims[k] != kind.dims[k]:
                return UNFIT
        pointers[i] = np.PyArray_DATA(array)
        return found

    cdef int bind(self, object value, void **pointers, uint8_t *halves, bint writable):
        """Puts the address of one array per buffer into `pointers`, and in `halves` which are of half precision.
        Returns PLAIN when none is, HALF when some are; UNFIT if the fast path does not support an array."""
        cdef int found = PLAIN, one
        cdef object array = value
        cdef uint32_t i
        if self.names is not None and (not is_dict(value) or <uint32_t>len(<dict>value) != self.n_buffers):
            return UNFIT
        for i in range(self.n_buffers):
            if self.names is not None:
                array = (<dict>value).get(self.names[i])
            one = self.fit(array, i, pointers, halves, writable)
            if one == UNFIT:
                return UNFIT
            if one == HALF and found == PLAIN:  # those before it are not
                memset(halves, 0, i)
                found = HALF
            elif one == PLAIN and found == HALF:
                halves[i] = 0
        return found

    cdef tuple bind_some(self, object value, void **pointers, uint8_t *halves, bint writable, int *found):
        """The same for those arrays of a dict that are not None. Returns their numbers, sorted; None where `bind`
        returns UNFIT, otherwise PLAIN or HALF is in `found`."""
        cdef int one
        cdef list numbers = []
        found[0] = PLAIN
        if self.names is None or not is_dict(value):
            return None
        for name, array in (<dict>value).items():
            if array is None:
                continue
            number = self.numbers.get(name)
            if number is None:
                return None
            halves[<uint32_t>number] = 0
            one = self.fit(array, number, pointers, halves, writable)
            if one == UNFIT:
                return None
            found[0] = max(found[0], one)
            numbers.append(number)
        numbers.sort()
        return tuple(numbers)

    cdef void add_range(self, Range *range, uint32_t i, void **pointers, const uint8_t *halves) noexcept:
        """The memory of a caller's buffer."""
        range.start = <size_t>pointers[i]
        range.end = range.start + self.kinds[i].bytes // (2 if halves != NULL and halves[i] else 1)

    cdef bint any_overlap(self, Range *ranges, const fps_call *call, bint pushes, tuple leaves):
        """Whether `outs` overlap each other, or the gradients: all, or those of some arrays. `ranges`: room for two per
        buffer."""
        cdef uint32_t i, n = 0
        if self.n_buffers == 1 and not pushes:
            return False
        if leaves is None:
            for i in range(self.n_buffers):
                self.add_range(&ranges[n], i, <void **>call.outs, call.half_outs)
                n += 1
                if pushes:
                    self.add_range(&ranges[n], i, <void **>call.grads, call.half_grads)
                    n += 1
        else:
            for i in leaves:
                self.add_range(&ranges[n], i, <void **>call.outs, call.half_outs)
                n += 1
                if pushes:
                    self.add_range(&ranges[n], i, <void **>call.grads, call.half_grads)
                    n += 1
        qsort(ranges, n, sizeof(Range), by_start)
        for i in range(1, n):
            if ranges[i].start < ranges[i - 1].end:
                return True
        return False

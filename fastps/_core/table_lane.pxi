# Lanes of tables.

from libc.stdlib cimport realloc


cdef class TableLane:
    """What one operation on a table needs besides a lane: its keys by shard, and scratch."""
    cdef Lane lane
    cdef TableLane next  # in the pool of idle ones
    cdef void *owner  # its table, without a reference: a cycle would keep arenas mapped
    cdef fps_sparse_part *parts
    cdef fps_batch *batches
    cdef uint64_t *given  # a copy: the core reads keys more than once, and without the GIL
    cdef uint64_t *by_shard
    cdef uint32_t *places
    cdef uint32_t *starts
    cdef uint32_t room, n_parts
    cdef uint32_t generation
    cdef bint resumable  # it holds a push that can be resumed, in this process, and no session
    cdef uint32_t n  # keys of the last operation

    def __cinit__(self, TableOperations owner):
        cdef uint32_t n_parts = owner.group.n_parts, n_shards = owner.num_shards
        self.owner, self.n_parts, self.generation = <void *>owner, n_parts, fps_life_generation()
        self.parts = <fps_sparse_part *>calloc(n_parts, sizeof(fps_sparse_part))
        self.batches = <fps_batch *>calloc(n_parts, sizeof(fps_batch))
        self.starts = <uint32_t *>calloc(n_shards + 1, sizeof(uint32_t))
        if not (self.parts and self.batches and self.starts):
            raise MemoryError("a lane")

    def __dealloc__(self):
        cdef uint32_t i
        if self.batches:
            for i in range(self.n_parts):
                fps_batch_free(&self.batches[i])
        free(self.parts)
        free(self.batches)
        free(self.given)
        free(self.places)
        free(self.starts)

    cdef void reserve(self, uint32_t n) except *:
        if n <= self.room:
            return
        given = <uint64_t *>realloc(self.given, 2 * <size_t>n * sizeof(uint64_t))
        if given:
            self.given, self.by_shard = given, given + n
        places = <uint32_t *>realloc(self.places, <size_t>n * sizeof(uint32_t))
        if places:
            self.places = places
        if not (given and places):
            raise MemoryError(f"{n} keys")
        self.room = n

    def keys(self):
        """Of the last operation: uint64[n], a copy."""
        cdef np.npy_intp n = self.n
        cdef object copy = np.PyArray_EMPTY(1, &n, np.NPY_UINT64, 0)
        memcpy(np.PyArray_DATA(copy), self.given, n * sizeof(uint64_t))
        return copy

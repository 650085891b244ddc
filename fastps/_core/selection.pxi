# Some of the arrays of a group, for partial operations.

# A group keeps this many selections, with this many spans together. Layer by layer, a push names each layer alone.
cdef Py_ssize_t MOST_SELECTIONS = 4096
cdef uint64_t MOST_SPANS = 1 << 20


@cython.final
cdef class Selection:
    """The spans of some arrays on the shards of a group.

    Parameters
    ----------
    group : that they are of
    leaves : the numbers of the arrays, sorted
    place : None, or says where a span is in the buffers: (arena, number of the span) -> (buffer, offset in that)

    Attributes
    ----------
    buffers : those in which the arrays are, sorted
    size : spans on all shards
    """
    cdef uint32_t n_parts
    cdef uint64_t size
    cdef fps_span **spans
    cdef uint32_t *n_spans
    cdef list buffers

    def __cinit__(self, Group group, tuple leaves, object place):
        cdef uint32_t i, k
        cdef fps_span *span
        wanted, buffers = frozenset(leaves), set()
        self.n_parts = group.n_parts
        self.spans = <fps_span **>calloc(self.n_parts, sizeof(fps_span *))
        self.n_spans = <uint32_t *>calloc(self.n_parts, sizeof(uint32_t))
        if not (self.spans and self.n_spans):
            raise MemoryError("a selection")
        for i in range(self.n_parts):
            if group.arenas[i].layout.n_leaves == 0:
                raise ValueError(f"{group.label(i)}: it counts no updates of single arrays")
            numbers = [k for k in range(group.n_spans[i]) if group.spans[i][k].leaf in wanted]
            self.spans[i] = <fps_span *>calloc(max(1, len(numbers)), sizeof(fps_span))
            if not self.spans[i]:
                raise MemoryError("a selection")
            for number in numbers:
                span = &self.spans[i][self.n_spans[i]]
                span[0] = group.spans[i][<uint32_t>number]
                if place is not None:
                    span.buffer, span.buffer_offset = place(i, number)
                if span.buffer >= group.n_buffers:
                    raise ValueError(f"{group.label(i)}: array {span.leaf} is in buffer {span.buffer}")
                buffers.add(span.buffer)
                self.n_spans[i] += 1
            self.size += self.n_spans[i]
        self.buffers = sorted(buffers)

    def __dealloc__(self):
        cdef uint32_t i
        if self.spans:
            for i in range(self.n_parts):
                free(self.spans[i])
        free(self.spans)
        free(self.n_spans)

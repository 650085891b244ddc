# Lanes: the resources of one operation on a group; and the rest of a push that timed out.


@cython.final
@cython.no_gc_clear  # __dealloc__ closes the sessions: the arenas must still be mapped then
cdef class Lane:
    """The memory of one operation at a time: a session in every arena, and room for what a call points to. It belongs
    to the operation that has taken it, which does not use it after returning it."""
    cdef Group group
    cdef Lane next  # in the pool of idle ones
    cdef tuple mapped
    cdef fps_session *sessions
    cdef fps_part *parts
    cdef const void **grads
    cdef const void **pulled
    cdef void **outs
    cdef uint8_t *half_grads
    cdef uint8_t *half_pulled
    cdef uint8_t *half_outs
    cdef double *uniforms
    cdef uint32_t *streams
    cdef Range *ranges
    cdef uint32_t generation
    cdef uint32_t n_open

    def __cinit__(self, Group group, double limit):
        cdef uint32_t i
        cdef fps_status status
        cdef fps_session *session
        cdef Signal signal
        cdef fps_wait wait = wait_for(limit, &signal)
        self.group, self.mapped, self.generation = group, group.mapped, fps_life_generation()
        self.sessions = <fps_session *>calloc(group.n_parts, sizeof(fps_session))
        self.parts = <fps_part *>calloc(group.n_parts, sizeof(fps_part))
        self.grads = <const void **>calloc(group.n_pointers, sizeof(void *))
        self.pulled = <const void **>calloc(group.n_buffers, sizeof(void *))
        self.outs = <void **>calloc(group.n_pointers, sizeof(void *))
        self.half_grads = <uint8_t *>calloc(3 * group.n_pointers, 1)
        self.half_pulled = self.half_grads + group.n_pointers
        self.half_outs = self.half_pulled + group.n_pointers
        self.uniforms = <double *>calloc(group.n_uniforms, sizeof(double))
        self.streams = <uint32_t *>calloc(<size_t>group.n_streams * group.n_rules, sizeof(uint32_t))
        self.ranges = <Range *>calloc(2 * <size_t>group.n_buffers, sizeof(Range))
        if not (self.sessions and self.parts and self.grads and self.pulled and self.outs and self.half_grads
                and self.uniforms and self.streams and self.ranges):
            raise MemoryError("a lane")
        for i in range(group.n_parts):
            session = &self.sessions[i]
            with nogil:
                status = fps_session_open(group.arenas[i], &wait, session)
            if status == FPS_INTERRUPTED:
                raise error_of(&signal)
            if status == FPS_TIMEOUT:
                raise errors.WaitTimeoutError(
                    f"{group.label(i)}: waited {limit:.3g} s for the session of a process that died, which cannot be "
                    f"taken over while {process_of(fps_session_blocker(group.arenas[i]))} holds what it has left")
            if status != FPS_OK:
                raise exception_of(status, group.label(i), c_errno)
            self.n_open = i + 1
            self.parts[i].session = session
            self.parts[i].spans, self.parts[i].n_spans = group.spans[i], group.n_spans[i]
            self.parts[i].uniforms = self.uniforms + <size_t>i * group.n_rules * FPS_UNIFORMS

    def __dealloc__(self):
        cdef uint32_t i
        if self.generation == fps_life_generation():
            for i in range(self.n_open):
                with nogil:
                    fps_session_close(&self.sessions[i])
        free(self.sessions)
        free(self.parts)
        free(self.grads)
        free(self.pulled)
        free(self.outs)
        free(self.half_grads)
        free(self.uniforms)
        free(self.streams)
        free(self.ranges)

    cdef void reset(self, Selection selection) noexcept:
        """Of an operation on all arrays, or on those of the selection."""
        cdef uint32_t i
        cdef fps_part *part
        for i in range(self.group.n_parts):
            part = &self.parts[i]
            part.done = part.applied = part.prepared = False
            part.position = part.seq = part.version = 0
            part.steps = NULL
            if selection is not None:
                part.some, part.n_some = selection.spans[i], selection.n_spans[i]

    cdef void go_on(self, Rest rest, Selection selection) noexcept:
        """As `reset`, but from where a push has stopped. This lane's sessions assign it new sequence numbers, and what
        was read before is read again: it is not in this operation's `outs`."""
        cdef uint32_t i
        cdef fps_part *part
        self.reset(selection)
        for i in range(self.group.n_parts):
            part = &self.parts[i]
            part.applied, part.prepared = rest.parts[i].applied, rest.parts[i].prepared
            part.position, part.version = rest.parts[i].position, rest.parts[i].version
            part.varies, part.wholes = rest.parts[i].varies, rest.parts[i].wholes
        memcpy(self.uniforms, rest.uniforms, self.group.n_uniforms * sizeof(double))


cdef class Rest:
    """How far a push that timed out has come. It holds no session, and can be resumed once, in this process."""
    cdef Group group
    cdef fps_part *parts
    cdef double *uniforms
    cdef uint32_t generation
    cdef bint used

    def __cinit__(self, Lane lane):
        cdef Group group = lane.group
        self.group, self.generation = group, lane.generation
        self.parts = <fps_part *>calloc(group.n_parts, sizeof(fps_part))
        self.uniforms = <double *>calloc(group.n_uniforms, sizeof(double))
        if not (self.parts and self.uniforms):
            raise MemoryError("what is left of a push")
        memcpy(self.parts, lane.parts, group.n_parts * sizeof(fps_part))
        memcpy(self.uniforms, lane.uniforms, group.n_uniforms * sizeof(double))

    def __dealloc__(self):
        free(self.parts)
        free(self.uniforms)

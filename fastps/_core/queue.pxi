# Operations that a thread runs in their order, as long as they can without the GIL.

cdef size_t ALIGNED = 64
cdef int MOST_STAGING = 2  # pieces of memory that a group keeps


cdef struct Queued:
    fps_job job  # the first field: a job is one of these
    void *owner  # the object that this is in
    fps_call call
    double limit
    const fps_span **some  # of a partial operation, per part
    const uint32_t *n_some
    uint32_t at


cdef fps_status run_queued(fps_job *job) noexcept nogil:
    cdef Queued *q = <Queued *>job
    cdef fps_part *part
    cdef uint32_t i
    for i in range(q.call.n_parts):
        part = &q.call.parts[i]
        part.done = part.applied = part.prepared = False
        part.position = part.seq = part.version = 0
        part.steps = NULL
        if q.some != NULL:
            part.some, part.n_some = q.some[i], q.n_some[i]
    memset(&q.call.wait, 0, sizeof(fps_wait))  # no signal handler runs on this thread
    q.call.wait.deadline_ns = deadline_after(q.limit)
    return fps_dense_run(&q.call, &q.at)


cdef object owner_of(fps_job *job):
    return <object>(<Queued *>job).owner


cdef class Job:
    """What a queue runs in its turn. This one is done by who serves the queue.

    Attributes
    ----------
    future : who waits for it
    call : what is done, without arguments; None if it shall not be done
    """
    cdef Queued queued
    cdef public object future, call

    def __cinit__(self):
        self.queued.owner = <void *>self

    def cancel(self):
        """Whether it had not begun, so that it never will."""
        return fps_job_cancel(&self.queued.job)

    @property
    def begun(self):
        """Whether the queue's thread has begun it in C."""
        return fps_load32_relaxed(&self.queued.job.state) == <uint32_t>FPS_JOB_BEGUN

    @property
    def cancelled(self):
        return fps_load32_relaxed(&self.queued.job.state) == <uint32_t>FPS_JOB_CANCELLED

    @property
    def nbytes(self):
        """Of the copies that it keeps."""
        return 0


@cython.final
cdef class GroupJob(Job):
    """A pull, push or push_pull of plain arrays, which the queue's thread runs without the GIL."""
    cdef Group group
    cdef Lane lane
    cdef Selection selection
    cdef object grads, outs  # they are kept alive
    cdef void **pointers  # those of grads, then of outs
    cdef uint8_t *halves  # likewise
    cdef object staged

    def __dealloc__(self):
        free(self.pointers)
        free(self.halves)

    @property
    def nbytes(self):
        return 0 if self.staged is None else self.staged.nbytes

    def finish(self, Outcome outcome=None):
        """When it has run, once: lets go of everything, and raises its error, if there is one."""
        cdef Group group = self.group
        cdef Lane lane = self.lane
        cdef fps_status status = self.queued.job.status
        if self.staged is not None and len(group.staging) < MOST_STAGING:
            group.staging.append(self.staged)
        self.staged = self.grads = self.outs = self.group = self.lane = self.selection = None
        if status != FPS_OK:
            group.fail(lane, &self.queued.call, status, self.queued.at, self.queued.limit, None, NULL, outcome, True)

    cdef void copy_grads(self, tuple leaves) except *:
        """Copies the gradients to memory of its own."""
        cdef Group group = self.group
        cdef fps_call *call = &self.queued.call
        cdef uint32_t i
        cdef size_t bytes, total = 0
        cdef uint8_t *to
        cdef void **pointers = self.pointers
        cdef list which = list(range(group.n_buffers)) if leaves is None else list(leaves)
        cdef Expected expected = group.expected
        for i in which:
            total += (expected.kinds[i].bytes + ALIGNED - 1) // ALIGNED * ALIGNED
        found = None
        while group.staging and found is None:
            found = group.staging.pop()
            if np.PyArray_SIZE(found) < <np.npy_intp>(total + ALIGNED):
                found = None
        if found is None:
            found = np_empty(total + ALIGNED, np_uint8)
        self.staged = found
        to = <uint8_t *>np.PyArray_DATA(found)
        to += (ALIGNED - <size_t>to % ALIGNED) % ALIGNED
        for i in which:
            bytes = expected.kinds[i].bytes // (2 if call.half_grads != NULL and call.half_grads[i] else 1)
            if total < KEEP_GIL_BYTES:
                fps_copy(to, pointers[i], bytes)
            else:
                with nogil:
                    fps_copy(to, pointers[i], bytes)
            pointers[i] = to
            to += (bytes + ALIGNED - 1) // ALIGNED * ALIGNED
        self.grads = None


def job_if_fits(Group group, bint pushes, object grads, bint pulls, object outs, object timeout=None,
                bint partial=False, tuple wanted=None, bint copies=True):
    """A job of what `Group.run_if_fits` does or, if it is partial, `Group.run_some_if_fits`; None if the arrays are not
    as these expect them. `copies`: gradients may change as soon as this has returned."""
    cdef double limit = group.timeout if timeout is None else timeout
    cdef int of_grads = PLAIN, of_outs = PLAIN
    cdef uint32_t n = group.n_buffers
    cdef tuple leaves = None, of
    cdef GroupJob job
    cdef fps_call *call
    if group.expected is None or group.rounds or not (pushes or pulls):
        return None
    if group.queued is None or group.queued.generation != fps_life_generation():
        group.queued = group.take(&limit)
    job = GroupJob.__new__(GroupJob)
    job.group, job.lane = group, group.queued
    job.pointers = <void **>calloc(2 * n, sizeof(void *))
    job.halves = <uint8_t *>calloc(2 * n, 1)
    if not (job.pointers and job.halves):
        raise MemoryError("an operation")
    call = &job.queued.call
    if not partial:
        if pushes:
            of_grads = group.expected.bind(grads, job.pointers, job.halves, False)
        if pulls and of_grads != UNFIT:
            of_outs = group.expected.bind(outs, job.pointers + n, job.halves + n, True)
        if of_grads == UNFIT or of_outs == UNFIT:
            return None
    else:
        if pushes:
            leaves = of = group.expected.bind_some(grads, job.pointers, job.halves, False, &of_grads)
        if pulls:
            leaves = group.expected.bind_some(outs, job.pointers + n, job.halves + n, True, &of_outs)
        if not leaves or pushes and of != leaves or wanted is not None and leaves != wanted:
            return None
        job.selection = group.select(leaves, None)
        job.queued.some, job.queued.n_some = <const fps_span **>job.selection.spans, job.selection.n_spans
    group.begin_call(job.lane, FPS_PULL if not pushes else FPS_PUSH_PULL if pulls else FPS_PUSH, call)
    call.partial, call.grads, call.outs = partial, <const void **>job.pointers, job.pointers + n
    call.half_grads = job.halves if of_grads == HALF else NULL
    call.half_outs = job.halves + n if of_outs == HALF else NULL
    if pulls and group.expected.any_overlap(job.lane.ranges, call, pushes and not copies, leaves):
        return None
    job.queued.job.run, job.queued.limit = run_queued, limit
    job.grads = list((<dict>grads).values()) if is_dict(grads) else grads
    job.outs = list((<dict>outs).values()) if is_dict(outs) else outs
    if pushes and copies:
        job.copy_grads(leaves)
    return job


@cython.final
cdef class Queue:
    """Jobs in the order in which they were put. Threads: any number put, one takes."""
    cdef fps_queue queue

    def __cinit__(self):
        fps_queue_open(&self.queue)

    def __dealloc__(self):
        cdef fps_job *job = self.queue.first
        while job != NULL:
            following = job.next
            Py_DECREF(owner_of(job))
            job = following
        fps_queue_close(&self.queue)

    def put(self, Job job not None):
        Py_INCREF(job)
        fps_queue_put(&self.queue, &job.queued.job)

    def take(self, double idle):
        """Waits this many seconds for a job, runs what it can, and returns a list of those whose turn has come."""
        cdef int64_t idle_ns = <int64_t>(1e9 * idle)
        cdef fps_job *job
        cdef list taken = []
        with nogil:
            job = fps_queue_serve(&self.queue, idle_ns)
        while job != NULL:
            one = owner_of(job)
            job = job.next
            taken.append(one)
            Py_DECREF(one)
        return taken

    @property
    def is_empty(self):
        return fps_queue_is_empty(&self.queue)

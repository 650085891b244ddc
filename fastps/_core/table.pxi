# One table over the shards that this process has mapped, operated on by one C call for all of them.

# Scratch for more keys than this is freed after the operation: it takes about 70 B per key.
cdef uint32_t KEEP_KEYS = 1 << 20


cdef class TableOperations:
    """A table on the shards that this process has mapped.

    Parameters
    ----------
    group : of the same arenas, whose sessions it uses
    number : of the table in each arena
    name : for messages
    num_shards : that of the server
    rule : (address of the kernel, of `prepare`, slots)
    limit : of the gradients' absolute values, for kernels that clip
    kind : of the keys: `run_if_fits` supports "int64" and "uint64"

    Threads: any number.
    """
    cdef Group group
    cdef fps_rule rule
    cdef uint32_t number, num_shards, n_slots, dim
    cdef int key_type, value_type
    cdef double limit
    cdef TableLane idle  # and those behind it, by `next`
    cdef str name
    cdef tuple shards

    def __init__(self, Group group, uint32_t number, str name, uint32_t num_shards, tuple rule, double limit=math.inf,
                 str kind=""):
        cdef Arena arena
        self.group, self.number, self.name, self.num_shards, self.limit = group, number, name, num_shards, limit
        kernel, prepare, self.n_slots = rule
        self.rule.kernel, self.rule.prepare = <fps_kernel><size_t>kernel, <fps_prepare><size_t>prepare
        self.rule.n_slots, self.rule.number = self.n_slots, 0
        self.shards = group.shards
        for arena in group.mapped:
            if number >= arena.arena.layout.n_tables or arena.arena.tables[number].layout.n_slots != self.n_slots:
                raise ValueError(f"{arena.label}: table {number} with {self.n_slots} slots")
        self.dim = self.table(0).layout.dim
        self.value_type = np.NPY_FLOAT if self.table(0).layout.item_bytes == 4 else np.NPY_DOUBLE
        self.key_type = {"int64": np.NPY_INT64, "uint64": np.NPY_UINT64}.get(kind, np.NPY_NOTYPE)

    cdef const fps_table *table(self, uint32_t part):
        return &self.group.arenas[part].tables[self.number]

    cdef TableLane take(self, double *limit):
        cdef Lane sessions = self.group.take(limit)
        cdef TableLane lane = TableLane(self) if self.idle is None else self.idle
        self.idle, lane.next = lane.next, None
        lane.lane, lane.generation = sessions, fps_life_generation()
        return lane

    cdef void give_back(self, TableLane lane) noexcept:
        """Returns the lane of an operation that has ended: the next one may take it at once, unless it holds a push."""
        cdef Lane sessions = lane.lane
        lane.lane = None
        self.group.give_back(sessions)
        if lane.n <= KEEP_KEYS and not lane.resumable:
            lane.next = self.idle
            self.idle = lane

    cdef TableLane go_on(self, TableLane lane, object keys, double *limit):
        """Gives a lane that holds a push its sessions again."""
        cdef uint32_t i
        if not lane.resumable or lane.owner != <void *>self:
            raise ValueError("resume: it was used already, or belongs to another table or process")
        if lane.generation != fps_life_generation():
            raise ValueError("resume: it belongs to the process that this one was forked from")
        lane.resumable = False  # before anything that might let another thread in
        try:
            if keys is None or not np_array_equal(keys, lane.keys()):
                raise ValueError("resume: it belongs to a push of other keys")
            lane.lane = self.group.take(limit)
        except BaseException:
            lane.resumable = True
            raise
        for i in range(self.group.n_parts):
            lane.parts[i].session, lane.parts[i].seq = &lane.lane.sessions[i], 0
            lane.parts[i].done = False  # what was read before is not in this operation's `outs`
        return lane

    cdef void spread(self, TableLane lane, object keys) except *:
        """Splits the keys by part; all of them belong to mapped shards."""
        cdef uint32_t n = <uint32_t>np.PyArray_SIZE(keys), i, shard, covered = 0
        cdef fps_sparse_part *part
        cdef const uint64_t *key = <const uint64_t *>np.PyArray_DATA(keys)
        if np.PyArray_SIZE(keys) >= 1 << 30:
            raise ValueError(f"table `{self.name}`: {np.PyArray_SIZE(keys)} keys at once")
        lane.n = n
        memset(lane.parts, 0, self.group.n_parts * sizeof(fps_sparse_part))
        lane.reserve(n)
        memcpy(lane.given, key, n * sizeof(uint64_t))
        if self.num_shards > 1:
            with nogil:
                fps_batch_split(lane.given, n, self.num_shards, lane.by_shard, lane.places, lane.starts)
        for i in range(self.group.n_parts):
            part = &lane.parts[i]
            part.session, part.batch = &lane.lane.sessions[i], &lane.batches[i]
            if self.num_shards == 1:
                part.keys, part.n = lane.given, n
            else:
                shard = self.group.arenas[i].layout.shard_index
                part.keys, part.places = lane.by_shard + lane.starts[shard], lane.places + lane.starts[shard]
                part.n = lane.starts[shard + 1] - lane.starts[shard]
            covered += part.n
        if covered != n:
            raise ValueError(f"table `{self.name}`: {n - covered} keys belong to shards that are not mapped here")

    def run_if_fits(self, object keys, object grads, bint pulls, object out, bint create, object timeout=None,
                    Outcome outcome=None):
        """The fast path of a pull into `out` or a new array, else of a push of `grads`; arguments may be anything.
        Returns the rows, True for a push, or None, having done nothing, if it does not support an argument."""
        cdef np.npy_intp shape[2]
        if not (np.PyArray_CheckExact(keys) and np.PyArray_TYPE(keys) == self.key_type
                and np.PyArray_NDIM(keys) == 1 and np.PyArray_ISCARRAY_RO(keys)):
            return None
        shape[0], shape[1] = np.PyArray_DIMS(keys)[0], self.dim
        if not pulls and not is_matrix(grads, shape[0], shape[1], self.value_type, False):
            return None
        if out is not None and not is_matrix(out, shape[0], shape[1], self.value_type, True):
            return None
        if pulls and out is None:
            out = np.PyArray_EMPTY(2, shape, self.value_type, 0)
        self.run(keys, None if pulls else grads, out if pulls else None, None, create, timeout, outcome=outcome)
        return out if pulls else True

    def run(self, object keys, object grads, object outs, list sets, bint create, object timeout=None,
            TableLane resume=None, double scale=1.0, Outcome outcome=None):
        """An operation on arrays that the caller has checked: `keys` uint64[n], the others C-contiguous [n, ...].
        Gradients and outputs of a table of float32 may be of half precision.

        `grads` makes it a push, `outs` a pull; `sets`, an array or None for the values and each slot, sets them.
        Returns, per arena, the table's update count. `resume` comes from a WaitTimeoutError or TableFullError of a push
        of the same keys.
        """
        cdef TableLane lane
        cdef fps_sparse_call call
        cdef Signal signal
        cdef const uint8_t *streams[16]
        cdef uint32_t at = 0, i
        cdef object version
        cdef fps_status status
        cdef double limit = self.group.timeout if timeout is None else timeout
        if sets is not None:
            check_streams(sets, 1 + self.n_slots)
        if resume is not None:
            lane = self.go_on(resume, None if grads is None else keys, &limit)
        else:
            lane = self.take(&limit)
            try:
                self.spread(lane, keys)
            except BaseException:
                self.give_back(lane)
                raise
        memset(&call, 0, sizeof(call))
        call.kind = FPS_PULL
        if grads is not None:
            call.kind, call.grads = FPS_PUSH if outs is None else FPS_PUSH_PULL, <const uint8_t *>np.PyArray_DATA(grads)
            call.half_grads = half_of(grads)
        if outs is not None:
            call.outs, call.half_outs = <uint8_t *>np.PyArray_DATA(outs), half_of(outs)
        if sets is not None:
            for i in range(1 + self.n_slots):
                streams[i] = NULL if sets[i] is None else <const uint8_t *>np.PyArray_DATA(sets[i])
            call.kind, call.set = FPS_SET, streams
        call.table, call.rule, call.limit, call.scale = self.number, &self.rule, self.limit, scale
        call.create, call.parts, call.n_parts = create, lane.parts, self.group.n_parts
        call.wait = wait_for(limit, &signal)
        with nogil:
            status = fps_sparse_run(&call, &at)
        if status != FPS_OK:
            self.fail(lane, &call, status, at, limit, error_of(&signal) if status == FPS_INTERRUPTED else None, outcome)
        if outcome is not None and fps_kind_writes(call.kind):
            outcome.end_all(self.shards)
        versions = PyTuple_New(self.group.n_parts)
        for i in range(self.group.n_parts):
            version = lane.parts[i].version
            Py_INCREF(version)
            PyTuple_SET_ITEM(versions, i, version)
        self.give_back(lane)
        return versions

    cdef str writer(self, uint32_t part):
        """Names the process for which an operation on an arena has waited: it holds a row, or the table's lock."""
        cdef const fps_table *t = self.table(part)
        cdef const fps_arena *arena = self.group.arenas[part]
        cdef uint32_t i, holder = fps_lock_holder(&t.control.lock)
        for i in range(arena.layout.n_sessions):
            if holder == 0 and fps_row_written(arena, i) == t:
                holder = fps_load32_relaxed(&arena.seats[i].pid)
        return process_of(holder)

    cdef void fail(self, TableLane lane, fps_sparse_call *call, fps_status status, uint32_t at, double limit, object signal,
                   Outcome outcome) except *:
        """Raises the error of the operation. Its details are read before the lane is returned."""
        cdef int code = c_errno
        cdef uint32_t i
        cdef const fps_table *t = self.table(at)
        cdef bint pushes = call.kind == FPS_PUSH or call.kind == FPS_PUSH_PULL
        cdef str where = f"table `{self.name}`, {self.group.label(at)}"
        parts = range(self.group.n_parts)
        applied = tuple([self.shards[i] for i in parts if lane.parts[i].applied])
        partial = tuple([self.shards[i] for i in parts if not lane.parts[i].applied and lane.parts[i].position > 0])
        pending = tuple([self.shards[i] for i in parts if not lane.parts[i].applied and lane.parts[i].position == 0])
        if outcome is not None and fps_kind_writes(call.kind):
            outcome.stop(self.shards, applied, partial)
        lane.resumable = pushes and (
            status == FPS_TIMEOUT or (status == FPS_TABLE_FULL and bool(applied or partial)))
        token = lane if lane.resumable else None
        self.give_back(lane)
        if status == FPS_INTERRUPTED:
            raise signal
        done = (f"the push is applied on shards {few(applied)}, to some rows of shards {few(partial)} and not on shards "
                f"{few(pending)}: push the same keys and gradients with resume=error.resume to finish it")
        if status == FPS_TIMEOUT:
            text = f"{where}: waited {limit:.3g} s for {self.writer(at)}, which is changing the table"
            if pushes:
                raise errors.WaitTimeoutError(f"{text}; {done}", applied, partial, pending, token)
            raise errors.WaitTimeoutError(
                f"{text}; some rows may be set: set them again" if call.kind == FPS_SET else text)
        if status == FPS_TABLE_FULL:
            text = f"{where}: it has {fps_load_relaxed(&t.control.live)} rows of {t.layout.max_rows} that it may have"
            if token is not None:  # rows of the push were evicted while it was under way
                raise errors.TableFullError(f"{text}; {done}", self.name, t.layout.max_rows, self.shards[at], applied, token)
            raise errors.TableFullError(
                f"{text}; nothing was applied, and no row was created there; create the table with a larger capacity, evict rows, or "
                f"read with peek()", self.name, t.layout.max_rows, self.shards[at])
        raise exception_of(status, where, code)

    cdef check(self, fps_status status, Signal *signal, uint32_t part, str waited, str more):
        """Raises the error of a call about one arena."""
        cdef int code = c_errno
        cdef str where = f"table `{self.name}`, {self.group.label(part)}"
        if status == FPS_INTERRUPTED:
            raise error_of(signal)
        if status == FPS_TIMEOUT:
            raise errors.WaitTimeoutError(f"{where}: {waited} for {self.writer(part)}, which is changing the table{more}")
        if status != FPS_OK:
            raise exception_of(status, where, code)

# One table over the shards that this process has mapped, operated on by one C call for all of them.

# Scratch for more keys than this is freed after the operation: it takes about 70 B per key.
cdef uint32_t KEEP_KEYS = 1 << 20


cdef class TableGroup:
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

    def find(self, object keys, object timeout=None):
        """Per key, uint64[n], its row in its shard, or 2**32 - 1."""
        cdef np.npy_intp n = np.PyArray_SIZE(keys)
        cdef double limit = self.group.timeout if timeout is None else timeout
        cdef TableLane lane
        cdef object found = np.PyArray_EMPTY(1, &n, np.NPY_UINT32, 0), rows
        cdef uint32_t *row = <uint32_t *>np.PyArray_DATA(found)
        cdef uint32_t *some
        cdef fps_sparse_part *part
        cdef const fps_table *t
        cdef uint32_t i, k
        cdef np.npy_intp count
        check_keys(keys)
        lane = self.take(&limit)
        try:
            self.spread(lane, keys)
            for i in range(self.group.n_parts):
                part = &lane.parts[i]
                (<Arena>self.group.mapped[i]).check()
                count, t = part.n, self.table(i)
                rows = found if part.places == NULL else np.PyArray_EMPTY(1, &count, np.NPY_UINT32, 0)
                some = <uint32_t *>np.PyArray_DATA(rows)
                with nogil:
                    fps_scan_find(t, part.keys, part.n, some)
                    if part.places != NULL:
                        for k in range(part.n):
                            row[part.places[k]] = some[k]
                (<Arena>self.group.mapped[i]).check()  # closed meanwhile: what was read is nothing
        finally:
            self.give_back(lane)
        return found

    def seen(self, object keys, object timeout=None):
        """Per key, uint64[n], how many seconds ago its row was last used, float64[n], and how often, int64[n]; NaN and
        0 without a row."""
        cdef double limit = self.group.timeout if timeout is None else timeout
        cdef TableLane lane
        cdef fps_sparse_part *part
        cdef const fps_table *t
        cdef uint32_t *word
        cdef uint32_t i, now
        cdef np.npy_intp n = np.PyArray_SIZE(keys), k
        ages, counts = np_empty(n, "f8"), np_empty(n, "i8")
        check_keys(keys)
        lane = self.take(&limit)
        try:
            self.spread(lane, keys)
            for i in range(self.group.n_parts):
                part = &lane.parts[i]
                words = np_empty((part.n, 2), "u4")
                word, t = <uint32_t *>np.PyArray_DATA(words), self.table(i)
                (<Arena>self.group.mapped[i]).check()
                with nogil:
                    fps_scan_seen(t, part.keys, part.n, word)
                (<Arena>self.group.mapped[i]).check()  # closed meanwhile: what was read is nothing
                now = fps_row_now(t)
                places = slice(None) if part.places == NULL else [part.places[k] for k in range(part.n)]
                ages[places] = np_where(words[:, 0] > 0, (now - words[:, 0].astype("f8")) * (FPS_TICK_NS * 1e-9), math.nan)
                counts[places] = words[:, 1]
        finally:
            self.give_back(lane)
        return ages, counts

    def now(self, uint32_t part):
        """The time of an arena's table, in ticks of 1/16 s."""
        return fps_row_now(self.table(part))

    def remove(self, object keys, list streams, object removed, object timeout=None, uint32_t since=0xffffffff,
               Outcome outcome=None):
        """Removes rows: `removed`, uint8[n], says which existed. What they held goes to `streams`, an array [n, ...] or
        None for the values and each slot. Rows that were used after tick `since` stay."""
        cdef np.npy_intp n = np.PyArray_SIZE(keys), k
        cdef uint8_t *outs[16]
        cdef uint32_t i, stream, done, at = 0
        cdef fps_sparse_part *part
        cdef Signal signal
        cdef fps_wait wait
        cdef fps_status status = FPS_OK
        cdef double limit = self.group.timeout if timeout is None else timeout
        cdef TableLane lane
        check_keys(keys)
        check_streams(streams, 1 + self.n_slots)
        lane = self.take(&limit)
        try:
            self.spread(lane, keys)
            wait = wait_for(limit, &signal)
            for i in range(self.group.n_parts):
                part, done, at = &lane.parts[i], 0, i
                count = part.n
                flagged = np_empty(count, "u1")
                taken = [None if s is None else np_empty((count, *s.shape[1:]), s.dtype) for s in streams]
                for stream in range(1 + self.n_slots):
                    outs[stream] = NULL if taken[stream] is None else <uint8_t *>np.PyArray_DATA(taken[stream])
                status = self.remove_part(
                    part, self.table(i), since, outs, <uint8_t *>np.PyArray_DATA(flagged), &done, &wait)
                if outcome is not None and status == FPS_OK:
                    outcome.end(self.shards[i:i + 1])
                elif outcome is not None and done:
                    outcome.stop((), (), self.shards[i:i + 1])
                places = slice(0, done) if part.places == NULL else [part.places[k] for k in range(done)]
                removed[places] = flagged[:done]
                for out, some in zip(streams, taken):
                    if out is not None:
                        out[places] = some[:done]
                if status != FPS_OK:
                    break
        finally:
            self.give_back(lane)
        self.check(status, &signal, at, f"remove: waited {limit:.3g} s", "; some rows were removed, call it again for the rest")

    cdef fps_status remove_part(self, fps_sparse_part *part, const fps_table *t, uint32_t since, uint8_t **outs,
                                uint8_t *removed, uint32_t *done, const fps_wait *wait):
        cdef fps_status status
        with nogil:
            status = fps_table_remove(part.session, t, part.keys, part.n, since, outs, removed, done, wait)
        return status

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

    def begin_scan(self, uint32_t part, object timeout=None):
        """Begins a scan of one arena's table that can be asked later what has changed since: its epoch, the time in
        ticks, the update count, and how many rows were removed so far."""
        cdef double limit = self.group.timeout if timeout is None else timeout
        cdef Signal signal
        cdef fps_wait wait = wait_for(limit, &signal)
        cdef fps_scan_start start
        cdef fps_status status
        cdef const fps_arena *arena
        cdef const fps_table *t
        if part >= self.group.n_parts:
            raise IndexError(f"part {part} of {self.group.n_parts}")
        arena, t = self.group.arenas[part], self.table(part)
        memset(&start, 0, sizeof(start))
        with nogil:
            status = fps_scan_begin(arena, t, &wait, &start)
        self.check(status, &signal, part, f"scan: waited {limit:.3g} s", "")
        return start.epoch, start.now, start.version, start.removed

    def scan(self, uint32_t part, uint64_t cursor, object keys, list streams, object seen, object timeout=None,
             uint32_t epoch=0, uint32_t tick=0):
        """Rows of one arena from row `cursor` on into `keys`, uint64[n], `streams`, an array [n, ...] or None for the
        values and each slot, and `seen`, uint32[n, 2] or None. Returns how many, 0 at the end, and the next cursor.

        With `epoch` and `tick` of an earlier scan, those that were written, created or used since."""
        cdef uint8_t *outs[16]
        cdef uint32_t i, n = 0
        cdef uint32_t most = <uint32_t>np.PyArray_SIZE(keys)
        cdef Signal signal
        cdef fps_wait wait
        cdef fps_status status
        cdef fps_since since
        cdef uint64_t *key = <uint64_t *>np.PyArray_DATA(keys)
        cdef uint32_t *when = NULL if seen is None else <uint32_t *>np.PyArray_DATA(seen)
        cdef double limit = self.group.timeout if timeout is None else timeout
        cdef const fps_arena *arena
        cdef const fps_table *t
        if part >= self.group.n_parts:
            raise IndexError(f"part {part} of {self.group.n_parts}")
        check_streams(streams, 1 + self.n_slots)
        for i in range(1 + self.n_slots):
            outs[i] = NULL if streams[i] is None else <uint8_t *>np.PyArray_DATA(streams[i])
        arena, t = self.group.arenas[part], self.table(part)
        wait = wait_for(limit, &signal)
        since.epoch, since.tick = epoch, tick
        with nogil:
            status = fps_scan_rows(arena, t, &cursor, most, since, key, outs, when, &wait, &n)
        self.check(status, &signal, part, f"scan: waited {limit:.3g} s", "")
        return n, cursor

    def resume(self, uint32_t part, uint64_t version, uint32_t now, object timeout=None):
        """Gives an arena's table an update count, and the time in its ticks."""
        cdef double limit = self.group.timeout if timeout is None else timeout
        cdef Signal signal
        cdef fps_wait wait
        cdef fps_status status
        cdef const fps_arena *arena
        cdef const fps_table *t = self.table(part)
        arena, wait = self.group.arenas[part], wait_for(limit, &signal)
        with nogil:
            status = fps_table_resume(arena, t, version, now, &wait)
        self.check(status, &signal, part, f"resume: waited {limit:.3g} s", "")

    def use(self, object keys, object uses, object timeout=None):
        """Records the use of the rows of keys, uint64[n]: how many ticks ago and how often, uint32[n, 2]."""
        cdef double limit = self.group.timeout if timeout is None else timeout
        cdef TableLane lane
        cdef fps_sparse_part *part
        cdef uint32_t i, k
        check_keys(keys)
        if uses.dtype != "u4" or uses.shape != (len(keys), 2):
            raise ValueError(f"uses: expected uint32[{len(keys)}, 2], got {uses.dtype}{uses.shape}")
        lane = self.take(&limit)
        try:
            self.spread(lane, keys)
            for i in range(self.group.n_parts):
                part = &lane.parts[i]
                (<Arena>self.group.mapped[i]).check()
                places = slice(None) if part.places == NULL else [part.places[k] for k in range(part.n)]
                some = np_contiguous(uses[places])
                fps_table_use(self.table(i), part.keys, part.n, <const uint32_t *>np.PyArray_DATA(some))
                (<Arena>self.group.mapped[i]).check()
        finally:
            self.give_back(lane)

    def configure(self, dict values, double timeout, Outcome outcome=None):
        """Changes hyper-parameters by their index, on every arena, for every push that begins from now on."""
        cdef double numbers[16]
        cdef uint32_t which = 0, i
        cdef Signal signal
        cdef fps_wait wait
        cdef fps_status status
        cdef const fps_arena *arena
        cdef const fps_table *t
        memset(numbers, 0, sizeof(numbers))
        for index, value in values.items():
            if not 0 <= index < FPS_MAX_HYPER:
                raise IndexError(f"hyper-parameter {index} of {FPS_MAX_HYPER}")
            numbers[<size_t>index] = value
            which |= 1u << <uint32_t>index
        wait = wait_for(timeout, &signal)
        for i in range(self.group.n_parts):
            arena, t = self.group.arenas[i], self.table(i)
            with nogil:
                status = fps_table_configure(arena, t, which, numbers, &wait)
            self.check(status, &signal, i, f"configure: waited {timeout:.3g} s", "; nothing was changed there")
            if outcome is not None:
                outcome.end(self.shards[i:i + 1])

    def hyper(self, uint32_t count):
        """The first `count` hyper-parameters of the first arena."""
        cdef double numbers[16]
        cdef const fps_table *t
        if count > <uint32_t>FPS_MAX_HYPER:
            raise IndexError(f"{count} hyper-parameters of {FPS_MAX_HYPER}")
        t = self.table(0)
        with nogil:
            fps_table_hyper(t, numbers)
        return [numbers[i] for i in range(count)]

    def counters(self):
        """Per shard, the counters of its part of the table: a new dict of dicts of integers."""
        cdef const fps_table *t
        cdef const fps_control *c
        cdef uint32_t i
        out = {}
        for i in range(self.group.n_parts):
            t = self.table(i)
            c = t.control
            out[self.shards[i]] = {
                "rows": fps_load_relaxed(&c.live), "capacity": t.layout.max_rows,
                "version": fps_load_relaxed(&c.version), "created": fps_load_relaxed(&c.rows_created),
                "evicted": fps_load_relaxed(&c.rows_removed), "rebuilt": fps_load_relaxed(&c.rebuilt),
                "bytes": fps_load_relaxed(&c.rows_backed) + fps_load_relaxed(&c.index_backed[0])
                + fps_load_relaxed(&c.index_backed[1]),
            }
        return out

    def window(self, uint32_t shard, uint32_t row):
        """Read-only bytes of a row's values, live, without a copy."""
        cdef Window window = Window.__new__(Window)
        cdef uint32_t part = <uint32_t>self.shards.index(shard)
        cdef const fps_table *t = self.table(part)
        if row >= fps_load_relaxed(&t.control.high) or row >= t.layout.max_rows:
            raise IndexError(f"row {row}")
        window.owner, window.nbytes = self.group.mapped[part], <Py_ssize_t>t.bytes[0]
        window.start = t.rows + <uint64_t>row * t.layout.row_bytes + t.at[0]
        return window

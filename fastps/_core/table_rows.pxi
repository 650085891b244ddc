# What can be done with a table besides operations: finding, scanning and removing rows, hyper-parameters, counters.


cdef class TableGroup(TableOperations):
    """A table of the arenas of a group: operations, see `TableOperations`, and what is about the table itself."""

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
             uint32_t epoch=0, uint32_t tick=0, object others=None):
        """Rows of one arena from row `cursor` on into `keys`, uint64[n], `streams`, an array [n, ...] or None for the
        values and each slot, and `seen`, uint32[n, 2] or None. Returns how many, 0 at the end, and the next cursor.

        With `epoch` and `tick` of an earlier scan, those that were written, created or used since; then `others`,
        uint64 of the length of `keys`, is for the keys of rows in between, and how many is returned too."""
        cdef uint8_t *outs[16]
        cdef uint32_t i, n = 0
        cdef uint32_t most = <uint32_t>np.PyArray_SIZE(keys)
        cdef Signal signal
        cdef fps_wait wait
        cdef fps_status status
        cdef fps_since since
        cdef fps_others rest
        cdef fps_others *wanted = NULL if others is None else &rest
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
        if others is not None:
            check_keys(others)
            if np.PyArray_SIZE(others) != most:
                raise ValueError("others: as many as keys")
            rest.keys = <uint64_t *>np.PyArray_DATA(others)
        with nogil:
            status = fps_scan_rows(arena, t, &cursor, most, since, key, outs, when, wanted, &wait, &n)
        self.check(status, &signal, part, f"scan: waited {limit:.3g} s", "")
        if others is None:
            return n, cursor
        return n, cursor, rest.n

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
        window.owner, window.nbytes = self.group.mapped[part], <Py_ssize_t>t.held[0]
        window.start = t.rows + <uint64_t>row * t.layout.row_bytes + t.at[0]
        return window

# A group: the shards that this process has mapped, operated on by one C call for all of them.

from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM

cdef uint64_t MIXED_ROUND = 0xffffffffffffffff

# Below this size the GIL is kept: releasing and acquiring it costs as much as the copy.
cdef uint64_t KEEP_GIL_BYTES = 32768


@cython.final
cdef class Group:
    """Shards mapped by this process, the spans of the caller's buffers on each, and the compiled rules.

    Parameters
    ----------
    arenas : list of Arena
    spans : per arena a list of (position, bytes, buffer, buffer offset, rule, item bytes, leaf), sorted by position
    rules : list of (address of the kernel, of `prepare`, slots, number in the arena); addresses of 0: no push changes
        what has this rule
    limit : of the gradients' absolute values, for kernels that clip
    n_streams : most streams that an operation reads or sets
    kinds : for `run_if_fits`, per buffer its (dtype, shape)
    names : for `run_if_fits`, the names of the buffers in a dict; None for a bare array

    Attributes
    ----------
    selected_spans : spans of the selections for partial operations that it keeps

    Threads: any number; each operation takes a lane from a pool that grows on demand.
    """
    cdef uint32_t n_parts, n_buffers, n_rules, n_streams, generation
    cdef size_t n_uniforms, n_pointers
    cdef double limit
    cdef const fps_arena **arenas
    cdef fps_span **spans
    cdef uint32_t *n_spans
    cdef fps_rule *rules
    cdef tuple mapped, shards
    cdef Lane idle  # and those behind it, by `next`
    cdef Lane queued  # that of the thread which runs the operations of a queue
    cdef list staging  # memory for gradients of operations in a queue, when there is none of them
    cdef dict selections
    cdef readonly uint64_t selected_spans
    cdef Expected expected
    cdef uint64_t bytes
    cdef bint may_keep_gil, rounds, is_unlocked
    cdef Pins pins
    cdef public double timeout

    def __cinit__(self, list arenas, list spans, list rules, uint32_t n_buffers, double timeout,
                  list kinds=None, list names=None, double limit=math.inf, uint32_t n_streams=1):
        cdef Arena arena
        cdef fps_span *span
        cdef Py_ssize_t i, k
        self.n_parts, self.n_buffers = <uint32_t>len(arenas), n_buffers
        self.n_rules, self.limit, self.n_streams = <uint32_t>len(rules), limit, n_streams
        self.n_pointers = <size_t>n_streams * n_buffers
        self.mapped, self.idle, self.selections, self.timeout = tuple(arenas), None, {}, timeout
        self.staging = []
        self.shards = tuple([(<Arena>a).arena.layout.shard_index for a in arenas])
        self.n_uniforms = <size_t>self.n_parts * self.n_rules * FPS_UNIFORMS
        self.generation = fps_life_generation()
        self.arenas = <const fps_arena **>calloc(self.n_parts, sizeof(void *))
        self.spans = <fps_span **>calloc(self.n_parts, sizeof(void *))
        self.n_spans = <uint32_t *>calloc(self.n_parts, sizeof(uint32_t))
        self.rules = <fps_rule *>calloc(len(rules), sizeof(fps_rule))
        if not (self.arenas and self.spans and self.n_spans and self.rules):
            raise MemoryError("a group")
        self.may_keep_gil = True
        for i, arena in enumerate(arenas):
            self.arenas[i] = &arena.arena
            self.may_keep_gil &= arena.arena.layout.n_stripes == 1
            self.rounds |= arena.arena.layout.n_versions > 1
            self.is_unlocked |= arena.arena.layout.isolation == FPS_ISOLATION_NONE
            self.spans[i] = <fps_span *>calloc(max(1, len(spans[i])), sizeof(fps_span))
            if not self.spans[i]:
                raise MemoryError("a group")
            self.n_spans[i] = <uint32_t>len(spans[i])
            for k in range(len(spans[i])):
                span = &self.spans[i][k]
                (span.position, span.bytes, span.buffer, span.buffer_offset, span.rule, span.item_bytes,
                 span.leaf) = spans[i][k]
                if (span.buffer >= n_buffers or span.rule >= <uint64_t>len(rules) or span.item_bytes not in (1, 4, 8)
                        or 0 < arena.arena.layout.n_leaves <= span.leaf
                        or span.position % span.item_bytes or span.bytes % span.item_bytes
                        or span.bytes > arena.arena.layout.params_bytes
                        or span.position > arena.arena.layout.params_bytes - span.bytes):
                    raise ValueError(f"{arena.label}: span {spans[i][k]} is out of range")
                self.bytes += span.bytes
        self.may_keep_gil &= self.bytes < KEEP_GIL_BYTES
        for i, (kernel, prepare, n_slots, number) in enumerate(rules):
            if number >= FPS_MAX_RULES or any(n_slots > (<Arena>a).arena.layout.n_slots for a in arenas):
                raise ValueError(f"rule {i}: {n_slots} slots and number {number} are out of range")
            self.rules[i].kernel, self.rules[i].prepare = <fps_kernel><size_t>kernel, <fps_prepare><size_t>prepare
            self.rules[i].n_slots, self.rules[i].number = n_slots, number
        self.expected = None if kinds is None else Expected(kinds, names)

    def __dealloc__(self):
        cdef uint32_t i
        if self.spans:
            for i in range(self.n_parts):
                free(self.spans[i])
        free(self.spans)
        free(self.arenas)
        free(self.n_spans)
        free(self.rules)

    cdef str label(self, uint32_t part):
        return (<Arena>self.mapped[part]).label

    cdef Lane take(self, double *limit):
        """A lane for one operation. The time to make a new one counts towards the limit."""
        cdef int64_t start
        cdef Lane lane
        if self.generation != fps_life_generation():  # a fork: these sessions are the parent's
            self.forget()
        lane = self.idle
        if lane is not None:
            self.idle, lane.next = lane.next, None
            return lane
        start = fps_now_ns()
        lane = Lane(self, limit[0])
        limit[0] -= 1e-9 * (fps_now_ns() - start)
        return lane

    cdef void forget(self):
        """The lanes of operations that come begin new sessions."""
        self.idle, self.queued, self.pins, self.generation = None, None, None, fps_life_generation()
        self.staging = []

    cdef void give_back(self, Lane lane) noexcept:
        """Returns the lane of an operation that has ended: the next one may take it at once."""
        if lane.generation == self.generation:
            lane.next = self.idle
            self.idle = lane

    cdef void begin_call(self, Lane lane, fps_kind kind, fps_call *call) noexcept:
        """Fills in an operation, which is on the caller's stack and else only uses memory of the lane."""
        memset(call, 0, sizeof(fps_call))
        call.kind, call.grads, call.outs, call.streams = kind, lane.grads, lane.outs, lane.streams
        call.rules, call.n_rules, call.limit, call.scale = self.rules, self.n_rules, self.limit, 1.0
        call.n_buffers = self.n_buffers
        call.parts, call.n_parts, call.first = lane.parts, self.n_parts, lane.sessions[0].index % self.n_parts

    cdef Selection select(self, tuple leaves, object place):
        """The spans of some arrays. `place`: None, or says (shard, number of the span) -> (buffer, offset in that)."""
        cdef Selection found = <Selection>self.selections.get(leaves)
        if found is None:
            found = Selection(self, leaves, place)
            if len(self.selections) >= MOST_SELECTIONS or self.selected_spans + found.size > MOST_SPANS:
                self.selections, self.selected_spans = {}, 0
            if leaves not in self.selections:  # `place` is Python, and lets other threads select
                self.selected_spans += found.size
            self.selections[leaves] = found
        return found

    def run_if_fits(self, bint pushes, object grads, bint pulls, object outs, object timeout=None,
                    Decision decision=None, tuple deposit=None, Outcome outcome=None):
        """The fast path of an operation on parameters: returns the versions, as `run` does; or None, having done
        nothing.

        `grads`, when it pushes, and `outs`, when it pulls, may be anything. Runs only if the arrays have exactly the
        expected types, shapes and flags, and none that is written overlaps another.
        """
        cdef double limit = self.timeout if timeout is None else timeout
        cdef int of_grads = PLAIN, of_outs = PLAIN
        cdef fps_call call
        cdef Lane lane
        if self.expected is None or not (pushes or pulls):
            return None
        lane = self.take(&limit)
        if pushes:
            of_grads = self.expected.bind(grads, <void **>lane.grads, lane.half_grads, False)
        if pulls and of_grads != UNFIT:
            of_outs = self.expected.bind(outs, lane.outs, lane.half_outs, True)
        self.begin_call(lane, FPS_PULL if not pushes else FPS_PUSH_PULL if pulls else FPS_PUSH, &call)
        if of_grads == HALF:
            call.half_grads = lane.half_grads
        if of_outs == HALF:
            call.half_outs = lane.half_outs
        if (of_grads == UNFIT or of_outs == UNFIT
                or pulls and self.expected.any_overlap(lane.ranges, &call, pushes, None)):
            self.give_back(lane)
            return None
        lane.reset(None)
        return self.finish(lane, &call, limit, decision, deposit, outcome, grads, outs)

    def run_some_if_fits(self, bint pushes, object grads, bint pulls, object outs, object timeout=None,
                         Decision decision=None, tuple deposit=None, Outcome outcome=None, tuple wanted=None):
        """The same for the arrays that `grads` or, for a pull, `outs` name: a partial operation. Runs only if these are
        the `wanted` ones, if that is given."""
        cdef double limit = self.timeout if timeout is None else timeout
        cdef int of_grads = PLAIN, of_outs = PLAIN
        cdef fps_call call
        cdef tuple leaves, of = None
        cdef Selection selection
        cdef Lane lane
        if self.expected is None or not (pushes or pulls):
            return None
        lane = self.take(&limit)
        if pushes:
            of = self.expected.bind_some(grads, <void **>lane.grads, lane.half_grads, False, &of_grads)
        leaves = self.expected.bind_some(outs, lane.outs, lane.half_outs, True, &of_outs) if pulls else of
        self.begin_call(lane, FPS_PULL if not pushes else FPS_PUSH_PULL if pulls else FPS_PUSH, &call)
        call.partial = True
        if of_grads == HALF:
            call.half_grads = lane.half_grads
        if of_outs == HALF:
            call.half_outs = lane.half_outs
        if (not leaves or pushes and of != leaves or wanted is not None and leaves != wanted
                or pulls and self.expected.any_overlap(lane.ranges, &call, pushes, leaves)):
            self.give_back(lane)
            return None
        selection = self.select(leaves, None)  # kept until the operation has ended, whatever others select
        lane.reset(selection)
        return self.finish(lane, &call, limit, decision, deposit, outcome, grads, outs)

    def run(self, list grads, list outs, object timeout=None, Rest resume=None, list pulled=None, double scale=1.0,
            list streams=None, Decision decision=None, tuple deposit=None, Outcome outcome=None, tuple leaves=None,
            object place=None, bint initial=False, list steps=None, bint together=False):
        """Any operation on any buffers, which the caller has checked: flat, contiguous, of the right dtype and length;
        those of float32 elements may be of half precision.

        `grads` make it a push, `outs` a pull. `resume` comes from a WaitTimeoutError and can be used once. `scale`
        multiplies gradients, for kernels that clip. `streams` make it an operation on parameters and slots: for each of
        them, and for each rule, 0 for the parameters, the slot's number from 1, or None; `grads` and `outs` are then the
        buffers of the first one, of the second one, and so on, and those of rules with None are ignored. `initial`:
        they are set before other processes open the arenas, without locks. `steps`, per arena uint64[spans], are the
        update counts of the spans' arrays, which are set or, with `outs`, read too. Returns, per arena, the version that
        was read or made; before that, `outcome` records what was applied.

        Where updates are applied in rounds, the shards are first brought to the round of `decision`, and `grads` go to
        a worker's tray by `deposit`, the fields of fps_deposit. Versions are rounds; an empty tuple, having read
        nothing, if the shards are at other rounds than the decision's.

        `together` reads all arenas at one moment, at which no push has entered some of them only.

        `leaves`, sorted, makes it a partial operation on these arrays. `place`, always the same for the same leaves,
        says where in the buffers they are, by (arena, span) -> (buffer, offset); None: where they are among all.
        """
        cdef double limit = self.timeout if timeout is None else timeout
        cdef fps_kind kind = FPS_REACH
        cdef fps_call call
        cdef Lane lane
        cdef Selection selection = None
        cdef Py_ssize_t i, k, at, n_streams = 1 if streams is None else len(streams)
        if grads is not None:
            kind = FPS_SET if streams is not None else FPS_PUSH if outs is None else FPS_PUSH_PULL
        elif outs is not None:
            kind = FPS_GET if streams is not None else FPS_PULL
        for what in (grads, outs, pulled):
            if what is not None and len(what) != n_streams * self.n_buffers:
                raise ValueError(f"{len(what)} of {n_streams * self.n_buffers} buffers")
        if n_streams > self.n_streams or any([len(of_rules) != self.n_rules for of_rules in streams or ()]):
            raise ValueError(f"streams {streams} of at most {self.n_streams} for {self.n_rules} rules")
        if pulled is not None and (grads is None or streams is not None):
            raise ValueError("parameters that a worker had go with a push")
        if not self.rounds and (kind == FPS_REACH or decision is not None or deposit is not None):
            raise ValueError("a round of shards that apply updates at once")
        if self.rounds and (kind == FPS_PUSH or kind == FPS_PUSH_PULL) and (deposit is None or outs is not None):
            raise ValueError("a push of no worker, to shards that apply updates in rounds")
        for of_rules in streams or ():
            for i in range(self.n_rules):
                if of_rules[i] is not None and not 0 <= of_rules[i] <= self.rules[i].n_slots:
                    raise IndexError(f"slot {of_rules[i]} of {self.rules[i].n_slots}")
        if initial and (kind != FPS_SET or leaves is not None):
            raise ValueError("initial values set all arrays")
        if together and (kind != FPS_GET or leaves is not None or self.rounds or self.is_unlocked):
            raise ValueError("streams of all arrays are read at one moment, under locks")
        if steps is not None and (streams is None or len(steps) != self.n_parts):
            raise ValueError("update counts are read or set with streams")
        if leaves is not None:
            selection = self.select(leaves, place)
        if resume is not None:
            if resume.group is not self or resume.used or resume.generation != fps_life_generation():
                raise ValueError("resume: it was used already, or belongs to another server or process")
        lane = self.take(&limit)
        if resume is not None:
            resume.used = True
            lane.go_on(resume, selection)
        else:
            lane.reset(selection)
        for i in range(0 if steps is None else self.n_parts):
            counts = self.n_spans[i] if selection is None else selection.n_spans[i]
            if self.arenas[i].layout.n_leaves == 0 or np.PyArray_SIZE(steps[i]) != counts:
                self.give_back(lane)
                raise ValueError(f"{self.label(i)}: expected the update counts of {counts} spans")
            lane.parts[i].steps = <uint64_t *>np.PyArray_DATA(steps[i])
        memset(lane.half_grads, 0, 3 * self.n_pointers)
        for k in range(0 if kind == FPS_REACH else n_streams):
            for i in range(self.n_buffers) if selection is None else selection.buffers:
                at = k * self.n_buffers + i
                if grads is not None:
                    lane.grads[at], lane.half_grads[at] = np.PyArray_DATA(grads[at]), half_of(grads[at])
                if pulled is not None:
                    lane.pulled[at], lane.half_pulled[at] = np.PyArray_DATA(pulled[at]), half_of(pulled[at])
                if outs is not None:
                    lane.outs[at], lane.half_outs[at] = np.PyArray_DATA(outs[at]), half_of(outs[at])
            for i in range(0 if streams is None else self.n_rules):
                lane.streams[k * self.n_rules + i] = FPS_NO_STREAM if streams[k][i] is None else streams[k][i]
        self.begin_call(lane, kind, &call)
        call.partial, call.n_streams, call.together = selection is not None, <uint32_t>n_streams, together
        call.scale, call.pulled = scale, lane.pulled if pulled is not None else NULL
        call.half_grads, call.half_pulled, call.half_outs = lane.half_grads, lane.half_pulled, lane.half_outs
        if initial:
            with nogil:
                fps_fill(&call)
            return (0,) * self.n_parts  # the lane is not kept: creating a server leaves no session taken
        return self.finish(lane, &call, limit, decision, deposit, outcome, None, None)

    cdef fps_status execute(self, fps_call *call, const fps_decision *decision, const fps_deposit *deposit,
                            uint32_t *at) noexcept nogil:
        if not self.rounds:
            return fps_dense_run(call, at)
        return fps_rounds_run(call, decision, deposit, at)

    cdef tuple finish(self, Lane lane, fps_call *call, double limit, Decision decision, tuple deposit, Outcome outcome,
                      object grads, object outs):
        """Runs the operation, and returns the lane once nothing is read from it any more. `grads` and `outs` may be
        mappings: without the GIL, another thread may replace the arrays in them, so references are taken before it is
        released."""
        cdef list held = None
        cdef uint32_t at = 0, i
        cdef fps_status status = FPS_BUSY
        cdef Signal signal
        cdef tuple versions
        cdef object version
        cdef fps_deposit given
        cdef fps_deposit *into = NULL
        cdef const fps_decision *closed = NULL if decision is None else &decision.decision
        if deposit is not None:
            given.rank, given.number, given.generation, given.attempt, given.round = deposit
            into = &given
        if self.may_keep_gil:
            call.wait.deadline_ns = FPS_NO_WAIT
            status = self.execute(call, closed, into, &at)
        if status == FPS_BUSY or (status == FPS_HELD and self.may_keep_gil):
            call.wait = wait_for(limit, &signal)
            if self.expected is not None and self.expected.names is not None:
                held = [list((<dict>some).values()) for some in (grads, outs) if is_dict(some)]
            with nogil:
                status = self.execute(call, closed, into, &at)
        if status == FPS_MIXED:
            self.give_back(lane)
            return ()
        if status != FPS_OK:
            self.fail(lane, call, status, at, limit, error_of(&signal) if status == FPS_INTERRUPTED else None, into, outcome)
        if outcome is not None and into == NULL and fps_kind_writes(call.kind):
            outcome.end_all(self.shards)
        versions = PyTuple_New(self.n_parts)
        for i in range(self.n_parts):
            version = lane.parts[i].version
            Py_INCREF(version)
            PyTuple_SET_ITEM(versions, i, version)
        self.give_back(lane)
        return versions

    cdef void fail(self, Lane lane, fps_call *call, fps_status status, uint32_t at, double limit, object signal,
                   const fps_deposit *deposit, Outcome outcome, bint of_queue=False) except *:
        """Raises the error of the operation. Its details are read before the lane is returned. `of_queue`: it is that of
        the queue's thread."""
        cdef int code = c_errno
        cdef uint32_t i
        cdef bint writes = fps_kind_writes(call.kind) and deposit == NULL  # gradients in trays are not given yet
        cdef const fps_arena *arena = self.arenas[at]
        cdef uint32_t stripe = lane.parts[at].waited_for
        cdef Rest rest = None
        applied = tuple([self.shards[i] for i in range(self.n_parts) if lane.parts[i].applied])
        partial = tuple([self.shards[i] for i in range(self.n_parts) if not lane.parts[i].applied and lane.parts[i].position > 0])
        pending = tuple([self.shards[i] for i in range(self.n_parts) if not lane.parts[i].applied and lane.parts[i].position == 0])
        if status == FPS_TIMEOUT and writes and not self.rounds:
            rest = Rest(lane)
        if not of_queue:
            self.give_back(lane)
        if outcome is not None and writes:
            outcome.stop(self.shards, applied, partial)
        if status == FPS_INTERRUPTED:
            raise signal
        if status == FPS_TIMEOUT:
            text = f"{self.label(at)}: waited {limit:.3g} s for {obstacle(arena, call, stripe, deposit)}"
            if not writes:
                raise errors.WaitTimeoutError(text)
            part = " and partial=True" if call.partial else ""
            raise errors.WaitTimeoutError(
                f"{text}; the push is applied on shards {few(applied)}, on a part of shards {few(partial)} and not on shards "
                f"{few(pending)}: push the same gradients{part} with resume=error.resume to finish it", applied, partial, pending, rest)
        if status == FPS_HELD:
            holders = {fps_load32_relaxed(&arena.seats[i].pid) for i in range(arena.layout.n_sessions)
                       if fps_load_relaxed(&arena.seats[i].pins) and not fps_life_ended(&arena.seats[i].life)}
            raise errors.WaitTimeoutError(
                f"{self.label(at)}: waited {limit:.3g} s for a version of the parameters that is not pinned; drop old "
                f"views and their arrays in {', '.join(process_of(pid) for pid in sorted(holders))}")
        raise exception_of(status, self.label(at), code)

    def count_skipped(self, object timeout=None):
        """Counts, in every shard, a push that was not applied."""
        cdef double limit = self.timeout if timeout is None else timeout
        cdef Lane lane = self.take(&limit)
        cdef uint32_t i
        for i in range(self.n_parts):
            fps_count(&lane.sessions[i].seat.meters.skipped, 1)
        self.give_back(lane)

    def begin(self, Py_ssize_t part, list values):
        """Sets the slots of one shard to their initial values, a list per rule; before other processes open it."""
        cdef uint32_t i
        for i in range(self.n_spans[part]):
            for stream, value in enumerate(values[self.spans[part][i].rule], 1):
                if value != 0:
                    fps_fill_stream(self.arenas[part], &self.spans[part][i], stream, value)

    def help(self, Decision decision):
        """Brings the arenas to the decision's round, as far as possible without waiting. Returns whether all are
        there."""
        cdef double limit = self.timeout
        cdef Lane lane = self.take(&limit)
        cdef uint32_t at = 0
        cdef fps_status status
        cdef fps_call call
        self.begin_call(lane, FPS_REACH, &call)
        lane.reset(None)
        call.wait.deadline_ns = FPS_NO_WAIT
        with nogil:
            status = fps_rounds_run(&call, &decision.decision, NULL, &at)
        self.give_back(lane)
        if status == FPS_BAD_DECISION:
            raise exception_of(status, self.label(0))
        return status == FPS_OK

    def hold(self):
        """Pins the current version; None if the shards are at different rounds."""
        cdef Held held
        if self.generation != fps_life_generation():
            self.forget()
        if self.pins is None:
            self.pins = Pins(self)
        held = Held(self.pins)
        return None if held.round == MIXED_ROUND else held

    def close(self):
        """Closes the sessions of idle lanes."""
        self.forget()

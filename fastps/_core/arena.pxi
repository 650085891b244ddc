# Arenas in Python. Their memory stays mapped for as long as an object here refers to it.

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_FillInfo
from posix.fcntl cimport O_CLOEXEC, O_RDWR
from posix.fcntl cimport open as c_open
from posix.unistd cimport close as c_close


ANY_TIME = (0, 0, 0, 1, 0.0, 0)


cdef fps_policy policy_of(tuple policy):
    cdef fps_policy out
    memset(&out, 0, sizeof(out))
    out.kind, out.staleness, out.backup, out.quorum = policy[:4]
    out.straggler_ns = <int64_t>(1e9 * <double>policy[4])
    out.reduce = policy[5]
    return out


cdef fps_table_layout table_layout_of(tuple table) except *:
    cdef fps_table_layout out
    cdef Py_ssize_t k
    memset(&out, 0, sizeof(out))
    (out.dim, out.item_bytes, slots, row_slots, out.initial, out.first, out.second, out.seed, out.tracked,
     out.stored, out.stochastic, out.max_rows) = table
    if len(slots) > <int>FPS_MAX_SLOTS:
        raise ValueError(f"a table of {len(slots)} slots")
    out.n_slots = <uint32_t>len(slots)
    for k in range(len(slots)):
        out.slots[k] = slots[k]
        if row_slots[k]:
            out.row_slots |= 1u << <uint32_t>k
    return out


cdef void fill_tables(fps_arena_spec *spec, fps_table_layout *layouts, tables) except *:
    if len(tables) > 64:
        raise ValueError(f"{len(tables)} tables")
    for i, table in enumerate(tables):
        layouts[<size_t>i] = table_layout_of(table)
    spec.n_tables, spec.tables = <uint32_t>len(tables), layouts


def table_row_bytes(tuple table):
    """The bytes of a row in such a table, of `Arena.create`."""
    cdef fps_table_layout layout = table_layout_of(table)
    return fps_table_row_bytes(&layout)


def table_initial(tuple table, object keys, object out):
    """Writes the initial values of the rows of `keys`, uint64[n], to `out`."""
    cdef fps_table_layout layout = table_layout_of(table)
    cdef const uint64_t *key = <const uint64_t *>np.PyArray_DATA(keys)
    cdef uint8_t *row = <uint8_t *>np.PyArray_DATA(out)
    cdef Py_ssize_t i, n = np.PyArray_SIZE(keys)
    if np.PyArray_NBYTES(out) != n * <Py_ssize_t>layout.dim * layout.item_bytes:
        raise ValueError("out: the wrong size")
    for i in range(n):
        fps_initial_fill(&layout, key[i], row + <size_t>i * layout.dim * layout.item_bytes)


cdef class Arena:
    """The shared memory of one shard, mapped into this process. Created with `create` or `open` only."""
    cdef fps_arena arena
    cdef readonly bint owner
    cdef readonly str label
    cdef uint32_t generation

    def __cinit__(self):
        memset(&self.arena, 0, sizeof(self.arena))
        self.arena.fd = -1

    def __init__(self):
        raise TypeError("use Arena.create or Arena.open")

    @staticmethod
    def size(uint64_t params_bytes, uint32_t max_sessions, uint32_t n_slots=0, uint32_t max_workers=0,
             tuple policy=ANY_TIME, object tables=(), uint32_t n_leaves=0):
        """The bytes of shared memory that an arena takes at first; 0 if the arguments are invalid."""
        cdef fps_arena_spec spec
        cdef fps_table_layout layouts[64]
        memset(&spec, 0, sizeof(spec))
        fill_tables(&spec, layouts, tables)
        spec.params_bytes, spec.n_sessions, spec.n_slots = params_bytes, max_sessions, n_slots
        spec.n_members, spec.policy, spec.n_leaves = max_workers, policy_of(policy), n_leaves
        return fps_arena_bytes(&spec)

    @staticmethod
    def create(bytes arena_id, str label, uint32_t shard_index, uint32_t shard_count, uint64_t params_bytes,
               uint32_t max_sessions, bint isolated, uint64_t stripe_bytes=0, uint32_t n_slots=0,
               uint32_t max_workers=0, tuple policy=ANY_TIME, object tables=(), uint32_t n_leaves=0):
        """Allocates, pre-faults and seals the memory; this process owns it. Cost: a page fault per 4 KiB.

        `policy` is that of `Consistency.policy`. `tables` is a list of (dim, item bytes, initial value of each slot,
        whether it is one value per row, fps_initial, first, second, seed, tracked, most rows). `n_leaves`: arrays whose
        updates are counted one by one, for partial operations; 0: there are none.
        """
        cdef Arena self = Arena.__new__(Arena)
        cdef fps_arena_spec spec
        cdef fps_table_layout layouts[64]
        cdef fps_status status
        memset(&spec, 0, sizeof(spec))
        if len(arena_id) != 16:
            raise ValueError(f"arena_id: expected 16 bytes, got {len(arena_id)}")
        memcpy(spec.arena_id, <const char *>arena_id, 16)
        spec.shard_index, spec.shard_count = shard_index, shard_count
        spec.params_bytes, spec.n_sessions, spec.stripe_bytes = params_bytes, max_sessions, stripe_bytes
        spec.n_slots = n_slots
        spec.n_members, spec.policy, spec.n_leaves = max_workers, policy_of(policy), n_leaves
        spec.isolation = FPS_ISOLATION_SHARD if isolated else FPS_ISOLATION_NONE
        fill_tables(&spec, layouts, tables)
        with nogil:
            status = fps_arena_create(&spec, &self.arena)
        if status != FPS_OK:
            raise exception_of(status, f"{label}, {fps_arena_bytes(&spec)} bytes", c_errno)
        self.label, self.owner, self.generation = label, True, fps_life_generation()
        return self

    @staticmethod
    def open(int fd, bytes arena_id, str label):
        """Maps the arena behind `fd` and takes `fd` over; on an error `fd` stays the caller's."""
        cdef Arena self = Arena.__new__(Arena)
        cdef fps_status status
        cdef const uint8_t *wanted = arena_id
        if len(arena_id) != 16:
            raise ValueError(f"arena_id: expected 16 bytes, got {len(arena_id)}")
        with nogil:
            status = fps_arena_open(fd, wanted, &self.arena)
        if status != FPS_OK:
            raise exception_of(status, label, c_errno)
        self.label, self.owner = label, False
        return self

    @staticmethod
    def attach(str path, bytes arena_id, str label):
        """Maps the arena of the file `path`. Raises OSError if that cannot be opened. In one call, so that an exception
        of a signal handler neither leaks the descriptor nor closes it twice."""
        cdef int fd
        cdef int code
        cdef bytes name = os.fsencode(path)
        cdef const char *at = name
        with nogil:
            fd = c_open(at, O_RDWR | O_CLOEXEC)
            code = c_errno
        if fd < 0:
            raise OSError(code, os.strerror(code), path)
        try:
            return Arena.open(fd, arena_id, label)
        except BaseException:
            c_close(fd)
            raise

    def __dealloc__(self):
        cdef bint retires = self.owner and self.generation == fps_life_generation()
        with nogil:  # freeing a gigabyte takes a tenth of a second
            if retires:
                fps_arena_retire(&self.arena)
            fps_arena_close(&self.arena)

    def retire(self):
        """Marks the arena as closed for every process. Called by its owner. Idempotent."""
        if self.owner and self.generation == fps_life_generation():
            self.owner = False
            with nogil:
                fps_arena_retire(&self.arena)

    def discard(self):
        """Frees the memory if the owner has died. Called by any process that closes the server; does nothing while the
        owner lives."""
        with nogil:
            fps_arena_retire(&self.arena)

    def check(self):
        """Raises ClosedError or ShardDiedError if the arena is closed or its owner has died. Cost: two loads."""
        cdef fps_status status = fps_arena_state(&self.arena)
        if status != FPS_OK:
            raise exception_of(status, self.label)

    @property
    def fd(self):
        return self.arena.fd

    @property
    def version(self):
        """The update count: pushes that have entered the shard, or rounds that have been applied to it."""
        if self.arena.layout.n_versions > 1:
            return FPS_CURRENT_ROUND(fps_load_relaxed(&self.arena.header.current))
        return fps_load_relaxed(&self.arena.header.version)

    def decision(self):
        """The decision of the last round that closed, from the board of this arena, that of shard 0."""
        cdef Decision decision = Decision.__new__(Decision)
        cdef fps_roster roster = fps_board_roster(&self.arena)
        fps_clock_decision(&roster, &decision.decision)
        return decision

    @property
    def total_bytes(self):
        return self.arena.layout.total_bytes

    @property
    def stripe_bytes(self):
        return self.arena.layout.stripe_bytes

    def configure(self, uint32_t rule, dict values, double timeout, Outcome outcome=None):
        """Changes hyper-parameters, by their index in a rule, for every push that enters the shard from now on."""
        cdef double numbers[16]
        cdef uint32_t which = 0
        cdef Signal signal
        cdef fps_wait wait
        cdef fps_status status
        memset(numbers, 0, sizeof(numbers))
        if rule >= <uint32_t>FPS_MAX_RULES:
            raise IndexError(f"{self.label}: rule {rule} of {FPS_MAX_RULES}")
        for index, value in values.items():
            if not 0 <= index < FPS_MAX_HYPER:
                raise IndexError(f"{self.label}: hyper-parameter {index} of {FPS_MAX_HYPER}")
            numbers[<size_t>index] = value
            which |= 1u << <uint32_t>index
        wait = wait_for(timeout, &signal)
        with nogil:
            status = fps_dense_configure(&self.arena, rule, which, numbers, &wait)
        if status == FPS_INTERRUPTED:
            raise error_of(&signal)
        if status == FPS_TIMEOUT:
            raise errors.WaitTimeoutError(
                f"configure {self.label}: waited {timeout:.3g} s for a lock that "
                f"{process_of(fps_lock_holder(&self.arena.stripes[0].lock))} holds; nothing was changed there")
        if status != FPS_OK:
            raise exception_of(status, f"configure {self.label}", c_errno)
        if outcome is not None:
            outcome.end((self.arena.layout.shard_index,))

    def hyper(self, uint32_t rule, uint32_t count):
        """The first `count` hyper-parameters of a rule."""
        cdef double numbers[16]
        if rule >= <uint32_t>FPS_MAX_RULES or count > <uint32_t>FPS_MAX_HYPER:
            raise IndexError(f"{self.label}: rule {rule} of {FPS_MAX_RULES}")
        with nogil:
            fps_dense_hyper(&self.arena, rule, numbers)
        return [numbers[i] for i in range(count)]

    def count_saved(self, uint64_t nbytes=0, bint ended=False, bint failed=False):
        """Counts bytes that a save has written, and a save that has ended or failed."""
        fps_count_shared(&self.arena.header.saved_bytes, nbytes)
        fps_count_shared(&self.arena.header.saves, ended)
        fps_count_shared(&self.arena.header.failed_saves, failed)

    def counters(self):
        """The counters of all sessions, summed, and those of recovery: a new dict of integers."""
        cdef fps_meters *m
        cdef fps_seat *seat
        cdef fps_header *header = self.arena.header
        cdef uint64_t pulls = 0, pushes = 0, push_pulls = 0, read = 0, written = 0
        cdef uint64_t retries = 0, waits = 0, wait_ns = 0, sleeps = 0, live = 0, skipped = 0
        cdef uint32_t i
        for i in range(self.arena.layout.n_sessions):
            seat = &self.arena.seats[i]
            m = &seat.meters
            pulls += fps_load_relaxed(&m.pulls)
            pushes += fps_load_relaxed(&m.pushes)
            push_pulls += fps_load_relaxed(&m.push_pulls)
            read += fps_load_relaxed(&m.bytes_read)
            written += fps_load_relaxed(&m.bytes_written)
            retries += fps_load_relaxed(&m.read_retries)
            waits += fps_load_relaxed(&m.lock_waits)
            wait_ns += fps_load_relaxed(&m.lock_wait_ns)
            sleeps += fps_load_relaxed(&m.lock_sleeps)
            skipped += fps_load_relaxed(&m.skipped)
            live += fps_load32_relaxed(&seat.state) == FPS_SEAT_LIVE and not fps_life_ended(&seat.life)
        return {
            "version": self.version,
            "pulls": pulls, "pushes": pushes, "push_pulls": push_pulls, "bytes_read": read, "bytes_written": written,
            "read_retries": retries, "lock_waits": waits, "lock_wait_ns": wait_ns, "lock_sleeps": sleeps,
            "skipped": skipped,
            "dropped": fps_load_relaxed(&self.arena.board.dropped),
            "expelled": fps_load_relaxed(&self.arena.board.expelled),
            "sessions": live,
            "recovered_locks": fps_load_relaxed(&header.recovered_locks),
            "interrupted_pushes": fps_load_relaxed(&header.interrupted_pushes),
            "interrupted_pid": fps_load_relaxed(&header.interrupted_pid),
            "interrupted_at": fps_load_relaxed(&header.interrupted_at),
            "saves": fps_load_relaxed(&header.saves),
            "failed_saves": fps_load_relaxed(&header.failed_saves),
            "saved_bytes": fps_load_relaxed(&header.saved_bytes),
        }

    def window(self, uint64_t position, uint64_t nbytes):
        """Read-only bytes of the parameters, live, without a copy."""
        cdef Window window = Window.__new__(Window)
        if position > self.arena.layout.params_bytes or nbytes > self.arena.layout.params_bytes - position:
            raise IndexError(f"{self.label}: [{position}, {position + nbytes}) is outside of the parameters")
        window.owner, window.start, window.nbytes = self, self.arena.params + position, <Py_ssize_t>nbytes
        return window


@cython.no_gc_clear  # the memory must stay mapped for as long as an array refers to it
cdef class Window:
    """A read-only buffer on an arena's parameters, which its owner keeps mapped."""
    cdef object owner
    cdef uint8_t *start
    cdef Py_ssize_t nbytes

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        if flags & PyBUF_WRITABLE:
            raise BufferError("parameters are read-only: change them with push")
        PyBuffer_FillInfo(buffer, self, self.start, self.nbytes, 1, flags)

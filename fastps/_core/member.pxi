# Workers that take part in clocks and rounds, and their state machine alone.

@cython.no_gc_clear  # __dealloc__ leaves: the arena must still be mapped then
cdef class Member:
    """A worker of this node at the board of shard 0, or one on another node that this process represents.

    Parameters
    ----------
    arena : of shard 0
    rank : None for the first that is free
    lease : seconds that a worker on another node lives without a renewal; 0 for one of this process
    timeout : seconds

    Threads: one at a time, except for `renew` and `leave`. Raises RankError; WorkerExpelledError once it is expelled.
    """
    cdef Arena mapped
    cdef fps_worker worker
    cdef uint32_t generation
    cdef bint joined

    def __init__(self, Arena arena, object rank, double lease, double timeout):
        cdef fps_status status
        cdef uint32_t wanted = FPS_ANY_RANK
        cdef int64_t lease_ns = <int64_t>(1e9 * lease)
        cdef uint32_t most = arena.arena.layout.n_members
        cdef Signal signal
        cdef fps_wait wait
        self.mapped, self.generation = arena, fps_life_generation()
        if rank is not None and not 0 <= rank < most:
            raise errors.RankError(f"worker: expected a rank from 0 to {most - 1}, got {rank}; create the server with a "
                                   f"larger max_workers")
        if rank is not None:
            wanted = rank
        wait = wait_for(timeout, &signal)
        with nogil:
            status = fps_worker_join(&self.mapped.arena, wanted, lease_ns, &wait, &self.worker)
        if status == FPS_FULL:
            raise errors.RankError(f"worker: all {most} ranks are taken by live workers; create the server with a larger "
                                   f"max_workers")
        if status == FPS_BUSY:
            holder = fps_load32_relaxed(&arena.arena.members[wanted].pid)
            raise errors.RankError(f"worker: rank {rank} is taken by {process_of(holder)}; let it leave, or take another")
        self.joined = status == FPS_OK
        self.check(status, &signal, "worker", timeout)

    @staticmethod
    def adopt(Arena arena, uint32_t rank, uint64_t generation, double lease):
        """Represents a worker on another node in place of a process that has died."""
        cdef Member self = Member.__new__(Member)
        if rank >= arena.arena.layout.n_members:
            raise IndexError(f"rank {rank} of {arena.arena.layout.n_members}")
        self.mapped, self.generation, self.joined = arena, fps_life_generation(), True
        fps_worker_adopt(&arena.arena, rank, generation, <int64_t>(1e9 * lease), &self.worker)
        return self

    def __dealloc__(self):
        self.leave()

    cpdef leave(self):
        """Idempotent."""
        if self.joined and self.generation == fps_life_generation():
            self.joined = False
            with nogil:
                fps_worker_leave(&self.worker)

    cdef check(self, fps_status status, Signal *signal, str verb, double timeout):
        cdef uint32_t blocker
        if status == FPS_OK:
            return
        if status == FPS_INTERRUPTED:
            raise error_of(signal)
        if status == FPS_EXPELLED and not self.joined:
            raise errors.ClosedError(f"{verb}: this worker has left, in another thread or in a signal handler")
        if status == FPS_TIMEOUT:
            blocker = fps_board_blocker(&self.worker.roster)
            who = "a lock"
            if blocker < self.worker.roster.n_members:
                pid = fps_load32_relaxed(&self.mapped.arena.members[blocker].pid)
                who = f"the worker of rank {blocker}, {process_of(pid)}"
            elif not fps_load32_relaxed(&self.mapped.arena.board.started):
                who = f"{self.worker.roster.policy.quorum} workers to join"
            raise errors.WaitTimeoutError(f"{verb}: waited {timeout:.3g} s for {who}")
        raise exception_of(status, f"{verb} on {self.mapped.label}", c_errno)

    cdef fps_wait until(self, double timeout, Signal *signal) except *:
        if not self.joined:
            raise errors.ClosedError("worker: it has left; open another with `with ps.worker() as w:`")
        if self.generation != fps_life_generation():
            raise errors.ClosedError("worker: it is the parent process's; open one here with `with ps.worker() as w:`")
        return wait_for(timeout, signal)  # one per call: a lease may be renewed while another call waits

    @property
    def rank(self):
        return self.worker.rank

    def begin(self, double timeout):
        """Waits until the worker may begin its step. Returns (its clock, the progress of the board)."""
        cdef uint64_t clock = 0, progress = 0
        cdef fps_status status
        cdef Signal signal
        cdef fps_wait wait = self.until(timeout, &signal)
        with nogil:
            status = fps_worker_begin(&self.worker, &wait, &clock, &progress)
        self.check(status, &signal, "worker", timeout)
        return clock, progress

    def state(self):
        """(clock of the worker, progress of the board), without waiting."""
        cdef fps_roster *r = &self.worker.roster
        return fps_load_relaxed(&r.members[self.worker.rank].clock), fps_load_relaxed(&r.board.progress)

    def end_step(self, uint64_t clock, double timeout):
        """Ends the step that began at this clock. Idempotent."""
        cdef fps_status status
        cdef Signal signal
        cdef fps_wait wait = self.until(timeout, &signal)
        with nogil:
            status = fps_worker_end_step(&self.worker, clock, &wait)
        self.check(status, &signal, "end of a step", timeout)

    def give(self, uint64_t round, uint32_t weight, double timeout):
        """Gives what is in the worker's trays, `weight` gradients, to its round; False if that is not the open one.
        Idempotent."""
        cdef fps_status status
        cdef bool_c counted = False
        cdef Signal signal
        cdef fps_wait wait = self.until(timeout, &signal)
        with nogil:
            status = fps_worker_give(&self.worker, round, weight, &wait, &counted)
        self.check(status, &signal, "end of a step", timeout)
        return bool(counted)

    def catch_up(self, uint64_t round, double timeout):
        """The worker has read the parameters after `round` rounds."""
        cdef fps_status status
        cdef Signal signal
        cdef fps_wait wait = self.until(timeout, &signal)
        with nogil:
            status = fps_worker_catch_up(&self.worker, round, &wait)
        self.check(status, &signal, "worker", timeout)

    def decision(self):
        """The last round that closed."""
        return self.mapped.decision()

    @property
    def generation(self):
        """How many workers have had this rank, this one included."""
        return self.worker.generation

    def renew(self, double timeout):
        """Renews the worker's lease."""
        cdef fps_status status
        cdef Signal signal
        cdef fps_wait wait = self.until(timeout, &signal)
        with nogil:
            status = fps_worker_renew(&self.worker, &wait)
        self.check(status, &signal, "worker", timeout)

    def rejoin(self, double timeout):
        """Rejoins after a WorkerExpelledError, at the clock of the others. Idempotent."""
        cdef fps_status status
        cdef uint64_t generation
        cdef Signal signal
        cdef fps_wait wait = self.until(timeout, &signal)
        with nogil:
            status = fps_worker_return(&self.worker, &wait, &generation)
        if status == FPS_OK:
            self.worker.generation = generation
        if status == FPS_BUSY:
            raise errors.RankError(f"worker: rank {self.rank} was expelled, and another worker has taken it; "
                                   f"open a new session with `with ps.worker() as w:`")
        self.check(status, &signal, "worker", timeout)


cdef class Board:
    """The state machine of clocks and rounds alone, in private memory: no processes, no waiting.

    Parameters
    ----------
    kind, staleness, backup, workers : as in `Consistency.policy`
    members : number of ranks
    """
    cdef fps_roster roster

    def __cinit__(self, uint32_t kind, uint32_t staleness, uint32_t backup, uint32_t workers, uint32_t members):
        if members > <uint32_t>FPS_MAX_MEMBERS:
            raise ValueError(f"members: at most {FPS_MAX_MEMBERS}")
        self.roster.policy = policy_of((kind, staleness, backup, workers, 0.0, 0))
        self.roster.n_members = members
        self.roster.board = <fps_board *>calloc(1, sizeof(fps_board))
        self.roster.members = <fps_member *>calloc(members, sizeof(fps_member))
        if not (self.roster.board and self.roster.members):
            raise MemoryError("a board")

    def __dealloc__(self):
        free(self.roster.board)
        free(self.roster.members)

    cdef fps_member *member(self, uint32_t rank, tuple states) except NULL:
        if rank >= self.roster.n_members or fps_load32_relaxed(&self.roster.members[rank].state) not in states:
            raise ValueError(f"rank {rank}: not one of {self.roster.n_members} that this can happen to")
        return &self.roster.members[rank]

    def join(self, uint32_t rank):
        cdef fps_member *m = self.member(rank, (FPS_MEMBER_FREE, FPS_MEMBER_OUT))
        fps_clock_enter(&self.roster, rank, FPS_MEMBER_HERE)
        return fps_load_relaxed(&m.clock)

    def rejoin(self, uint32_t rank):
        self.member(rank, (FPS_MEMBER_OUT,))
        return self.join(rank)

    def leave(self, uint32_t rank):
        self.member(rank, (FPS_MEMBER_HERE, FPS_MEMBER_OUT))
        fps_clock_exit(&self.roster, rank, FPS_MEMBER_FREE)

    def evict(self, uint32_t rank):
        self.member(rank, (FPS_MEMBER_HERE,))
        fps_clock_exit(&self.roster, rank, FPS_MEMBER_OUT)

    def end_step(self, uint32_t rank):
        cdef fps_member *m = self.member(rank, (FPS_MEMBER_HERE,))
        fps_clock_end_step(&self.roster, rank)
        return fps_load_relaxed(&m.clock)

    def arrive(self, uint32_t rank, uint32_t weight):
        cdef fps_member *m = self.member(rank, (FPS_MEMBER_HERE,))
        cdef bool_c counted = False
        if fps_load_relaxed(&m.clock) > self.progress:
            raise ValueError(f"rank {rank}: it has given to the open round")
        fps_clock_give(&self.roster, rank, fps_load_relaxed(&m.clock), weight, &counted)
        return bool(counted)

    def catch_up(self, uint32_t rank, uint64_t round):
        self.member(rank, (FPS_MEMBER_HERE,))
        if round > self.progress:
            raise ValueError(f"round {round} has not closed")
        fps_clock_catch_up(&self.roster, rank, round)
        return self.clock(rank)

    def may_go(self, uint32_t rank):
        return self.progress >= fps_clock_needs(&self.roster.policy, self.clock(rank))

    def clock(self, uint32_t rank):
        return fps_load_relaxed(&self.member(rank, (FPS_MEMBER_FREE, FPS_MEMBER_HERE, FPS_MEMBER_OUT)).clock)

    def decision(self):
        """The last round that closed: (rounds closed with it, ((rank, weight), ...))."""
        cdef Decision decision = Decision.__new__(Decision)
        fps_clock_decision(&self.roster, &decision.decision)
        return decision.round, decision.given

    @property
    def progress(self):
        return fps_load_relaxed(&self.roster.board.progress)

    @property
    def started(self):
        return fps_load32_relaxed(&self.roster.board.started) != 0

    @property
    def live(self):
        return [i for i in range(self.roster.n_members) if fps_member_lives(&self.roster.members[i])]

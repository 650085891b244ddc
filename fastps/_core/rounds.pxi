# Rounds: their decisions, and versions that are pinned for readers.

import os
import select
import threading
import weakref


cdef class Decision:
    """Which gradients count in the last round that closed."""
    cdef fps_decision decision

    @property
    def round(self):
        """The number of closed rounds, this one included; 0: none."""
        return self.decision.round

    @property
    def given(self):
        """(rank, weight) of each worker in it, in the order of ranks."""
        return tuple([(self.decision.ranks[i], self.decision.weights[i]) for i in range(self.decision.n_given)])

    def pack(self):
        """As bytes, for other nodes."""
        words = np_array([self.decision.round, *[w << 16 | r for r, w in self.given]], "<u8")
        return words.tobytes()

    @staticmethod
    def unpack(data):
        """Raises ValueError for what `pack` does not make."""
        cdef Decision self = Decision.__new__(Decision)
        words = np_frombuffer(data, "<u8")
        if not 1 <= len(words) <= FPS_MAX_MEMBERS + 1:
            raise ValueError(f"a decision of {len(words)} words")
        self.decision.round, self.decision.n_given = words[0], <uint32_t>(len(words) - 1)
        for i, word in enumerate(words[1:].tolist()):
            self.decision.ranks[<size_t>i] = word & 0xffff
            self.decision.weights[<size_t>i] = word >> 16
            if word & 0xffff >= FPS_MAX_MEMBERS or word >> 32:
                raise ValueError(f"a decision with the word {word:#x}")
        return self

    def __repr__(self):
        return f"<Decision of round {self.round}: {self.given}>"


@cython.no_gc_clear
cdef class Pins:
    """The versions that this process's views pin, counted, under a session of their own in every arena of a group."""
    cdef Lane lane
    cdef uint32_t *counts  # [parts][FPS_MAX_VERSIONS]
    cdef object __weakref__

    def __cinit__(self, Group group):
        self.lane = Lane(group, group.timeout)
        self.counts = <uint32_t *>calloc(<size_t>group.n_parts * FPS_MAX_VERSIONS, sizeof(uint32_t))
        if not self.counts:
            raise MemoryError("pins")
        all_pins.add(self)

    def __dealloc__(self):
        free(self.counts)

    cdef list held(self):
        """(part, version) of all pinned versions."""
        return [(i // FPS_MAX_VERSIONS, i % FPS_MAX_VERSIONS)
                for i in range(self.lane.group.n_parts * FPS_MAX_VERSIONS) if self.counts[i] > 0]

    cdef void keep_for_ever(self, list versions):
        for part, version in versions:
            self.counts[<uint32_t>part * FPS_MAX_VERSIONS + <uint32_t>version] += 1

    cdef void take_over(self, list versions) except *:
        """In a forked child: pins them under a session of its own, while the parent's pins remain."""
        cdef Lane lane = Lane(self.lane.group, FORK_SECONDS)
        for part, version in versions:
            fps_version_pin_too(&lane.sessions[<uint32_t>part], version)
        self.lane = lane


# A fork copies views, but the sessions that pin their versions belong to the parent, which may unpin them. So the
# parent waits until the child has pinned them itself, which takes less than a millisecond; if the child cannot, or not
# in time, the parent keeps its pins for as long as it lives.
FORK_SECONDS = 1.0
all_pins = weakref.WeakSet()
forks = {}  # by thread: (the reading and the writing end of a pipe, [(pins, their versions)])


def before_fork():
    held = [(pins, (<Pins>pins).held()) for pins in list(all_pins) if (<Pins>pins).lane.generation == fps_life_generation()]
    held = [(pins, versions) for pins, versions in held if versions]
    if not held:
        return
    try:
        forks[threading.get_ident()] = (*os.pipe2(os.O_CLOEXEC), held)
    except OSError:  # no descriptor is left: the child cannot report
        for pins, versions in held:
            (<Pins>pins).keep_for_ever(versions)


def after_fork_in_parent():
    if threading.get_ident() not in forks:
        return
    hear, say, held = forks.pop(threading.get_ident())
    taken_over = False
    try:
        os.close(say)
        poll = select.poll()
        poll.register(hear, select.POLLIN)
        taken_over = bool(poll.poll(1000 * FORK_SECONDS)) and os.read(hear, 1) == b""
    finally:
        os.close(hear)
        if not taken_over:
            for pins, versions in held:
                (<Pins>pins).keep_for_ever(versions)


def after_fork_in_child():
    here = forks.pop(threading.get_ident(), None)
    for hear, say, _ in forks.values():  # of other threads, which the child does not have
        os.close(hear)
        os.close(say)
    forks.clear()
    if here is None:
        return
    hear, say, held = here
    os.close(hear)
    try:
        for pins, versions in held:
            (<Pins>pins).take_over(versions)
    except Exception:  # for example, no session is left
        os.write(say, b"x")
    finally:
        os.close(say)


os.register_at_fork(before=before_fork, after_in_parent=after_fork_in_parent, after_in_child=after_fork_in_child)


@cython.no_gc_clear
cdef class Held:
    """One version of all shards of a group. It does not change for as long as this object, or a window on it, lives."""
    cdef Pins pins
    cdef uint32_t n_pinned
    cdef uint32_t *versions
    cdef readonly uint64_t round

    def __cinit__(self, Pins pins):
        cdef uint32_t i
        cdef uint64_t current
        self.pins = pins
        self.versions = <uint32_t *>calloc(pins.lane.group.n_parts, sizeof(uint32_t))
        if not self.versions:
            raise MemoryError("a view")
        for i in range(pins.lane.group.n_parts):
            current = fps_version_pin(&pins.lane.sessions[i])
            self.versions[i] = fps_version_of(pins.lane.group.arenas[i], current)
            pins.counts[i * FPS_MAX_VERSIONS + self.versions[i]] += 1
            self.n_pinned = i + 1
            if i == 0:
                self.round = FPS_CURRENT_ROUND(current)
            elif self.round != FPS_CURRENT_ROUND(current):
                self.round = MIXED_ROUND

    def __dealloc__(self):
        cdef uint32_t i
        cdef uint32_t *count
        if self.pins is not None and self.pins.lane.generation == fps_life_generation():  # else they are the parent's
            for i in range(self.n_pinned):
                count = &self.pins.counts[i * FPS_MAX_VERSIONS + self.versions[i]]
                count[0] -= 1
                if count[0] == 0:
                    fps_version_unpin(&self.pins.lane.sessions[i], self.versions[i])
        free(self.versions)

    def window(self, uint32_t part, uint64_t position, uint64_t nbytes):
        """Read-only bytes of the parameters of one shard, without a copy."""
        cdef Window window = Window.__new__(Window)
        cdef Lane lane = self.pins.lane
        cdef const fps_arena *arena
        if part >= self.n_pinned:
            raise IndexError(f"part {part} of {self.n_pinned}")
        arena = lane.group.arenas[part]
        if position > arena.layout.params_bytes or nbytes > arena.layout.params_bytes - position:
            raise IndexError(f"{lane.group.label(part)}: [{position}, {position + nbytes}) is outside of the parameters")
        window.owner, window.nbytes = self, <Py_ssize_t>nbytes
        window.start = fps_arena_version(arena, self.versions[part], 0) + position
        return window

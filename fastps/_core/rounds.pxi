# Rounds: what closed them, and versions that are kept for readers.

from libc.stdint cimport uint16_t


cdef class Decision:
    """Which gradients the last round that closed has counted."""
    cdef fps_decision decision

    @property
    def round(self):
        """Rounds that are closed with this one; 0: none is."""
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
    """The versions that this process's views keep, counted, under a session of their own in every arena of a group."""
    cdef Lane lane
    cdef uint32_t *counts  # [parts][FPS_MAX_VERSIONS]

    def __cinit__(self, Group group):
        self.lane = Lane(group)
        self.counts = <uint32_t *>calloc(<size_t>group.n_parts * FPS_MAX_VERSIONS, sizeof(uint32_t))
        if not self.counts:
            raise MemoryError("pins")

    def __dealloc__(self):
        free(self.counts)


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
            current = fps_rounds_pin(&pins.lane.sessions[i])
            self.versions[i] = FPS_CURRENT_VERSION(current)
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
                    fps_rounds_unpin(&self.pins.lane.sessions[i], self.versions[i])
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

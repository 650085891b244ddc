# What an operation on arrays has waited for, for messages.


cdef uint32_t holder_of(const fps_arena *arena, uint32_t stripe, const fps_deposit *deposit) noexcept:
    """A thread of the process that holds a lock; 0 if none does."""
    cdef uint32_t turn = fps_load32_relaxed(&arena.header.turn)
    cdef bint rounds = arena.layout.n_versions > 1
    if rounds and deposit != NULL and fps_lock_holder(&arena.trays[deposit.rank].lock):
        return fps_lock_holder(&arena.trays[deposit.rank].lock)
    if rounds and 0 < turn <= arena.layout.n_sessions:
        return fps_load32_relaxed(&arena.seats[turn - 1].pid)
    return fps_lock_holder(&arena.stripes[stripe].lock)


cdef str obstacle(const fps_arena *arena, const fps_call *call, uint32_t stripe, const fps_deposit *deposit):
    cdef uint32_t holder = holder_of(arena, stripe, deposit), i
    cdef const fps_seat *seat
    if holder == 0 and call.together:
        for i in range(arena.layout.n_sessions):
            seat = &arena.seats[i]
            if fps_load32_relaxed(&seat.elsewhere) and not fps_life_ended(&seat.life):
                return f"a push of {process_of(fps_load32_relaxed(&seat.pid))}, which is on some shards only"
    if holder == 0 and <int64_t>fps_load_relaxed(&arena.header.closed_until_ns) > fps_now_ns():
        return "a save that seeks one moment of all shards"
    return f"a lock that {process_of(holder)} holds"

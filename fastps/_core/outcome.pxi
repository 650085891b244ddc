# Exceptions of signal handlers during waits in C, and the outcome of an operation that an exception has ended.

from cpython.exc cimport PyErr_CheckSignals
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject


cdef struct Signal:
    # On the stack of the call that waits; `error` is a new reference.
    PyObject *error


cdef int ask_for_signals(void *state) noexcept with gil:
    try:
        PyErr_CheckSignals()
        return 0
    except BaseException as error:
        Py_INCREF(error)
        (<Signal *>state).error = <PyObject *>error
        return 1


cdef object error_of(Signal *signal):
    """Raises, once, the exception that ended a wait as FPS_INTERRUPTED."""
    error = <object>signal.error
    Py_DECREF(error)
    signal.error = NULL
    return error


cdef int64_t deadline_after(double seconds) noexcept nogil:
    return fps_now_ns() + <int64_t>(1e9 * fmax(0.0, seconds)) if seconds < 1e9 else FPS_NEVER


cdef fps_wait wait_for(double seconds, Signal *signal) noexcept:
    """A wait of at most `timeout` seconds that runs signal handlers; their exception is stored in `signal`."""
    cdef fps_wait wait
    memset(&wait, 0, sizeof(wait))
    signal.error = NULL
    wait.deadline_ns = deadline_after(seconds)
    wait.interrupted, wait.state = ask_for_signals, <void *>signal
    return wait


@cython.final
@cython.freelist(16)
cdef class Outcome:
    """What an operation that changes something has done so far.

    The verb that a user called makes one and passes it down. The call that applies a change records it here: a signal
    handler may raise after any call, which loses a return value but not this. The verb adds it to exceptions.

    Attributes
    ----------
    applied, partial, unknown : tuple[int, ...]
        The shards on which it is applied, on which it is applied in part, and for which that is unknown. A partial
        operation is applied on shards that have none of its arrays.
    counts : bool or None
        Of a worker's push in rounds: whether its gradients count, or will with the next operation. None: not in rounds.
    """
    cdef tuple whole  # shards that one C call has done, in the usual case all
    cdef set on, on_part, perhaps
    cdef public object counts

    @property
    def applied(self):
        return tuple(sorted({*(self.whole or ()), *(self.on or ())}))

    @property
    def partial(self):
        return tuple(sorted(self.on_part or ()))

    @property
    def unknown(self):
        return tuple(sorted(self.perhaps or ()))

    def begin(self, shards):
        """From now on it is unknown whether it is applied on these."""
        self.perhaps = {*(self.perhaps or ()), *shards}

    cdef void end_all(self, tuple shards) except *:
        """It is applied on these. Costs one store for the first call of an operation."""
        if self.whole is None and self.on is None and self.on_part is None and self.perhaps is None:
            self.whole = shards
        else:
            self.end(shards)

    def end(self, shards):
        """It is applied on these."""
        self.on = {*(self.on or ()), *(self.whole or ()), *shards}
        self.whole = None
        self.perhaps = {*(self.perhaps or ())}.difference(shards)
        self.on_part = {*(self.on_part or ())}.difference(shards)

    def stop(self, shards, applied=(), partial=()):
        """What is known of these after an error."""
        self.perhaps = {*(self.perhaps or ())}.difference(shards)
        if applied:
            self.end(applied)
        self.on_part = {*(self.on_part or ()), *partial}

    def learn(self, error, shards):
        """Takes over what an error from the node of these shards says of them, if anything."""
        told = getattr(error, "fastps_outcome", None)
        if type(told) is Outcome:
            self.stop(shards, told.applied, told.partial)
            self.begin(told.unknown)

    cdef str text(self, str what):
        parts = []
        if self.whole is not None or self.on:
            parts.append(f"applied on shards {few(self.applied)}")
        if self.on_part:
            parts.append(f"applied to a part of shards {few(self.partial)}")
        if self.perhaps:
            parts.append(f"perhaps applied on shards {few(self.unknown)}, which did not reply")
        return f"the {what} was {' and '.join(parts)}" if parts else f"nothing of the {what} was applied"

    def tell(self, error, str what="push", str more=""):
        """Adds the outcome to an exception, replacing that of an inner operation: a note with the shards on which
        `what` is applied, then `more`. A WaitTimeoutError says it in its own message; fastps errors without shards to
        report say by their class that nothing was applied."""
        cdef bint nothing = self.whole is None and not self.on and not self.on_part and not self.perhaps
        cdef bint late = type(error) is errors.WaitTimeoutError
        if (what is None or (nothing and isinstance(error, errors.FastPSError))
                or ((late or type(error) is errors.TableFullError) and (error.applied or error.partial))):
            text = more
        else:
            text = self.text(what) + (f"; {more}" if more else "")
        try:
            before = getattr(error, "fastps_note", None)
            if before is not None and before in getattr(error, "__notes__", ()):
                error.__notes__.remove(before)
            error.fastps_outcome, error.fastps_note = self, text
            if text and late:
                error.args = (f"{error}; {text}",)
            elif text:
                error.add_note(text)
        except (AttributeError, TypeError):  # the exception takes no attributes
            pass

    def __reduce__(self):
        return outcome_from, (self.applied, self.partial, self.unknown, self.counts)

    def __repr__(self):
        if self.counts is not None:
            return f"<Outcome: counts {self.counts}>"
        return f"<Outcome: applied {self.applied}, partial {self.partial}, unknown {self.unknown}>"


def outcome_from(applied, partial, unknown, counts):
    """An Outcome with these shards."""
    cdef Outcome outcome = Outcome()
    outcome.on, outcome.on_part, outcome.perhaps = set(applied), set(partial), set(unknown)
    outcome.counts = counts
    return outcome


cdef str few(tuple shards):
    return str(list(shards)) if len(shards) <= 16 else f"[{', '.join(map(str, shards[:16]))}, ...] ({len(shards)} of them)"

"""A signal whose handler raises, at a random moment of every operation of every consistency: the exception says what
became of the operation, and what it says is true.

FASTPS_TEST_SIGNALS is how many signals each case gets.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading
import time

import numpy as np
import pytest

import fastps
from fastps._core import shards_of
from fastps.transport.arenas import open_arena
from tests.support.extent import repeat, samples, short_or_long

pytestmark = pytest.mark.usefixtures("ray_local")

SIGNALS = int(os.environ.get("FASTPS_TEST_SIGNALS") or short_or_long(20, 100))
OURS = os.path.dirname(fastps.__file__) + os.sep
SHARDS = (0, 1)


class Interrupt(BaseException):
    """What the handler raises: nothing that a library would catch."""


@pytest.fixture(autouse=True)
def handler():
    def interrupt(*_):
        raise Interrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def no_callbacks_of_the_collector():
    """Python only prints what a handler raises within such a callback, of JAX or of Hypothesis, and goes on: the tests
    would wait for a signal that has come."""
    callbacks = gc.callbacks[:]
    gc.callbacks.clear()
    yield
    gc.callbacks[:] = callbacks


@pytest.fixture(scope="module")
def server_of(ray_local):
    """A server of two shards for all tests that ask for the same: each begins with what the one before has left."""
    with contextlib.ExitStack() as stack:
        servers = {}

        def server_of(params, **options):
            key = (str(np.shape(params)), repr(options))
            if key not in servers:
                servers[key] = stack.enter_context(fastps.ParameterServer(params, num_shards=2, **options))
            return servers[key]

        yield server_of
        servers.clear()


@fastps.rule(slots={"m": 0.0})
def adding(p, g, m, *, lr=1.0):
    return p + lr * g, m


def crossed(error):
    """Whether an exception has left a frame of fastps."""
    trace = error.__traceback__
    while trace is not None and not trace.tb_frame.f_code.co_filename.startswith(OURS):
        trace = trace.tb_next
    return trace is not None


def interrupted(call, delay):
    """Calls again and again until the signal: how often it returned, and what the exception says of the last call."""
    returned = 0
    try:
        signal.setitimer(signal.ITIMER_REAL, delay)
        while True:
            call()  # a function of Python: no handler runs between its end and the next line
            returned += 1
    except Interrupt as error:
        return returned, fastps.outcome_of(error), error


def interrupt_often(case, rng):
    """The ledger is held against the server after each signal."""
    took = []
    for _ in range(20):
        start = time.perf_counter()
        case.call()
        took.append(time.perf_counter() - start)
        case.settle(1, (), False)
    inside = 0
    for delay in rng.uniform(1e-5, 2 * sorted(took)[10] + 5e-5, SIGNALS):
        returned, outcome, error = interrupted(case.call, delay)
        inside += crossed(error)
        if outcome is None:
            case.settle(returned, (), False)  # nothing was done
            continue
        assert error.__notes__, "an outcome without words"
        assert outcome.unknown == outcome.partial == ()  # all of it is on this node, and ends where it has begun
        case.settle(returned, outcome.applied, bool(outcome.counts))
    assert inside > 0


class Traffic:
    """A thread that does something that changes nothing, so that operations wait."""

    def __init__(self, call):
        self._call, self._stop = call, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        while not self._stop.is_set():
            self._call()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


class OnArrays:
    """An operation on the parameters or a slot, and what they hold by what was said of it."""

    def __init__(self, ps, verb, n):
        self.ps, self.ones, self.out, self.trial = ps, np.ones(n), np.empty(n), 0
        self.params, self.slot, self.lr = ps.pull(), ps.slots("m"), list(self.rates())
        starts = [plan.runs[0].start for plan in ps.attachment.spec.plans]
        self.parts = [slice(*bounds) for bounds in zip(starts, [*starts[1:], n], strict=True)]
        self.verb, self.value = verb, np.zeros(n)
        self.call = {
            "push": lambda: ps.push(self.ones),
            "push_pull": lambda: ps.push_pull(self.ones, out=self.out),
            "set": lambda: ps.set(slots={"m": self.value}),
            "configure": lambda: ps.configure(lr=float(self.value[0])),
            "pull": lambda: ps.pull(out=self.out),
        }[verb]

    def settle(self, returned, applied, counts):
        for shard, part in enumerate(self.parts):
            times = returned + (shard in applied)
            if self.verb in ("push", "push_pull"):
                self.params[part] += times
            elif self.verb == "set" and times:
                self.slot[part] = self.value[part]
            elif self.verb == "configure" and times:
                self.lr[shard] = self.value[0]
        assert (self.ps.pull(out=self.out) == self.params).all()
        if self.verb == "set":
            assert (self.ps.slots("m") == self.slot).all()
        assert self.rates() == self.lr
        self.trial += 1
        self.value = np.full_like(self.value, self.trial)

    def rates(self):
        """The hyper-parameter that each shard has."""
        return [arena.hyper(0, 1)[0] for arena in self.ps.attachment.session.shm.arenas.values()]


@samples(verb=["push", "push_pull", "set", "configure", "pull"], n=[10, 100_000], traffic=[False, True])
def test_async(verb, n, traffic, rng, server_of):
    nothing = np.zeros(n)
    ps = server_of(nothing, rule=adding)
    ps.configure(lr=1.0)
    with Traffic((lambda: ps.push(nothing)) if traffic else (lambda: time.sleep(0.01))):
        interrupt_often(OnArrays(ps, verb, n), rng)
    assert ps.stats().total["sessions"] <= 12  # what was interrupted keeps none


class OfAWorker:
    """A step of a worker under SSP: its push, and its clock."""

    def __init__(self, w, verb):
        self.w, self.pushes, self.ones = w, verb != "end_step", np.ones(10)
        self.value, self.clock = w.pull()[0], w.clock
        self.call = {
            "push": lambda: w.push(self.ones),
            "push_pull": lambda: w.push_pull(self.ones),
            "end_step": w.end_step,
        }[verb]

    def settle(self, returned, applied, counts):
        assert applied in ((), SHARDS)
        times = returned + bool(applied)
        self.value += self.pushes * times
        assert (self.w.pull() == self.value).all()
        if self.pushes:  # what is applied ends its step, with the next operation at the latest
            self.clock += times
        else:  # the last one's step has ended, or not
            self.clock += returned + (self.w.clock == self.clock + returned + 1)
        assert self.w.clock == self.clock


@pytest.mark.parametrize("verb", ["push", "push_pull", "end_step"])
def test_ssp(verb, rng, server_of):
    with server_of(np.zeros(10), consistency=fastps.SSP(10**9)).worker() as w:
        interrupt_often(OfAWorker(w, verb), rng)
        assert w.returns == 0


class OfARound:
    """A gradient of a worker in rounds: it counts once, or not at all."""

    def __init__(self, w, verb):
        self.w, self.ones, self.value = w, np.ones(10), w.pull()[0]
        self.call = {"push": lambda: w.push(self.ones), "push_pull": lambda: w.push_pull(self.ones)}[verb]

    def settle(self, returned, applied, counts):
        self.value += returned + counts
        assert (self.w.pull() == self.value).all()


@samples(verb=["push", "push_pull"], workers=[1, 2])
def test_bsp(verb, workers, rng, server_of):
    ps = server_of(np.zeros(10), consistency=fastps.BSP(workers=workers, reduce="sum"))
    with ps.worker(0) as w:
        other = ps.worker(1) if workers == 2 else None
        with Traffic((lambda: other.push(np.zeros(10))) if other is not None else (lambda: time.sleep(0.01))):
            interrupt_often(OfARound(w, verb), rng)
            w.close()  # the other waits for nobody then
        if other is not None:
            other.close()


class Kept:
    """Gradients that a worker keeps for the end of its step: all of them count, or none does."""

    def __init__(self, w):
        self.w, self.ones, self.value, self.kept, self.trial = w, np.ones(10), w.pull()[0], 0, 0

    def call(self):
        self.w.push(self.ones, step=False)

    def settle(self, returned, applied, counts):
        self.trial += 1
        self.kept += returned + counts
        if self.w._number == 0:
            self.kept = 0  # "nothing of this step counts"
        assert self.w._number == self.kept
        if self.trial % 5 == 0:
            self.w.end_step()
            self.value += self.kept
            self.kept = 0
            assert (self.w.pull() == self.value).all()


def test_bsp_with_gradients_that_are_kept_for_the_end_of_a_step(rng, server_of):
    with server_of(np.zeros(10), consistency=fastps.BSP(workers=1, reduce="sum")).worker(0) as w:
        interrupt_often(Kept(w), rng)


@samples(verb=["push", "push_pull"], steps=[1, 3])
def test_local_sgd(verb, steps, rng, server_of):
    with server_of(np.zeros(10), consistency=fastps.LocalSGD(steps)).worker() as w:
        interrupt_often(OfARound(w, verb), rng)


class OnRows:
    """An operation on some rows of a table, which begin with zeros."""

    def __init__(self, table, verb):
        self.table, self.verb, self.trial = table, verb, 0
        self.keys, self.ones = np.arange(64), np.ones((64, 4), np.float32)
        self.shards = shards_of(self.keys.astype(np.uint64), 2)
        self.rows, self.values = np.zeros((64, 4), np.float32), np.zeros((64, 4), np.float32)
        self.lr = 1.0
        self.call = {
            "push": lambda: table.push(self.keys, self.ones),
            "push_pull": lambda: table.push_pull(self.keys, self.ones),
            "set": lambda: table.set(self.keys, self.values),
            "evict": lambda: table.evict(self.keys),
            "pull": lambda: table.pull(self.keys),
        }[verb]

    def settle(self, returned, applied, counts):
        times = (returned + np.isin(self.shards, applied))[:, np.newaxis]
        self.trial += 1
        if self.verb in ("push", "push_pull"):
            self.rows += times
        elif self.verb == "set":
            self.rows = np.where(times > 0, self.values, self.rows)
            self.values = np.full_like(self.values, self.trial)
        elif self.verb == "evict":
            found = self.table.contains(self.keys)
            assert (found == (times[:, 0] == 0)).all()
            self.table.pull(self.keys)  # they are created again
        assert (self.table.peek(self.keys) == self.rows).all()


@samples(verb=["push", "push_pull", "set", "evict", "pull"], traffic=[True, False])
def test_tables(verb, traffic, rng, server_of):
    table = server_of(fastps.Table(4, rule=fastps.SGD(-1.0), init=fastps.init.Constant(0.0))).table
    keys, nothing = np.arange(64, 128), np.zeros((64, 4), np.float32)
    with Traffic((lambda: table.push(keys, nothing)) if traffic else (lambda: time.sleep(0.01))):
        case = OnRows(table, verb)
        table.evict(case.keys)
        table.pull(case.keys)
        interrupt_often(case, rng)


def test_attaching_closes_each_descriptor_once(rng):
    """A descriptor that is closed twice may be another file's, which was opened in between."""
    params = np.zeros(1 << 23)
    with fastps.ParameterServer(params) as ps:
        spec = ps.attachment.spec
        before = set(os.listdir("/proc/self/fd"))
        attached = []
        start = time.perf_counter()
        open_arena(spec, 0)
        longest = 3 * (time.perf_counter() - start)
        for _ in repeat(SIGNALS, lambda: attached):
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-5, longest))
                while True:
                    open_arena(spec, 0)
                    attached.append(None)
            except Interrupt:
                pass
        assert set(os.listdir("/proc/self/fd")) == before

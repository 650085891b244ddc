"""Threads of one process against each other: they push, pull, set, configure, time out, fork, and leave garbage in
cycles, while other processes die; a ledger of what was said to be applied agrees with the parameters to the last bit.

FASTPS_TEST_SECONDS is how long each case takes at least, FASTPS_TEST_SWITCH the interval at which threads switch.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import threading
import time

import numpy as np
import pytest

import fastps
from fastps._core import shards_of
from tests.support.extent import short_or_long
from tests.support.waiting import GUARD_SECONDS

pytestmark = [pytest.mark.usefixtures("ray_local"), pytest.mark.timeout(600)]

SECONDS = float(os.environ.get("FASTPS_TEST_SECONDS") or short_or_long(1, 4))
SWITCH = float(os.environ.get("FASTPS_TEST_SWITCH", "1e-5"))
THREADS, N = 8, 60_000
KINDS = ["push"] * 4 + ["pull"] * 4 + ["push_pull", "set", "slots", "configure", "view"]
KINDS_OF_TABLES = ["push"] * 4 + ["pull"] * 4 + ["set", "evict", "scan", "configure"]
LATE = (0.0, 0.0002, 0.002, 30.0)  # most operations have no time to wait


@fastps.rule(slots={"m": 0.0})
def adding(p, g, m, *, lr=1.0):
    return p + g, m


@pytest.fixture(autouse=True)
def many_switches():
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH)
    yield
    sys.setswitchinterval(before)


def run_threads(work, n=THREADS):
    """`work(number, random numbers, until)` in each; raises what one of them has raised."""
    errors, until = [], time.monotonic() + SECONDS

    def run(number):
        try:
            work(number, random.Random(number), until)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(n)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(0.02)
        gc.collect()  # what they leave in cycles ends on this thread, in the middle of their operations
    if errors:
        raise errors[0]


def push_surely(push, *arguments, dice):
    """However often it is late, it is applied once."""
    resume = None
    while True:
        try:
            push(*arguments, timeout=dice.choice(LATE), resume=resume)
            return
        except fastps.WaitTimeoutError as error:
            outcome = fastps.outcome_of(error)
            if error.resume is None and outcome is not None and outcome.applied:
                assert outcome.applied == (0, 1)  # of a worker whose step could not be ended in time
                return
            resume = error.resume or resume


def shrug(call):
    """An operation that may be late: then it has changed nothing that matters."""
    try:
        return call()
    except fastps.WaitTimeoutError:
        return None


def die_while(pushing, dice):
    """A child that pushes nothing is killed in the middle of it; one in four ends by itself, having pulled."""
    quiet = dice.random() < 0.25
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(GUARD_SECONDS)  # a child that hangs dies, and is found out by its status
        try:
            pushing()
            while not quiet:
                pushing()
        finally:
            os._exit(0)
    if not quiet:
        time.sleep(dice.uniform(0.001, 0.02))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in ((0,) if quiet else (0, -signal.SIGKILL))


def leave_garbage(thing):
    """A cycle that reaches it."""
    cycle = [thing]
    cycle.append(cycle)


def uniform(shards):
    """Whether every shard holds one value: it was read, or left, between two pushes."""
    return all((part == part[0]).all() for part in shards)


def test_async_arrays():
    zeros, ones = np.zeros(N), np.ones(N)
    pushed, kinds, every = [0] * THREADS, set(), {*KINDS, "die"}
    with fastps.ParameterServer(zeros, rule=adding, num_shards=2, max_sessions=256) as ps:

        def work(number, dice, until):
            out, mine = np.empty(N), np.full(N, float(number + 1))
            while time.monotonic() < until or kinds != every:
                kind = dice.choice(KINDS + ["die"] * (number == 0))
                kinds.add(kind)
                if kind == "push":
                    push_surely(ps.push, mine, dice=dice)
                    pushed[number] += 1
                elif kind == "push_pull":
                    ps.push_pull(mine, out=out)
                    pushed[number] += 1
                elif kind == "pull":
                    if shrug(lambda: ps.pull(out=out, timeout=dice.choice(LATE))) is not None:
                        assert uniform(np.split(out, 2))
                elif kind == "set":
                    shrug(lambda: ps.set(slots={"m": mine}, timeout=dice.choice(LATE)))
                elif kind == "slots":
                    found = shrug(lambda: ps.slots("m", timeout=dice.choice(LATE)))
                    assert found is None or set(np.unique(found)) <= set(range(THREADS + 1))
                elif kind == "configure":
                    shrug(lambda: ps.configure(lr=float(number), timeout=dice.choice(LATE)))
                elif kind == "view":
                    leave_garbage(ps.view())
                else:
                    die_while(lambda: ps.push(zeros), dice)

        run_threads(work)
        assert (ps.pull() == sum((number + 1) * times for number, times in enumerate(pushed)) * ones).all()
        assert uniform(np.split(ps.slots("m"), 2))


def test_workers_of_ssp():
    zeros, pushed = np.zeros(N), [0] * THREADS
    policy = fastps.SSP(2)
    with fastps.ParameterServer(zeros, rule=adding, num_shards=2, consistency=policy, max_sessions=256) as ps:

        def work(number, dice, until):
            mine, out = np.full(N, float(number + 1)), np.empty(N)
            with ps.worker() as w:
                while time.monotonic() < until:
                    if dice.random() < 0.7:
                        push_surely(w.push, mine, dice=dice)
                        pushed[number] += 1
                    elif shrug(lambda: w.pull(out=out, timeout=dice.choice(LATE))) is not None:
                        assert uniform(np.split(out, 2))
                        assert w.reply.staleness <= 2
                    if dice.random() < 0.02:
                        leave_garbage(ps.view())

        run_threads(work)
        assert (ps.pull() == sum((number + 1) * times for number, times in enumerate(pushed))).all()


def test_workers_of_bsp():
    zeros, counted = np.zeros(N), [0] * THREADS
    policy = fastps.BSP(reduce="sum")
    with fastps.ParameterServer(zeros, rule=adding, num_shards=2, consistency=policy, max_sessions=256) as ps:

        def work(number, dice, until):
            mine, out, kept = np.full(N, float(number + 1)), np.empty(N), []
            with ps.worker() as w:
                while time.monotonic() < until:
                    try:
                        if dice.random() < 0.7:
                            counted[number] += w.push(mine, timeout=dice.choice(LATE)).counted
                        elif dice.random() < 0.5:
                            w.pull(out=out, timeout=dice.choice(LATE))
                            assert (out == out[0]).all()
                        else:
                            view = w.view(timeout=dice.choice(LATE))
                            kept = [*kept[-1:], (view, float(view.pieces[0].array[0]))]
                            for old, value in kept:  # it does not change
                                assert all((piece.array == value).all() for piece in old.pieces)
                            leave_garbage(view)
                    except fastps.WaitTimeoutError as error:
                        outcome = fastps.outcome_of(error)
                        counted[number] += outcome is not None and bool(outcome.counts)
                while w._owes_end:  # what is in place is given by the next operation
                    shrug(lambda: w.pull(out=out, timeout=GUARD_SECONDS))

        run_threads(work)
        assert (ps.pull() == sum((number + 1) * times for number, times in enumerate(counted))).all()


def test_tables():
    dim, n = 4, 512
    keys, pushed = np.arange(n), [0] * THREADS
    of_all, of_set, gone = keys[: n // 2], keys[n // 2 :], keys + n
    table = fastps.Table(dim, rule=fastps.SGD(-1.0), init=fastps.init.Constant(0.0))
    with fastps.ParameterServer(table, num_shards=2, max_sessions=256) as ps:
        t = ps.table
        t.pull(keys)

        def work(number, dice, until):
            mine = np.full((len(of_all), dim), float(number + 1), np.float32)
            nothing = np.zeros((len(of_all), dim), np.float32)
            while time.monotonic() < until:
                kind = dice.choice(KINDS_OF_TABLES + ["die"] * (number == 0))
                if kind == "push":
                    push_surely(t.push, of_all, mine, dice=dice)
                    pushed[number] += 1
                elif kind == "pull":
                    rows = shrug(lambda: t.pull(keys, timeout=dice.choice(LATE)))
                    assert rows is None or (rows == rows[:, :1]).all()
                elif kind == "set":
                    shrug(lambda: t.set(of_set, mine, timeout=dice.choice(LATE)))
                elif kind == "evict":
                    shrug(lambda: t.push(gone, np.ones((n, dim), np.float32)))
                    shrug(lambda: t.evict(gone, timeout=dice.choice(LATE)))
                elif kind == "scan":
                    for _, rows in t.items(97):  # no dict
                        assert (rows == rows[:, :1]).all()
                elif kind == "configure":
                    shrug(lambda: t.configure(lr=-1.0, timeout=dice.choice(LATE)))
                else:
                    die_while(lambda: t.push(of_all, nothing), dice)

        run_threads(work)
        total = sum((number + 1) * times for number, times in enumerate(pushed))
        assert (t.pull(of_all) == np.float32(total)).all()
        t.evict(gone)
        assert len(t) == n
        assert {*shards_of(keys.astype(np.uint64), 2)} == {0, 1}

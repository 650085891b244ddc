"""Asynchronous operations beside a computation: without the GIL, with copies or buffers that are handed over."""

from __future__ import annotations

import concurrent.futures
import gc
import os
import pickle
import sys
import threading
import time
import weakref

import ml_dtypes
import numpy as np
import pytest

import fastps
from fastps import BSP, DCASGD, Adam, OptionError, QueueFullError, Table, WaitTimeoutError
from fastps._core import job_if_fits
from fastps.client import future as futures
from tests.support.local_server import Holder
from tests.support.waiting import GUARD_SECONDS, wait_until

MODEL = {"a": np.zeros(300, np.float32), "b": np.zeros((40, 5), np.float64)}


def ones(value=1.0, names=("a", "b")):
    return {name: np.full_like(MODEL[name], value) for name in names}


@pytest.fixture(scope="module")
def server(ray_local):
    with fastps.ParameterServer(MODEL, num_shards=2) as server:
        yield server


@pytest.fixture
def ps(server):
    """A handle of its own, and so a queue, on a server that all tests share."""
    with pickle.loads(pickle.dumps(server)) as ps:
        yield ps


@pytest.fixture
def hold(ps):
    """Holds up what is submitted until it is set."""
    event = threading.Event()
    ps.attachment.session.calls.submit("push_async", lambda: event.wait(GUARD_SECONDS))
    yield event
    event.set()


@pytest.mark.parametrize("what", ["push", "partial", "pull"])
def test_an_operation_runs_while_the_program_keeps_the_gil(ps, what):
    """In C: this thread neither waits nor lets another one have the GIL."""
    ps.push_async(ones()).result(GUARD_SECONDS)  # the thread is there
    stats = ps.stats().total
    counter = "pulls" if what == "pull" else "pushes"
    out = {name: np.empty_like(array) for name, array in MODEL.items()}
    grads, interval = ones() if what == "push" else ones(names=["a"]), sys.getswitchinterval()
    arenas = list(ps.attachment.session.shm.arenas.values())
    time.sleep(0.3)  # it sleeps
    sys.setswitchinterval(1e6)
    try:
        future = ps.pull_async(out=out) if what == "pull" else ps.push_async(grads, partial=what == "partial")
        deadline = time.monotonic() + GUARD_SECONDS
        while sum(arena.counters()[counter] for arena in arenas) == stats[counter] and time.monotonic() < deadline:
            pass
        assert sum(arena.counters()[counter] for arena in arenas) > stats[counter]
    finally:
        sys.setswitchinterval(interval)
    future.result(GUARD_SECONDS)


def test_gradients_may_change_as_soon_as_a_push_was_started(ps, hold):
    before = ps.pull()
    grads, listed, half = ones(), [np.ones(300, np.float32), np.ones((40, 5))], ones()
    half["a"] = half["a"].astype(ml_dtypes.bfloat16)
    pushes = [
        ps.push_async(grads), ps.push_async({"b": grads["b"]}, partial=True), ps.push_async(listed),
        ps.push_async(half), ps.push_pull_async(grads),
    ]  # fmt: skip
    for arrays in (grads.values(), listed, half.values()):
        for array in arrays:
            array[...] = 77
    hold.set()
    for push in pushes:
        push.result(GUARD_SECONDS)
    assert (ps.pull()["a"] - before["a"] == 4).all()
    assert (ps.pull()["b"] - before["b"] == 5).all()
    assert (pushes[-1].result()["b"] - before["b"] == 5).all()


def test_without_a_copy_they_are_read_when_it_runs(ps, hold):
    before, grads = ps.pull()["a"], ones()
    pushes = [ps.push_async(grads, copy=False), ps.push_pull_async(grads, copy=False)]
    grads["a"][...] = 5
    hold.set()
    assert (pushes[1].result(GUARD_SECONDS)["a"] - before == 10).all()
    for call in (ps.push_async, ps.push_pull_async):
        with pytest.raises(OptionError, match="_async copy: expected True or False"):
            call(grads, copy="yes")


def test_keys_and_rows_of_tables_may_change_too(ray_local):
    with fastps.ParameterServer(Table(2, init=0.0)) as ps:
        event, table = threading.Event(), ps.table
        ps.attachment.session.calls.submit("push_async", lambda: event.wait(GUARD_SECONDS))
        keys, rows = np.array([1, 2]), np.ones((2, 2), np.float32)
        table.push_async(keys, rows)
        both, pulled = table.push_pull_async(keys, rows), table.pull_async(keys)
        peeked = table.peek_async(keys)
        last = table.push_async(keys, rows, copy=False)
        keys[:] = rows[:] = 7
        event.set()
        last.result(GUARD_SECONDS)
        assert both.result().tolist() == pulled.result().tolist() == peeked.result().tolist() == [[2, 2], [2, 2]]
        assert table.peek([1, 2, 7]).tolist() == [[2, 2], [2, 2], [14, 14]]


def test_a_buffer_is_handed_over_and_lent_again_when_its_operation_has_ended(ps, hold):
    before = ps.pull()
    first, second = ps.grad_buffer(), ps.grad_buffer()
    assert all(array.ctypes.data % 64 == 0 and not array.any() for array in first.arrays.values())
    for buffer, value in ((first, 1), (second, 10)):
        for array in buffer.arrays.values():
            array[...] = value
    pushed, pulled = ps.push_async(first), ps.push_pull_async(second)
    for call in (ps.push_async, ps.push_pull_async):
        with pytest.raises(OptionError, match=r"was handed over before .* ask for the next one by grad_buffer\(\)"):
            call(first)
    with pytest.raises(WaitTimeoutError, match=r"grad_buffer: push_async number \d+, which has it, did not end"):
        ps.grad_buffer(timeout=0.01)
    hold.set()
    assert ps.grad_buffer() is first
    assert pushed.done()
    assert (pulled.result(GUARD_SECONDS)["b"] - before["b"] == 11).all()
    assert (first.arrays["a"] == 1).all()
    ps.push_async(first).result(GUARD_SECONDS)
    assert ps.grad_buffer() is second
    assert (ps.pull()["a"] - before["a"] == 12).all()


def test_keys_of_every_kind_are_those_of_the_start(ray_local):
    with fastps.ParameterServer({"n": Table(1, init=0.0), "b": Table(1, init=0.0, keys="bytes")}) as ps:
        event = threading.Event()
        ps.attachment.session.calls.submit("push_async", lambda: event.wait(GUARD_SECONDS))
        rows, some, listed = np.ones((2, 1), np.float32), {1, 2}, [np.int64(1), 2]
        pushes = [ps["n"].push_async(keys, rows) for keys in ([1, 2], (1, 2), some, listed, range(1, 3))]
        some.clear()
        listed[:] = [7, 7]
        names = ["a", "bb"]
        pushes.append(ps["b"].push_async(names, rows))
        names[:] = ["c", "d"]
        event.set()
        for push in pushes:
            push.result(GUARD_SECONDS)
        assert ps["n"].peek([1, 2]).tolist() == [[5.0], [5.0]]
        assert ps["b"].peek(["a", "bb"]).tolist() == [[1.0], [1.0]]
        with pytest.raises(fastps.FastPSError):
            ps["n"].push_async([1], None).result(GUARD_SECONDS)


def test_memory_that_is_used_again_is_large_enough(ray_local):
    model = {"w": np.zeros(512, np.float32), "b": np.zeros(16, np.float32)}
    with fastps.ParameterServer(model) as ps:
        group = ps.attachment.arrays.direct if ps.attachment.arrays else ps.attachment.attach().direct
        one = {"w": np.ones(512, np.float32)}
        ps.push_async(one, partial=True).result(GUARD_SECONDS)
        both = job_if_fits(group, True, {**one, "b": np.ones(16, np.float32)}, False, None, None, True)
        assert both.nbytes >= 2048 + 64 + 64


def test_a_cancel_that_was_interrupted_is_one(ps, hold):
    before = ps.versions
    future = ps.push_async(ones())
    assert future.job.cancel()
    hold.set()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(GUARD_SECONDS)
    assert future.cancelled()
    assert ps.versions == before


def test_a_buffer_that_nobody_knows_who_has_is_lent_no_more(ps):
    first = ps.grad_buffer()
    with pytest.raises(ZeroDivisionError):
        first.hand_over(lambda arrays: 1 / 0)
    second = ps.grad_buffer()
    third = ps.grad_buffer()
    assert len({id(first), id(second), id(third)}) == 3
    assert ps.grad_buffer() is second


def test_each_thread_and_a_forked_child_have_buffers_of_their_own(ps, hold):
    mine = [ps.grad_buffer() for _ in range(2)]
    theirs = []
    thread = threading.Thread(target=lambda: theirs.append(ps.grad_buffer(timeout=0)))
    for buffer in mine:
        ps.push_async(buffer)
    thread.start()
    thread.join()
    assert theirs[0] not in mine
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if ps.grad_buffer(timeout=0) not in mine else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0


def test_what_a_rule_is_passed_beside_a_buffer_is_copied_too(ray_local):
    with (
        fastps.ParameterServer(np.zeros(5), rule=DCASGD(0.1)) as ps,
        fastps.ParameterServer(np.zeros(5), rule=DCASGD(0.1)) as other,
    ):
        event = threading.Event()
        ps.attachment.session.calls.submit("push_async", lambda: event.wait(GUARD_SECONDS))
        buffer, pulled = ps.grad_buffer(), np.ones(5)
        buffer.arrays[:] = 2
        push = ps.push_async(buffer, pulled=pulled)
        other.push(np.full(5, 2.0), pulled=pulled)
        pulled[:] = 9
        event.set()
        push.result(GUARD_SECONDS)
        assert ps.pull().tobytes() == other.pull().tobytes()


def test_a_callback_that_submits_to_a_full_queue_does_not_wait_for_itself(ps, hold, monkeypatch):
    monkeypatch.setattr(futures, "MOST", 2)
    more = []
    future = ps.push_async(ones())
    future.add_done_callback(lambda _: more.extend(ps.push_async(ones(), timeout=GUARD_SECONDS) for _ in range(4)))
    hold.set()
    future.result(GUARD_SECONDS)
    wait_until(lambda: len(more) == 4, GUARD_SECONDS, "the callback")
    for one in more:
        one.result(GUARD_SECONDS)


def test_a_buffer_has_what_is_trained(ray_local):
    with fastps.ParameterServer({"w": np.zeros(3), "n": np.array([3], np.int64)}) as ps:
        buffer = ps.grad_buffer()
        assert list(buffer.arrays) == ["w"]
        buffer.arrays["w"][:] = 1
        ps.push_async(buffer).result(GUARD_SECONDS)
        assert ps.pull()["w"].tolist() == [1.0] * 3
    with fastps.ParameterServer(np.zeros(3)) as ps:
        ps.grad_buffer().arrays[:] = 1


def test_a_buffer_whose_operation_was_refused_can_be_used_again(ps):
    buffer = ps.grad_buffer()
    with pytest.raises(OptionError, match="timeout"):
        ps.push_async(buffer, timeout=-1)
    ps.push_async(buffer).result(GUARD_SECONDS)


def test_operations_are_cancelled_or_run_to_their_end(ps, hold):
    before = ps.versions
    first, second = ps.push_async(ones()), ps.push_async(ones())
    assert not first.running()
    assert "queued" in repr(first)
    assert first.cancel()
    assert first.cancel()
    assert first.cancelled()
    hold.set()
    second.result(GUARD_SECONDS)
    assert not second.cancel()
    assert ps.versions == tuple(version + 1 for version in before)


def test_a_push_that_is_late_says_so_and_can_be_finished(ray_local):
    with fastps.ParameterServer(np.zeros(50, np.float32)) as ps:
        (address,) = ps.attachment.spec.addresses
        ps.push_async(np.zeros(50, np.float32)).result(GUARD_SECONDS)
        with Holder(address.pid, address.fd):
            late, behind = (ps.push_async(np.ones(50, np.float32), timeout=0.05) for _ in range(2))
            with pytest.raises(WaitTimeoutError, match=r"waited 0.05 s for a lock") as raised:
                late.result(GUARD_SECONDS)
            with pytest.raises(WaitTimeoutError):
                behind.result(GUARD_SECONDS)
        ps.push(np.ones(50, np.float32), resume=raised.value.resume)
        assert ps.pull().tolist() == [1.0] * 50


def test_a_queue_that_is_full_waits_for_room_and_then_says_so(ps, hold, monkeypatch):
    monkeypatch.setattr(futures, "MOST", 3)
    begun = [ps.push_async(ones()) for _ in range(2)]
    with pytest.raises(QueueFullError, match="push_async: 3 operations are under way"):
        ps.push_async(ones(), timeout=0.05)
    monkeypatch.setattr(futures, "MOST", 100)
    monkeypatch.setattr(futures, "MOST_BYTES", 4000)
    with pytest.raises(QueueFullError, match=r"with [\d,]+ bytes of copies"):
        ps.push_async(ones(), timeout=0.05)
    threading.Timer(0.2, hold.set).start()
    begun.append(ps.push_async(ones()))
    for future in begun:
        future.result(GUARD_SECONDS)


def test_what_was_submitted_before_a_server_was_closed_is_told(ray_local):
    ps = fastps.ParameterServer(np.zeros(10, np.float32))
    event = threading.Event()
    ps.attachment.session.calls.submit("push_async", lambda: event.wait(GUARD_SECONDS))
    push, pull = ps.push_async(np.ones(10, np.float32)), ps.pull_async()
    ps.close()
    event.set()
    for future in (push, pull):
        with pytest.raises(fastps.ClosedError):
            future.result(GUARD_SECONDS)


def test_a_future_keeps_neither_arrays_nor_sessions(ps):
    grads = np.ones(300, np.float32)
    alive = weakref.ref(grads)
    future = ps.push_async({"a": grads}, partial=True, copy=False)
    future.result(GUARD_SECONDS)
    del grads
    ps.pull_async().result(GUARD_SECONDS)  # the thread has let go of the one before
    gc.collect()
    assert alive() is None
    sessions = ps.stats().total["sessions"]
    for _ in range(200):
        ps.push_async(ones())
    ps.flush(timeout=GUARD_SECONDS)
    assert ps.stats().total["sessions"] == sessions


def test_a_forked_child_has_sessions_and_buffers_of_its_own(ps):
    before = ps.pull()["a"][0]
    ps.push_async(ps.grad_buffer()).result(GUARD_SECONDS)
    ps.push_async(ones()).result(GUARD_SECONDS)
    child = os.fork()
    if child == 0:
        try:
            ps.push_async(ones()).result(GUARD_SECONDS)
            ps.push_async(ps.grad_buffer()).result(GUARD_SECONDS)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    ps.push_async(ones()).result(GUARD_SECONDS)
    assert ps.pull()["a"][0] == before + 3


def test_rules_and_servers_that_need_a_closer_look_do_the_same(ray_local):
    for options, pulled in (
        ({"rule": Adam(0.1), "clip_norm": 1.0}, {}),
        ({"rule": DCASGD(0.1)}, {"pulled": np.ones(10)}),
    ):
        with (
            fastps.ParameterServer(np.zeros(10), **options) as ps,
            fastps.ParameterServer(np.zeros(10), **options) as other,
        ):
            grads = np.arange(10.0)
            ps.push(grads, **pulled)
            future = other.push_async(grads, **pulled)
            grads[:] = 0
            future.result(GUARD_SECONDS)
            assert ps.pull().tobytes() == other.pull().tobytes()
    with fastps.ParameterServer(np.zeros(10), consistency=BSP()) as ps:
        assert ps.pull_async().result(GUARD_SECONDS).tolist() == [0.0] * 10
        with pytest.raises(fastps.WorkerRequiredError):
            ps.push_async(np.ones(10))

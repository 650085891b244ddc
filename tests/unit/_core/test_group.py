"""Operations on arenas of this process: what a group checks, and what it keeps whole."""

import gc
import os
import signal
import struct
import sys
import threading
import time

import numpy as np
import pytest

import fastps
from fastps._core import Arena, Decision, Group, Lane, Member, Outcome
from fastps.errors import ArenaFormatError, ClosedError, SessionsExhaustedError, WaitTimeoutError
from fastps.kernels.cache import image_of
from fastps.kernels.loader import addresses_of
from fastps.testing.local import LocalServer as Served
from fastps.transport.contract import Operation
from tests.support.extent import combinations
from tests.support.local_server import TURN_AT, Holder, LocalServer, give_turn_to
from tests.support.waiting import GUARD_SECONDS

RULES = [fastps.Add(), fastps.SGD(0.1, weight_decay=0.01)]
KIB = 1024


def pulled(server, n, dtype=np.float64):
    out = np.full(n, np.nan, dtype)
    assert server.pull_into(out)
    return out


@combinations(
    rule=RULES, dtype=["float32", "float64"], num_shards=[1, 2, 3, 7], n=[7, 1000, 70_001], isolated=[True, False]
)
def test_a_push_applies_the_rule_to_every_element_once(rule, dtype, num_shards, n, isolated, rng):
    expected = rng.normal(size=n).astype(dtype)
    server = LocalServer.create(expected, rule=rule, num_shards=num_shards, isolated=isolated)
    for _ in range(2):
        grad = rng.normal(size=n).astype(dtype)
        assert server.push_from(grad)
        expected = rule.family.function(expected, grad, **rule.hyper)
        assert np.array_equal(pulled(server, n, dtype), expected)
    grad, out = rng.normal(size=n).astype(dtype), np.empty(n, dtype)
    assert server.push_pull(grad, out)
    expected = rule.family.function(expected, grad, **rule.hyper)  # arithmetic alone: on arrays, too
    assert np.array_equal(out, expected)
    assert np.array_equal(pulled(server, n, dtype), expected)


@pytest.mark.parametrize("stripe_bytes", [4 * KIB, 64 * KIB])
def test_stripes_of_any_size_give_the_same_result(stripe_bytes, rng):
    n = 40_001
    server = LocalServer.create(np.zeros(n), num_shards=3, stripe_bytes=stripe_bytes)
    grad = rng.normal(size=n)
    server.push_from(grad)
    assert np.array_equal(pulled(server, n), grad)


def test_a_pull_past_the_caches_is_the_same_pull(rng):
    values = rng.normal(size=(13 << 20) // 4 + 3).astype(np.float32)
    server = LocalServer.create(values, num_shards=2)
    memory = np.empty(len(values) + 16, np.float32)
    for offset in (0, 1, 3):
        out = memory[offset : offset + len(values)]
        out[:] = 0
        assert server.pull_into(out)
        assert np.array_equal(out, values)
        assert server.push_pull(np.zeros_like(values), out)
        assert np.array_equal(out, values)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(9), np.zeros(11), np.zeros((10, 1)), np.zeros(10, np.float32), np.zeros(10, np.int64),
        np.zeros(20)[::2], np.zeros(10, ">f8"), np.zeros(81, np.uint8)[1:].view(np.float64),
        [0.0] * 10, None, memoryview(np.zeros(10)), np.ma.zeros(10),
    ],
    ids=["short", "long", "shape", "dtype", "ints", "strided", "byte order", "unaligned", "list", "None",
         "memory", "mask"],
)  # fmt: skip
def test_the_direct_calls_leave_what_they_cannot_take_alone(array):
    server = LocalServer.create(np.zeros(10))
    fine = np.ones(10)
    assert not server.push_from(array)
    assert not server.pull_into(array)
    assert not server.push_pull(array, fine)
    assert not server.push_pull(fine, array)
    assert server.arenas[0].version == 0
    assert (fine == 1).all()


def test_a_read_only_gradient_is_taken_and_a_read_only_output_is_not():
    server = LocalServer.create(np.zeros(10))
    frozen = np.ones(10)
    frozen.flags.writeable = False
    assert server.push_from(frozen)
    assert not server.pull_into(frozen)
    assert not server.push_pull(np.ones(10), frozen)
    assert (frozen == 1).all()


def test_an_array_without_dimensions_is_an_array():
    server = LocalServer.create(np.array(3.0))
    assert server.push_from(np.array(2.0))
    out = np.array(0.0)
    assert server.pull_into(out)
    assert out == 5


@pytest.mark.parametrize(
    ("column", "value"),
    [(0, 80), (0, 2**63), (1, 88), (1, 2**64 - 8), (2, 1), (4, 1), (5, 2), (5, 0)],
    ids=["position", "far position", "length", "wrapping length", "buffer", "rule", "item of 2", "item of 0"],
)
def test_spans_out_of_range_are_refused(column, value):
    server = LocalServer.create(np.zeros(10))
    span = list(server.spans[0][0])
    span[column] = value
    with pytest.raises(ValueError, match="out of range"):
        Group(server.arenas, [[tuple(span)]], [(1, 1, 0, 0)], 1, 1.0)


def test_a_span_that_wraps_around_is_refused():
    server = LocalServer.create(np.zeros(10))
    with pytest.raises(ValueError, match="out of range"):
        Group(server.arenas, [[(2**64 - 8, 16, 0, 0, 0, 8, 0)]], [(1, 1, 0, 0)], 1, 1.0)


def test_a_resume_that_was_used_or_belongs_to_another_group_is_refused():
    one, other = LocalServer.create(np.zeros(10)), LocalServer.create(np.zeros(10))
    grad = np.ones(10)
    with Holder(os.getpid(), one.arenas[0].fd) as holder:
        with pytest.raises(WaitTimeoutError) as caught:
            one.push_from(grad, 0.05)
        holder.let_go()
    resume = caught.value.resume
    with pytest.raises(ValueError, match="resume"):
        other.group.run([grad], None, resume=resume)
    one.group.run([grad], None, resume=resume)
    with pytest.raises(ValueError, match="resume"):
        one.group.run([grad], None, resume=resume)
    assert pulled(one, 10).tolist() == [1] * 10
    assert pulled(other, 10).tolist() == [0] * 10


@pytest.mark.parametrize("num_shards", [1, 3])
def test_more_lanes_than_sessions_raise_and_lanes_given_back_can_be_taken_again(num_shards):
    server = LocalServer.create(np.zeros(10), num_shards=num_shards, max_sessions=3)
    lanes = [Lane(server.group, 1.0) for _ in range(3)]
    for _ in range(3):
        with pytest.raises(SessionsExhaustedError, match="max_sessions"):
            Lane(server.group, 1.0)
        with pytest.raises(SessionsExhaustedError):
            server.push_from(np.ones(10))
    assert [arena.counters()["sessions"] for arena in server.arenas] == [3] * num_shards
    lanes.pop()
    gc.collect()
    assert server.push_from(np.ones(10))
    assert {arena.version for arena in server.arenas} == {1}


def test_operations_on_a_retired_arena_raise_closed_error():
    server = LocalServer.create(np.zeros(10))
    server.push_from(np.ones(10))
    server.arenas[0].retire()
    with pytest.raises(ClosedError):
        server.push_from(np.ones(10))
    with pytest.raises(ClosedError):
        server.pull_into(np.ones(10))


@pytest.mark.parametrize("operation", ["push", "pull", "push_pull"])
def test_a_held_lock_times_out_naming_its_holder_and_leaves_nothing_half_done(operation):
    server = LocalServer.create(np.zeros(10), num_shards=2)
    out, ones = np.empty(10), np.ones(10)
    run = {
        "push": lambda: server.push_from(ones, 0.1),
        "pull": lambda: server.pull_into(out, 0.1),
        "push_pull": lambda: server.push_pull(ones, out, 0.1),
    }[operation]
    with Holder(os.getpid(), server.arenas[1].fd) as holder:
        if operation == "pull":
            assert run()  # one stripe, nobody writes: readers do not lock
            return
        with pytest.raises(WaitTimeoutError, match=f"shard 1 of 2: .*process {holder.pid} ") as caught:
            run()
    assert (caught.value.applied, caught.value.partial, caught.value.pending) == ((0,), (), (1,))


def test_a_push_that_stops_between_stripes_is_partial_and_resumes_to_exactly_once():
    n = 8 * 512
    server = LocalServer.create(np.zeros(n), stripe_bytes=4 * KIB)
    with Holder(os.getpid(), server.arenas[0].fd, stripe=3) as holder:
        with pytest.raises(WaitTimeoutError) as caught:
            server.push_from(np.ones(n), 0.1)
        assert (caught.value.applied, caught.value.partial, caught.value.pending) == ((), (0,), ())
        with pytest.raises(WaitTimeoutError) as again:
            server.group.run([np.ones(n)], None, 0.1, resume=caught.value.resume)
        assert again.value.partial == (0,)
        holder.let_go()
        server.group.run([np.ones(n)], None, resume=again.value.resume)
    assert (pulled(server, n) == 1).all()
    assert server.arenas[0].version == 1


@pytest.mark.parametrize("timeout", [float("inf"), 1e18])
def test_a_timeout_without_end_waits_and_does_not_expire_at_once(timeout):
    server = LocalServer.create(np.zeros(10))
    with Holder(os.getpid(), server.arenas[0].fd) as holder:
        timer = threading.Timer(0.3, holder.let_go)
        timer.start()
        server.push_from(np.ones(10), timeout)
        timer.join()
    assert pulled(server, 10).tolist() == [1] * 10


def test_a_lock_whose_holder_is_killed_is_taken_over_and_counted():
    server = LocalServer.create(np.zeros(10))
    with Holder(os.getpid(), server.arenas[0].fd) as holder:
        threading.Timer(0.2, holder.kill).start()
        server.push_from(np.ones(10), 30)
    assert pulled(server, 10).tolist() == [1] * 10
    found = server.arenas[0].counters()
    assert (found["recovered_locks"], found["interrupted_pushes"]) == (1, 0)
    assert found["lock_waits"] == found["lock_sleeps"] == 1
    assert found["lock_wait_ns"] > 0


def test_threads_of_one_process_neither_lose_nor_tear_pushes():
    n, each, threads = 60_000, 60, 4
    server = LocalServer.create(np.zeros(n), num_shards=2, stripe_bytes=16 * KIB)
    torn = []

    def work():
        out = np.empty(n)
        for _ in range(each):
            server.push_from(np.ones(n))
            server.pull_into(out)
            torn.extend(half.copy() for half in np.split(out, 2) if not (half == half[0]).all())

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not torn
    assert (pulled(server, n) == each * threads).all()
    assert server.arenas[0].counters()["sessions"] <= threads


def test_a_fork_is_another_process_with_sessions_of_its_own():
    server = LocalServer.create(np.zeros(1000), num_shards=2)
    server.push_from(np.ones(1000))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            server.push_from(np.ones(1000))
            seen = pulled(server, 1000)
            sessions = server.arenas[0].counters()["sessions"]
            code = 0 if (seen == 2).all() and sessions == 2 else 2
            del server
            gc.collect()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    server.push_from(np.ones(1000))  # the child's end has closed nothing here
    assert (pulled(server, 1000) == 3).all()
    assert server.arenas[0].counters()["sessions"] == 1


def test_a_push_that_timed_out_keeps_no_session():
    server = LocalServer.create(np.zeros(4000), max_sessions=3, stripe_bytes=4 * KIB)
    grad, errors = np.ones(4000), []
    with Holder(os.getpid(), server.arenas[0].fd, stripe=2) as holder:
        for _ in range(20):  # each stops in the middle, and its error is kept
            with pytest.raises(WaitTimeoutError) as caught:
                server.push_from(grad, 0.01)
            errors.append(caught.value)
        assert server.arenas[0].counters()["sessions"] <= 2
        holder.let_go()
    for error in errors:
        server.group.run([grad], None, resume=error.resume)
    assert (pulled(server, 4000) == 20).all()
    assert server.arenas[0].version == 20


def test_threads_that_time_out_change_nothing_of_operations_beside_them():
    rule = fastps.SGD(1.0, momentum=0.5)
    n = 1 << 15
    server = LocalServer.create(np.full(n, 7.0), rule=rule, max_sessions=64)
    until, times, switch = time.monotonic() + 2, {"late": 0, "set": 0}, sys.getswitchinterval()

    def be_late():
        out = np.empty(n)
        while time.monotonic() < until:
            try:
                server.group.run(None, [out], 0.0)
            except WaitTimeoutError:
                times["late"] += 1

    def set_slot():
        values = np.full(n, -1.0)
        while time.monotonic() < until:
            server.group.run([values], None, 10.0, streams=[[1]])
            times["set"] += 1

    threads = [threading.Thread(target=target) for target in (be_late, set_slot) for _ in range(4)]
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(switch)
    assert min(times.values()) > 0
    assert (pulled(server, n) == 7).all()
    slot = np.empty(n)
    server.group.run(None, [slot], 1.0, streams=[[1]])
    assert (slot == -1).all()


ROUNDS = (2, 0, 0, 1, 0.0, 0)  # BSP of one worker


def round_server(n=256, sessions=16):
    """An arena of rounds in this process, and its group."""
    rule = fastps.SGD(1.0, momentum=0.5)
    arena = Arena.create(os.urandom(16), "s", 0, 1, 4 * n, sessions, True, n_slots=1, max_workers=2, policy=ROUNDS)
    rules = [(*addresses_of(image_of(rule, "float32")), 1, 0)]
    return arena, Group([arena], [[(0, 4 * n, 0, 0, 0, 4, 0)]], rules, 1, 10.0)


def put(group, value, n=256):
    group.run([np.full(n, value, np.float32)], None, 5.0, streams=[[0]])


def test_a_view_of_a_version_stays_as_it_is_in_a_forked_child():
    arena, group = round_server()
    put(group, 1)
    held = group.hold()
    view = np.frombuffer(memoryview(held.window(0, 0, 1024)), np.float32)
    hear, say = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(GUARD_SECONDS)
        os.read(hear, 1)
        os._exit(0 if (view == 1).all() else 3)
    del view, held  # the parent lets go of its copy
    for value in range(2, 40):
        put(group, value)
    os.write(say, b"x")
    _, status = os.waitpid(child, 0)
    os.close(hear)
    os.close(say)
    assert os.waitstatus_to_exitcode(status) == 0
    assert arena.counters()["sessions"] <= 2  # the child's went with it


def test_a_view_stays_where_a_forked_child_finds_no_session_for_it():
    arena, group = round_server(sessions=2)
    put(group, 1)
    held = group.hold()  # both sessions are taken now
    view = np.frombuffer(memoryview(held.window(0, 0, 1024)), np.float32)
    hear, say = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(GUARD_SECONDS)
        os.read(hear, 1)
        os._exit(0 if (view == 1).all() else 3)
    del view, held
    for value in range(2, 40):
        put(group, value)
    os.write(say, b"x")
    _, status = os.waitpid(child, 0)
    os.close(hear)
    os.close(say)
    assert os.waitstatus_to_exitcode(status) == 0
    assert arena.version == 0  # sets are no rounds


@pytest.mark.parametrize("rank", [2, 17, 255])
def test_a_decision_that_names_no_worker_of_the_server_is_refused(rank):
    arena, group = round_server()
    decision = Decision.unpack(struct.pack("<2Q", 1, 1 << 16 | rank))
    with pytest.raises(ArenaFormatError, match="message"):
        group.help(decision)
    with pytest.raises(ArenaFormatError, match="message"):
        group.run(None, [np.empty(256, np.float32)], 1.0, decision=decision)
    with pytest.raises(ArenaFormatError, match="message"):
        group.run([np.ones(256, np.float32)], None, 1.0, decision=arena.decision(), deposit=(rank, 1, 1, 1, 0))
    assert arena.version == 0


def test_a_member_in_a_cycle_leaves_when_it_is_collected():
    arena, _ = round_server()
    member = Member(arena, None, 0.0, 5.0)
    cycle = [member, arena]
    cycle.append(cycle)
    rank = member.rank
    del member, cycle
    gc.collect()
    assert Member(arena, rank, 0.0, 5.0).rank == rank  # it is free again


def test_a_change_of_hyper_parameters_is_late_like_everything_else():
    server = LocalServer.create(np.zeros(10), rule=fastps.SGD(0.5))
    (arena,) = server.arenas
    with Holder(os.getpid(), arena.fd) as holder:
        with pytest.raises(WaitTimeoutError, match=f"process {holder.pid} "):
            arena.configure(0, {0: 2.0}, 0.05)
        assert arena.hyper(0, 1) == [0.5]
        holder.let_go()
    arena.configure(0, {0: 2.0}, 5.0)
    assert arena.hyper(0, 1) == [2.0]


def test_a_signal_ends_the_wait_of_a_change_of_hyper_parameters():
    class Interrupt(BaseException):
        pass

    def interrupt(*_):
        raise Interrupt

    server = LocalServer.create(np.zeros(10), rule=fastps.SGD(0.5))
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with Holder(os.getpid(), server.arenas[0].fd):
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(Interrupt):
                server.arenas[0].configure(0, {0: 2.0}, 60.0)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert server.arenas[0].hyper(0, 1) == [0.5]


def test_a_large_arena_is_given_back_without_the_gil():
    arena = Arena.create(os.urandom(16), "s", 0, 1, 1 << 29, 8, True)
    ticks, done = [0], threading.Event()

    def tick():
        while not done.is_set():
            ticks[0] += 1

    thread = threading.Thread(target=tick)
    thread.start()
    before = ticks[0]
    arena.retire()
    ticked = ticks[0] - before
    done.set()
    thread.join()
    assert ticked > 0


def test_a_resumed_push_pull_reads_the_shards_that_were_done_before():
    server = LocalServer.create(np.zeros(10), num_shards=2)
    grad, outs = np.ones(10), np.full(10, np.nan)
    with Holder(os.getpid(), server.arenas[1].fd) as holder:
        with pytest.raises(WaitTimeoutError) as caught:
            server.group.run([grad], [outs], 0.05)
        holder.let_go()
    assert (caught.value.applied, caught.value.pending) == ((0,), (1,))
    again = np.full(10, np.nan)  # other memory, as over a carrier
    server.group.run([grad], [again], 5.0, caught.value.resume)
    assert again.tolist() == [1] * 10
    assert pulled(server, 10).tolist() == [1] * 10


@pytest.mark.parametrize(
    "arguments",
    [
        {"grads": [], "outs": None},
        {"grads": None, "outs": [np.zeros(10), np.zeros(10)]},
        {"grads": [np.zeros(10)], "outs": None, "pulled": []},
        {"grads": None, "outs": [np.zeros(10)], "pulled": [np.zeros(10)]},
        {"grads": [np.zeros(10)], "outs": None, "streams": []},
        {"grads": [np.zeros(10)], "outs": None, "steps": [np.zeros(1, np.uint64)]},
        {"grads": None, "outs": [np.zeros(10)], "streams": [[0]], "steps": []},
        {"grads": None, "outs": [np.zeros(10)], "streams": [[0]], "steps": [np.zeros(2, np.uint64)]},
        {"grads": [np.zeros(10)], "outs": None, "streams": [[]]},
        {"grads": [np.zeros(10)] * 2, "outs": None, "streams": [[0]]},
        {"grads": [np.zeros(10)] * 2, "outs": None, "streams": [[0], [0]]},
        {"grads": [np.zeros(10)], "outs": None, "initial": True},
        {"grads": None, "outs": [np.zeros(10)], "streams": [[0]], "initial": True},
        {"grads": None, "outs": None},
        {"grads": [np.zeros(10)], "outs": None, "deposit": (0, 0, 0, 0, 0)},
        {"grads": None, "outs": [np.zeros(10)], "decision": Decision()},
    ],
    ids=lambda arguments: " ".join(name for name, value in arguments.items() if value is not None) or "nothing",
)
def test_an_operation_that_does_not_fit_the_group_is_refused(arguments):
    server = LocalServer.create(np.zeros(10))
    with pytest.raises(ValueError, match=r"buffers|rules|rounds?|worker|initial|counts"):
        server.group.run(**arguments)
    assert pulled(server, 10).tolist() == [0] * 10


def test_what_is_set_before_a_signal_in_rounds_is_told():
    class Interrupt(BaseException):
        pass

    def interrupt(*_):
        raise Interrupt

    with Served(np.zeros(8), num_shards=2, rule=fastps.Adam(0.1), consistency=fastps.BSP()) as local:
        endpoint = local.endpoint()
        arenas, outcome = endpoint.arenas, Outcome()
        endpoint.start(Operation(outs=[np.empty(8)]), 5.0).finish()  # opens its sessions
        give_turn_to(os.getpid(), arenas[1].fd)
        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(Interrupt):
                endpoint.start(Operation(sets=[None, [np.ones(8)], None]), 60.0, outcome=outcome)
        finally:
            signal.signal(signal.SIGALRM, before)
        os.pwrite(arenas[1].fd, struct.pack("I", 0), TURN_AT)
        error = Interrupt()
        outcome.tell(error, "set")
        assert fastps.outcome_of(error).applied == (0,)
        endpoint.start(Operation(gets=[None, [out := np.empty(8)], None]), 5.0).finish()
        assert out.tolist() == [1, 1, 1, 1, 0, 0, 0, 0]

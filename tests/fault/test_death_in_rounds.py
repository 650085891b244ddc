"""Workers that are killed or stopped in the middle of rounds: nobody hangs, and every version is a whole round's."""

from __future__ import annotations

import math
import os
import signal
import statistics
import time

import numpy as np
import pytest

import fastps
from fastps.testing.history import Recorder, check_bsp, check_sums, load
from tests.fault.test_death_of_members import Steppers, steps_of
from tests.support.extent import short_or_long
from tests.support.local_server import Holder, give_turn_to
from tests.support.stepper import uniform
from tests.support.waiting import GUARD_SECONDS, wait_until

pytestmark = pytest.mark.usefixtures("ray_local")

KILLS = int(os.environ.get("FASTPS_TEST_KILLS") or short_or_long(24, 100))
STOPS = short_or_long(3, 8)
ALIVE = 3
N = 12_000  # parameters: deaths fall into copies and updates of them
RULES = [fastps.SGD(0.01, momentum=0.9), fastps.Adam(0.01)]


def check_history(events, backup=0):
    assert check_bsp(events, backup) == []
    torn = [e for e in events if e.read is not None and math.isnan(e.read)]
    assert torn == [], "versions whose elements differ"
    by_round = {}  # a version never changes
    for event in events:
        if event.read is not None:
            assert by_round.setdefault(event.versions[0], event.read) == event.read


def delays(events, moments):
    """Per moment, how long after it (ms) the first pull of others ended that reads a later round than all before."""
    reads = sorted((e for e in events if e.reads), key=lambda e: e.ended_ns)
    ended = [e.ended_ns for e in reads]
    newest = np.maximum.accumulate([e.versions[0] for e in reads])
    found = []
    for moment in moments:
        before = int(np.searchsorted(ended, moment)) - 1
        after = int(np.searchsorted(newest, newest[before] + 1, side="right")) if before >= 0 else len(newest)
        if after < len(newest):  # not that of a gradient which the dead one had given
            found.append((ended[after] - moment) / 1e6)
    return found


def tell(what, found):
    print(f"{what}: {len(found)} times, median {statistics.median(found):.1f} ms, at most {max(found):.1f} ms")


def finish(steppers, alive):
    """Ends the workers that are left; the clock of each."""
    wait_until(lambda: all(steps_of(path) > 0 for _, path in alive), 30, "the last ones have begun")
    for pid, _ in alive:
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: all(load(path)[-1].kind == "leave" for _, path in alive), 30, "workers leave")
    return [load(path)[-1].clock for _, path in alive]


@pytest.mark.parametrize("rule", RULES, ids=["momentum", "adam"])
def test_workers_die_at_random_moments_and_every_version_is_a_whole_round(tmp_path, rng, rule):
    start = np.zeros(N, np.float32)
    with (
        fastps.ParameterServer(start, rule=rule, num_shards=2, consistency=fastps.BSP()) as ps,
        Steppers(ps, tmp_path) as steppers,
    ):
        alive, moments = [steppers.fork() for _ in range(ALIVE)], []
        for _ in range(KILLS // len(RULES)):
            time.sleep(float(rng.uniform(0.0, 0.01)))
            victim = int(rng.integers(ALIVE))
            os.kill(alive[victim][0], signal.SIGKILL)
            moments.append(time.monotonic_ns())
            before = {path: steps_of(path) for pid, path in alive if pid != alive[victim][0]}
            alive[victim] = steppers.fork()
            for path, count in before.items():
                wait_until(lambda path=path, count=count: steps_of(path) > count + 20, 30, "others go on")
        clocks = finish(steppers, alive)
        events = steppers.events()
        check_history(events)
        tell("others go on after a kill", delays(events, moments))
        params = ps.pull()  # applies the last round, which closed when somebody left
        assert (params == params[0]).all()
        (rounds,) = {*ps.versions, max(clocks)}
        for slot in ps.slots().values():
            assert (slot == slot[0]).all()
        with ps.worker() as last:
            assert last.clock == rounds
            last.push(np.ones(N, np.float32), timeout=GUARD_SECONDS)
            assert not math.isnan(uniform(last.pull(timeout=GUARD_SECONDS)))
            assert last.reply.versions == (rounds + 1,) * 2
        assert ps.stats().shards[0].expelled > 0


def test_a_stopped_worker_is_out_after_the_straggler_timeout_and_returns_at_the_clock_of_the_others(tmp_path):
    policy = fastps.BSP(reduce="sum", workers=2, straggler_timeout=2.0)
    ones = np.ones(N, np.float32)
    with fastps.ParameterServer(ones * 0, num_shards=2, consistency=policy) as ps, Steppers(ps, tmp_path) as steppers:
        pid, path = steppers.fork(pause=0.001)
        with Recorder(ps.worker(), value=uniform) as w:
            for _ in range(20):
                w.push(ones)
            os.kill(pid, signal.SIGSTOP)
            stopped = time.monotonic()
            for _ in range(5):
                w.push(ones, timeout=GUARD_SECONDS)
            print(f"out after {time.monotonic() - stopped:.2f} s")
            count, clock = steps_of(path), w.clock
            os.kill(pid, signal.SIGCONT)
            for _ in range(20):
                w.push(ones, timeout=GUARD_SECONDS)
            w.pull(timeout=GUARD_SECONDS)
            assert w.returns == 0
        wait_until(lambda: steps_of(path) > count + 20, 30, "the worker goes on")
        finish(steppers, [(pid, path)])
        theirs = load(path)
        assert theirs[-1].clock >= clock
        assert len({e.member for e in theirs}) == 2, "it came back once"
        check_history([*w.events, *theirs])
        assert check_sums([*w.events, *theirs]) == []
        assert ps.stats().shards[0].expelled == 1


def test_one_that_is_stopped_with_the_turn_is_passed_by_all(tmp_path):
    policy = fastps.BSP(straggler_timeout=0.2)
    start = np.zeros(60 * N, np.float32)  # an update takes long enough for two to be at it
    with (
        fastps.ParameterServer(start, rule=RULES[0], num_shards=2, consistency=policy) as ps,
        Steppers(ps, tmp_path) as steppers,
    ):
        alive = [steppers.fork() for _ in range(2)]
        wait_until(lambda: all(steps_of(path) > 20 for _, path in alive), 30, "all step")
        ps.pull()
        for _ in range(3):
            for arena in ps.attachment.session.shm.arenas.values():
                give_turn_to(os.getpid(), arena.fd)
            count = {path: steps_of(path) for _, path in alive}
            wait_until(lambda count=count: all(steps_of(p) > count[p] + 20 for p in count), 30, "both go on")
        params = ps.pull(timeout=GUARD_SECONDS)
        assert (params == params[0]).all()
        finish(steppers, alive)
        check_history(steppers.events())


def test_one_that_is_stopped_while_it_changes_hyper_parameters_delays_no_round():
    """But for another one that changes them, which names it."""
    ones = np.ones(N, np.float32)
    policy = fastps.BSP(straggler_timeout=0.2)
    with fastps.ParameterServer(0 * ones, num_shards=2, rule=RULES[0], consistency=policy) as ps, ps.worker() as w:
        address = ps.attachment.spec.addresses[0]
        with Holder(address.pid, address.fd) as holder:
            w.push(ones)
            assert not math.isnan(uniform(w.pull()))
            assert w.reply.versions == (1, 1)
            with pytest.raises(fastps.WaitTimeoutError, match=f"process {holder.pid}"):
                ps.configure(lr=0.2, timeout=0.05)
            w.push(ones)
            holder.let_go()
        assert uniform(ps.pull()) != uniform(0 * ones)


def test_workers_that_stop_at_random_moments_are_passed_and_spoil_nothing(tmp_path, rng):
    """Also in the middle of a copy into their rows, or of the update of a round for all."""
    policy = fastps.BSP(straggler_timeout=0.1)
    start = np.zeros(10 * N, np.float32)
    with (
        fastps.ParameterServer(start, rule=RULES[0], num_shards=2, consistency=policy) as ps,
        Steppers(ps, tmp_path) as steppers,
    ):
        alive = [steppers.fork() for _ in range(ALIVE)]
        wait_until(lambda: all(steps_of(path) > 20 for _, path in alive), 30, "all step")
        for _ in range(STOPS):
            time.sleep(float(rng.uniform(0.0, 0.01)))
            victim = int(rng.integers(ALIVE))
            os.kill(alive[victim][0], signal.SIGSTOP)
            for path in [path for pid, path in alive if pid != alive[victim][0]]:
                count = steps_of(path)
                wait_until(lambda path=path, count=count: steps_of(path) > count + 20, 30, "others go on")
            os.kill(alive[victim][0], signal.SIGCONT)
            count = steps_of(alive[victim][1])
            wait_until(lambda path=alive[victim][1], count=count: steps_of(path) > count + 20, 30, "it goes on")
        clocks = finish(steppers, alive)
        check_history(steppers.events())
        assert not math.isnan(uniform(ps.pull()))
        assert ps.versions == (max(clocks),) * 2
        assert ps.stats().shards[0].expelled > 0

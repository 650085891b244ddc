"""Rounds: workers that share them do what one process would do, and what is read is one round's and does not change.

Workers are threads of this process, or Ray actors; tests/conformance/test_rounds_across_nodes.py has more nodes.
"""

from __future__ import annotations

import contextlib
import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import fastps
from fastps.testing.history import Event, Recorder, check_bsp, check_sums
from tests.support import workers
from tests.support.extent import samples, short_or_long
from tests.support.local_server import LocalServer

TOGETHER = 4  # workers
ROUNDS = 100
BACKUP_ROUNDS = int(os.environ.get("FASTPS_TEST_ROUNDS") or short_or_long(200, 1000))
STEPS = 120  # of a recorded history
N = 1001  # parameters, which two shards do not divide


class Threads:
    """Workers that are threads of this process."""

    def __init__(self, ps, count):
        self._ps, self._pool = ps, ThreadPoolExecutor(count)
        self._count = count

    def run(self, function, *args):
        """function(worker's session, *args) in every worker, once all of them are there; the answers by rank."""
        with contextlib.ExitStack() as stack:
            sessions = [stack.enter_context(self._ps.worker(rank)) for rank in range(self._count)]
            return [f.result() for f in [self._pool.submit(function, w, *args) for w in sessions]]

    def close(self):
        self._pool.shutdown()


class Actors:
    """Workers that are Ray actors, of the module or in turn on some nodes."""

    def __init__(self, ps, count, actors):
        self._actors = actors[:count]
        ray.get([actor.take.remote(ps) for actor in self._actors])

    def run(self, function, *args):
        """As of `Threads`."""
        ray.get([actor.do.remote(enter, rank) for rank, actor in enumerate(self._actors)])
        return ray.get([actor.do.remote(run_in, function, *args) for actor in self._actors])

    def close(self):
        ray.get([actor.take.remote(None) for actor in self._actors])


def start(count, nodes):
    return [
        workers.Worker.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(nodes[i % len(nodes)], soft=False)
        ).remote()
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def actors(ray_local):
    found = start(TOGETHER, [ray.get_runtime_context().get_node_id()])
    yield found
    for actor in found:
        ray.kill(actor)


def enter(ps, rank):
    ps.session = ps.worker(rank)


def run_in(ps, function, *args):
    with ps.session as w:
        del ps.session
        return function(w, *args)


KINDS = ["threads", "actors"]


@contextlib.contextmanager
def team(kind, ps, count, actors):
    """Workers of a kind."""
    found = Threads(ps, count) if kind == "threads" else Actors(ps, count, actors)
    try:
        yield found
    finally:
        found.close()


# One process alone


def start_values(n, dtype):
    return ((np.arange(n) * 37 % 101) / 50 - 1).astype(dtype)


def gradient(params, rank, number):
    """Depends on the parameters, so that whoever reads others than those of its round changes everything after."""
    return (0.25 * (1 + rank) * params - start_values(params.size, params.dtype)[:: -1 if rank % 2 else 1]) * (
        params.dtype.type(1 + number % 3) / 2
    )


def train(w, rounds, like, seed):
    """The parameters of every round, as this worker has read them."""
    rng, found = np.random.default_rng([seed, w.rank]), []
    first = w.clock
    for number in range(first, first + rounds):
        found.append(w.pull())
        assert w.reply.versions == (number,) * len(w.reply.versions)
        if rng.random() < 0.5:
            time.sleep(0.002 * rng.random())
        if w.rank % 2:
            assert w.push(gradient(found[-1], w.rank, number)).counted
        else:
            w.push_pull(gradient(found[-1], w.rank, number), out=np.empty_like(like))
            assert w.reply.versions == (number + 1,) * len(w.reply.versions)
    return found


def alone(rule, first, reduce, rounds):
    """The same by one worker: the parameters of every round, applied by a server that nobody else uses."""
    found, server = [], LocalServer.create(first, rule=rule)
    for number in range(rounds + 1):
        params = np.empty_like(first)
        assert server.pull_into(params)
        found.append(params)
        total = gradient(params, 0, number)
        for rank in range(1, TOGETHER):
            total = total + gradient(params, rank, number)
        assert server.push_from(total / params.dtype.type(TOGETHER) if reduce == "mean" else total)
    return found


def assert_same_bits(found, expected):
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert one.tobytes() == other.tobytes(), f"round {number}"


RULES = [fastps.SGD(0.02, momentum=0.9), fastps.Adam(0.01)]


@samples(rule=RULES, dtype=[np.float32, np.float64], reduce=["mean", "sum"])  # across nodes those of other pairs
def test_workers_together_are_one_process_bit_for_bit(actors, rng, rule, dtype, reduce):
    first, seed = start_values(N, dtype), int(rng.integers(2**31))
    expected = alone(rule, first, reduce, 2 * ROUNDS)
    assert not np.array_equal(expected[-1], expected[-2])
    policy = fastps.BSP(reduce=reduce, deterministic=True, workers=TOGETHER)
    with fastps.ParameterServer(first, rule=rule, num_shards=2, consistency=policy) as ps:
        for number, kind in enumerate(KINDS):
            with team(kind, ps, TOGETHER, actors) as those:
                for found in those.run(train, ROUNDS, first, seed + number):
                    assert_same_bits(found, expected[number * ROUNDS : (number + 1) * ROUNDS])
        assert_same_bits([ps.pull()], [expected[2 * ROUNDS]])
        assert ps.versions == (2 * ROUNDS,) * 2


# Recorded histories


def uniform(array):
    """The value of all elements, or NaN."""
    return float(array[0]) if (array == array[0]).all() else float("nan")


def told(rank):
    """A gradient that says whose it is: sums of up to 255 of each tell them apart."""
    return float(256**rank)


class Broken:
    """A membership that is broken on purpose: this one does what it should."""

    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        return getattr(self._inner, name)


class Ungated(Broken):
    """Its gate is always open."""

    def begin(self, timeout):
        clock, progress = self._inner.state()
        return clock, max(clock, progress)


class Boaster(Broken):
    """It says of every gradient that it came in time."""

    def begin(self, timeout):
        clock, _ = self._inner.begin(timeout)
        return clock, clock

    def give(self, round, weight, timeout):
        self._inner.give(round, weight, timeout)
        return True


class Doubter(Broken):
    """It says of every gradient that it came too late."""

    def give(self, round, weight, timeout):
        self._inner.give(round, weight, timeout)
        return False


class Deaf(Broken):
    """It hears of no round after its first."""

    def __init__(self, inner):
        super().__init__(inner)
        self._first = inner.decision()

    def decision(self):
        return self._first


def steps(w, count, seed, broken=None):
    """Steps at an uneven speed; the history."""
    rng = np.random.default_rng([seed, w.rank])
    grads = np.full(6, told(w.rank))
    if broken is not None:
        w._membership = broken(w._membership)
    with Recorder(w, value=uniform) as recorder:
        for _ in range(count):
            if rng.random() < 0.9:
                recorder.pull()
            if rng.random() < 0.1 * (w.rank + 1):
                time.sleep(0.003 * rng.random())
            if rng.random() < 0.2:
                recorder.push(grads, step=False)
            if rng.random() < 0.05:
                recorder.push_pull(grads, step=False)
            if rng.random() < 0.3:
                recorder.push_pull(grads)
            else:
                recorder.push(grads)
    return recorder.events


def histories(kind, ps, count, seed, actors, members=3, broken=None):
    with team(kind, ps, members, actors) as those:
        return [event for own in those.run(steps, count, seed, broken) for event in own]


def check(events, backup, ps):
    assert check_bsp(events, backup) == []
    with ps.worker() as w:  # what the last round holds belongs to the history
        final = uniform(w.pull())
    last = Event(0, 1, "pull", w.clock, versions=(w.clock,), read=final)
    assert check_sums([*events, last]) == []
    assert w.clock == 1 + max(event.clock for event in events if event.gives)
    assert len(events) > 3 * len({event.clock for event in events}), "most rounds are of several workers"


@samples(kind=KINDS, backup=[0, 1])
def test_recorded_histories_are_of_rounds(actors, rng, kind, backup):
    policy = fastps.BSP(reduce="sum", backup=backup, workers=3)
    with fastps.ParameterServer(np.zeros(6), num_shards=2, consistency=policy) as ps:
        check(histories(kind, ps, STEPS, int(rng.integers(2**31)), actors), backup, ps)


@pytest.mark.parametrize("broken", [Ungated, Boaster, Doubter, Deaf])
def test_the_checker_finds_a_membership_that_is_broken(actors, rng, broken):
    backup = 0 if broken in (Ungated, Deaf) else 1
    policy = fastps.BSP(reduce="sum", backup=backup, workers=3)
    with fastps.ParameterServer(np.zeros(6), consistency=policy) as ps:
        events = histories("threads", ps, STEPS, int(rng.integers(2**31)), actors, broken=broken)
        assert (check_bsp(events) if backup == 0 else check_sums(events)) != []


# Backup workers


def coded(rank, clock):
    """A gradient that says whose it is, and of which round."""
    return float((16 * clock + 1) << rank)


def give_coded(w, rounds, n, seed):
    """Until that many rounds have closed: what was read of each round, and of each push whether it counted."""
    rng, read, gave, out = np.random.default_rng([seed, w.rank]), {}, [], np.empty(n)
    while w.clock < rounds:
        w.pull(out=out)
        (number,) = set(w.reply.versions)
        assert number == w.clock
        assert read.setdefault(number, uniform(out)) == out[0], "a gradient counts on some shards only"
        if rng.random() < 0.05:
            time.sleep(0.002 * rng.random())
        reply = w.push(np.full(n, coded(w.rank, w.clock)))
        gave.append((reply.clock, reply.counted))
        assert reply.clock == number
    return read, gave


def check_coded(answers, live):
    """Every version that was read is the sum of what counted before; the number of gradients that came late."""
    counted = {}
    for rank, (_, gave) in enumerate(answers):
        for clock, counts in gave:
            if counts:
                counted.setdefault(clock, set()).add(rank)
    total, sums = 0.0, [0.0]
    for clock in range(max(counted) + 1):
        total += sum(coded(rank, clock) for rank in counted[clock])
        sums.append(total)
    assert all(len(counted[clock]) >= live - 1 for clock in range(max(counted)))
    for read, _ in answers:
        assert all(value == sums[number] for number, value in read.items())
    return sum(not counts for _, gave in answers for _, counts in gave)


@samples(kind=KINDS, members=[3, 4])
def test_with_backup_workers_every_gradient_counts_on_all_shards_or_on_none(actors, rng, kind, members):
    policy = fastps.BSP(reduce="sum", backup=1, workers=members)
    with fastps.ParameterServer(np.zeros(N), num_shards=2, consistency=policy) as ps:
        with team(kind, ps, members, actors) as those:
            answers = those.run(give_coded, BACKUP_ROUNDS, N, int(rng.integers(2**31)))
        late = check_coded(answers, members)
        assert late > 0
        assert ps.stats().shards[0].dropped == late

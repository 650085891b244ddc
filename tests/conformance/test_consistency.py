"""One suite over policies and places: what is promised is proven from the recorded history of the workers."""

from __future__ import annotations

import time

import numpy as np
import pytest
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import fastps
from fastps.testing.history import Recorder, check_ssp
from tests.support import workers

STEPS = 150
WORKERS = 3


class Ungated:
    """A membership whose gate is always open: a policy that is broken on purpose."""

    def __init__(self, inner):
        self._inner = inner

    def begin(self, timeout):
        clock, progress = self._inner.state()
        return clock, max(clock, progress)

    def __getattr__(self, name):
        return getattr(self._inner, name)


def steps(ps, rank, count, seed):
    """Steps at an uneven speed; the history."""
    rng = np.random.default_rng(seed)
    ones = np.ones(6, np.float32)
    with Recorder(ps.worker(rank)) as w:
        for _ in range(count):
            before = w.pull()
            if rng.random() < 0.1 * (rank + 1):
                time.sleep(0.003 * rng.random())
            if rng.random() < 0.2:
                w.push(ones, step=False)
            if rng.random() < 0.3:
                after = w.push_pull(ones)
                assert (after >= before + 1).all()
            else:
                w.push(ones)
    return w.events


def start(nodes):
    return [
        workers.Worker.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(nodes[i % len(nodes)], soft=False)
        ).remote()
        for i in range(WORKERS)
    ]


def histories(ps, nodes, seed, count=STEPS):
    actors = start(nodes)
    ray.get([actor.take.remote(ps) for actor in actors])
    events = ray.get([actor.do.remote(steps, i, count, seed + i) for i, actor in enumerate(actors)])
    for actor in actors:
        ray.kill(actor)
    return [event for own in events for event in own]


def check(events, bound, ps):
    assert check_ssp(events, bound) == []
    pushes = sum(e.kind in ("push", "push_pull") for e in events)
    assert (ps.pull() == pushes).all(), "every push is applied once"
    assert max(e.staleness for e in events) <= bound


@pytest.mark.parametrize("bound", [0, 1, 4])
def test_no_pull_is_staler_than_the_bound_on_one_node(ray_local, rng, bound):
    node = ray.get_runtime_context().get_node_id()
    with fastps.ParameterServer(
        np.zeros(6, np.float32), num_shards=2, consistency=fastps.SSP(bound, workers=WORKERS)
    ) as ps:
        events = histories(ps, [node], int(rng.integers(2**31)))
        check(events, bound, ps)


def test_the_checker_finds_a_gate_that_is_open(ray_local):
    ones = np.ones(6, np.float32)
    with (
        fastps.ParameterServer(np.zeros(6, np.float32), num_shards=2, consistency=fastps.SSP(0, workers=2)) as ps,
        Recorder(ps.worker(0)) as slow,
        Recorder(ps.worker(1)) as fast,
    ):
        fast._worker._membership = Ungated(fast._worker._membership)
        for _ in range(2):
            fast.pull()
            fast.push(ones)
        slow.pull()
        slow.push(ones)  # which the second pull had to wait for
    assert check_ssp(slow.events, 0) == []
    assert check_ssp([*slow.events, *fast.events], 0) != []


def test_without_a_bound_nobody_waits(ray_local):
    with fastps.ParameterServer(np.zeros(6, np.float32)) as ps, ps.worker() as slow, ps.worker() as fast:
        for n in range(20):
            fast.pull()
            assert fast.reply.staleness == n
            fast.push(np.ones(6, np.float32))
        assert (fast.clock, slow.clock) == (20, 0)

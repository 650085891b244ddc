"""What transport/contract.py promises, once for every way from a worker to the shards.

The driver is on node 0; a reach is where the shards are and where the worker is.
"""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import ray

import fastps
from fastps.client import attach
from fastps.spec.arrays import structure_of
from fastps.spec.partition import partition
from fastps.testing import ModelServer
from tests.support import workers
from tests.support.local_server import Holder
from tests.support.waiting import wait_until

# (nodes of the shards, node of the worker): by shared memory, by Ray, and both at once.
REACHES = {"shm": ((1,), 1), "ray": ((1,), 2), "mixed": ((0, 1, 2), 1)}


class Reach:
    """A worker on its node, and servers with shards where the reach wants them."""

    def __init__(self, cluster, shard_nodes, worker_node):
        self._cluster, self._shard_nodes = cluster, shard_nodes
        self.worker = workers.Worker.options(resources={f"node{worker_node}": 0.001}).remote()
        self.remote_nodes = len({*shard_nodes} - {worker_node})

    def take(self, ps):
        ray.get(self.worker.take.remote(ps))

    def server(self, params, num_shards=1, **options):
        nodes = [self._cluster.ids[self._shard_nodes[i % len(self._shard_nodes)]] for i in range(num_shards)]
        ps = fastps.ParameterServer(params, num_shards=num_shards, placement=nodes, **options)
        assert ps.node_ids == tuple(nodes)
        self.take(ps)
        return ps

    def __getattr__(self, name):
        """A method of the worker, waited for."""
        return lambda *args: ray.get(getattr(self.worker, name).remote(*args))


@pytest.fixture(scope="module", params=REACHES)
def reach(request, cluster3):
    reach = Reach(cluster3, *REACHES[request.param])
    yield reach
    ray.kill(reach.worker)


@pytest.fixture(scope="module")
def line_of_module(reach):
    with reach.server(np.zeros(20_000), 5) as ps:
        yield ps


@pytest.fixture(scope="module")
def matrix_of_module(reach):
    with reach.server(np.ones((30, 10), np.float32), 2) as ps:
        yield ps


@pytest.fixture
def line(reach, line_of_module):
    """A server that some tests share: what one has pushed is there for the next."""
    reach.take(line_of_module)
    return line_of_module


@pytest.fixture
def matrix(reach, matrix_of_module):
    """Another one."""
    reach.take(matrix_of_module)
    return matrix_of_module


def bounds(params, num_shards):
    """[start, stop) of every shard of one array."""
    structure, _ = structure_of(params)
    return [
        (plan.runs[0].start, plan.runs[-1].start + plan.runs[-1].count) for plan in partition(structure, num_shards)
    ]


def same(a, b):
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[name], b[name]) for name in a)
    return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b)


def tree(make):
    return {
        "layer": {"w": make((5, 7), np.float32), "b": make((7,), np.float64)},
        "scale": make((), np.float64),
        "table": make((20, 50), np.float32),
        "odd": make((3,), np.float32),
    }


@pytest.mark.parametrize("num_shards", [1, 4])
def test_nested_parameters_of_both_dtypes_come_out_as_they_went_in_and_as_pushes_left_them(reach, num_shards, rng):
    def make(shape, dtype):
        return np.asarray(rng.normal(size=shape), dtype)

    initial, grads = tree(make), tree(make)
    rule = fastps.SGD(0.1, weight_decay=0.01)
    model = ModelServer(initial, rule=rule, num_shards=num_shards)
    with reach.server(initial, num_shards, rule=rule) as ps:
        assert same(reach.pull(), model.pull())
        reach.push(grads, 2)
        model.push(grads)
        model.push(grads)
        assert same(reach.pull(), model.pull())
        assert same(reach.push_pull(grads), model.push_pull(grads))
        assert same(ps.pull(), model.pull())
        assert reach.versions() == ps.versions == model.versions


@pytest.mark.parametrize(
    ("reach", "nbytes"),
    [
        *(("shm", nbytes) for nbytes in (8, 13_000_000)),
        *(("ray", nbytes) for nbytes in (8, 400_000, 8_000_000, 13_000_000)),
        *(("mixed", nbytes) for nbytes in (400_000, 13_000_000)),
    ],
    indirect=["reach"],
)
def test_payloads_of_every_size_arrive_whole(reach, nbytes, rng):
    values = rng.normal(size=nbytes // 8)
    with reach.server(np.zeros(nbytes // 8), min(2, nbytes // 8)) as ps:
        reach.push(values)
        assert np.array_equal(reach.pull(), values)
        assert np.array_equal(reach.push_pull(values), values + values)
        assert np.array_equal(ps.pull(), values + values)


@pytest.mark.usefixtures("matrix")
def test_out_is_written_in_place_and_refused_where_it_cannot_be(reach):
    shape, before = (30, 10), reach.pull()
    answered, found = reach.do(workers.pull_into, shape, np.float32, "fine")
    assert answered
    assert np.array_equal(found, before)
    for kind, error in [
        ("read-only", fastps.OutputError), ("strided", fastps.OutputError),
        ("dtype", fastps.DtypeError), ("shape", fastps.ShapeError),
    ]:  # fmt: skip
        assert reach.error_of(workers.pull_into, shape, np.float32, kind)[0] is error
    answered, found = reach.do(workers.push_pull_in_place, np.full(shape, 2, np.float32))
    assert answered
    assert np.array_equal(found, before + 2)


BAD_GRADIENTS = {
    "another shape": (np.ones((30, 9), np.float32), fastps.ShapeError),
    "float64": (np.ones((30, 10)), fastps.DtypeError),
    "integers": (np.ones((30, 10), int), fastps.DtypeError),
    "a mapping": ({"a": np.ones((30, 10), np.float32)}, fastps.ParameterError),
    "a list": ([[1.0] * 10] * 30, fastps.DtypeError),
}


@pytest.mark.usefixtures("matrix")
def test_gradients_that_do_not_fit_raise_the_same_error_and_change_nothing(reach):
    before, versions = reach.pull(), reach.versions()
    for name, (grads, error) in BAD_GRADIENTS.items():
        for function in (workers.push, workers.push_pull):
            found = reach.error_of(function, grads)
            assert issubclass(found[0], error), name
            assert "expected" in found[1], name
    assert reach.versions() == versions
    assert np.array_equal(reach.pull(), before)


def test_operations_on_a_closed_server_raise_closed_error(reach):
    ps = reach.server(np.zeros(10), 2)
    reach.push(np.ones(10))
    ps.close()
    for function, *args in [(workers.push, np.ones(10)), (workers.pull,), (workers.push_pull, np.ones(10))]:
        assert reach.error_of(function, *args)[0] is fastps.ClosedError


def test_no_pull_is_torn_while_others_push(reach, cluster3):
    n, num_shards = 400_000, 3
    params = np.zeros(n)
    with reach.server(params, num_shards) as ps:
        pushers = [workers.Worker.options(resources={f"node{node}": 0.001}).remote(ps) for node in (0, 1)]
        pushed = [pusher.push_ones.remote(np.ones(n), 1.0) for pusher in pushers]
        assert reach.pull_torn(bounds(params, num_shards), 10) == 0
        count = sum(ray.get(pushed))
        assert count > 0
        assert (reach.pull() == count).all()
        assert reach.versions() == (count,) * num_shards
        for pusher in pushers:
            ray.kill(pusher)


@pytest.mark.usefixtures("line")
def test_threads_of_one_worker_push_and_pull_at_once_without_losing_any(reach):
    before = reach.pull()
    assert reach.push_from_threads(np.ones(20_000), 4, 10) == []
    assert np.array_equal(reach.pull(), before + 40)


@pytest.mark.usefixtures("line")
def test_every_other_node_costs_one_call_however_many_shards_it_has(reach):
    ones = np.ones(20_000)
    reach.push(ones)
    before = reach.pull()
    for function, *args in [(workers.push, ones), (workers.pull,), (workers.push_pull, ones)]:
        assert len(reach.do(workers.count_calls, function, *args)) == reach.remote_nodes
    assert np.array_equal(reach.pull(), before + 2)


def test_stats_count_what_happened_wherever_they_are_asked(reach, line):
    ones, before = np.ones(20_000), reach.stats()
    reach.push(ones, 4)
    reach.pull()
    reach.push_pull(ones)
    stats = reach.stats()
    assert [shard.shard for shard in stats.shards] == [0, 1, 2, 3, 4]
    assert tuple(shard.node_id for shard in stats.shards) == line.node_ids
    for was, shard in zip(before.shards, stats.shards, strict=True):
        done = [
            getattr(shard, name) - getattr(was, name)
            for name in ("pushes", "pulls", "push_pulls", "version", "bytes_written", "bytes_read")
        ]
        assert done == [4, 1, 1, 5, 5 * 4000 * 8, 2 * 4000 * 8]
        assert shard.interrupted_pushes == shard.recovered_locks == 0
    assert stats.total["pushes"] == before.total["pushes"] + 20
    assert line.stats() == stats or line.stats().total["sessions"] >= stats.total["sessions"]


def test_hogwild_servers_apply_every_push_of_one_worker(reach):
    with reach.server(np.zeros(50_000, np.float32), 2, isolation="none"):
        reach.push(np.ones(50_000, np.float32), 5)
        assert (reach.pull() == 5).all()


def repeat_last_push(ps, grads):
    """Pushes once and lets the same message arrive a second time, as after a lost connection."""
    import ray.actor

    original = ray.actor.ActorHandle._actor_method_call
    repeated = []

    def twice(self, method_name, *positional, **named):
        if method_name == "serve":
            original(self, method_name, *positional, **named)
            repeated.append(method_name)
        return original(self, method_name, *positional, **named)

    ray.actor.ActorHandle._actor_method_call = twice
    try:
        ps.push(grads)
        found = ps.push_pull(grads)
    finally:
        ray.actor.ActorHandle._actor_method_call = original
    return len(repeated), found


@pytest.mark.usefixtures("line")
def test_a_push_that_arrives_twice_is_applied_once(reach):
    before, versions = reach.pull(), reach.versions()
    repeated, found = reach.do(repeat_last_push, np.ones(20_000))
    assert repeated == 2 * reach.remote_nodes
    assert np.array_equal(found, before + 2)
    assert reach.versions() == tuple(version + 2 for version in versions)


def push_and_keep_the_error(ps, grads, timeout):
    try:
        ps.push(grads, timeout=timeout)
    except fastps.WaitTimeoutError as error:
        ps.kept = error
        return str(error), error.applied, error.partial, error.pending
    return None


def resume_kept(ps, grads):
    ps.push(grads, resume=ps.kept.resume)


@pytest.mark.parametrize(
    "grads", [np.ones(600_000), {"a": np.ones(500_000), "b": np.ones((100, 10), np.float32)}], ids=type
)
def test_a_push_that_timed_out_is_resumed_to_exactly_once(reach, grads):
    zeros = {name: a * 0 for name, a in grads.items()} if isinstance(grads, dict) else grads * 0
    with reach.server(zeros, 3) as ps:
        reach.push(grads)
        held = ps.attachment.spec.addresses[1]
        with Holder(held.pid, held.fd, stripe=1) as holder:
            text, applied, partial, pending = reach.do(push_and_keep_the_error, grads, 0.7)
            assert "resume=error.resume" in text
            assert sorted([*applied, *partial, *pending]) == [0, 1, 2]
            assert 1 not in applied
            holder.let_go()
        reach.do(resume_kept, grads)
        found = reach.pull()
        for array in found.values() if isinstance(found, dict) else [found]:
            assert (array == 2).all()
        assert reach.versions() == (2, 2, 2)
        assert reach.error_of(resume_kept, grads)[0] is fastps.OptionError
        assert reach.versions() == (2, 2, 2)


def test_a_killed_shard_raises_shard_died_error_that_names_shard_and_node(reach):
    ps = reach.server(np.zeros(1000), 3)
    reach.push(np.ones(1000))
    os.kill(ps.attachment.spec.addresses[1].pid, signal.SIGKILL)
    ray.get(reach.worker.do.remote(wait_for_the_death, np.ones(1000)))
    for function, *args in [(workers.push, np.ones(1000)), (workers.pull,), (workers.push_pull, np.ones(1000))]:
        error, text, _, _ = reach.error_of(function, *args)
        assert error is fastps.ShardDiedError
        assert "shard" in text
        assert "1" in text
        assert ps.node_ids[1][:8] in text
    ps.close()


def wait_for_the_death(ps, grads):
    """The kernel marks a dead owner's lock within microseconds, but Ray and a killed process's exit take a moment."""

    def seen():
        try:
            ps.push(grads)
        except fastps.ShardDiedError:
            return True
        return False

    wait_until(seen, 30, "the death is seen")


def test_more_workers_one_after_the_other_than_a_shard_remembers_lose_no_push(reach):
    """Each comes with a number of its own, pushes once and is not heard of again."""
    with reach.server(np.zeros(10), 1, max_sessions=8) as ps:
        for count in range(1, 71):
            reach.do(push_as_somebody_new, np.ones(10))
            assert ps.versions == (count,)
        assert (ps.pull() == 70).all()


def push_as_somebody_new(ps, grads):
    """A push of a process that the shards have not heard of."""
    ps.attachment.arrays = None

    attach.attachments.drop(ps.attachment.spec.server_id)
    ps.push(grads)

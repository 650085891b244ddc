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
from fastps.spec.initial import structure_of
from fastps.spec.partition import partition
from fastps.testing import ModelServer
from tests.support import workers
from tests.support.extent import short_or_long
from tests.support.local_server import Holder
from tests.support.waiting import wait_until

# (nodes of the shards, node of the worker): by shared memory, by Ray, and both at once.
REACHES = {"shm": ((1,), 1), "ray": ((1,), 2), "mixed": ((0, 1, 2), 1)}
SHAPE = (10_240, 10)  # float32: 400 KiB, which four shards divide
ONES = np.ones(SHAPE, np.float32)


class Reach:
    """A worker on its node, and servers with shards where the reach wants them."""

    def __init__(self, cluster, name):
        shard_nodes, worker_node = REACHES[name]
        self.name, self._cluster, self._shard_nodes = name, cluster, shard_nodes
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
    reach = Reach(cluster3, request.param)
    yield reach
    ray.kill(reach.worker)


@pytest.fixture(scope="module")
def servers(reach):
    """Servers that tests share, by number of bytes, each started when the first test asks for it."""
    started = {}

    def server(nbytes):
        if nbytes not in started:
            params, num_shards, options = {
                8: (np.zeros(1), 1, {"max_sessions": 8}),
                ONES.nbytes: (np.zeros(SHAPE, np.float32), 4, {}),
                8_000_000: (np.zeros(1_000_000), 2, {}),
                13_000_000: (np.zeros(1_625_000), 3, {}),
            }[nbytes]
            started[nbytes] = reach.server(params, num_shards, **options)
        reach.take(started[nbytes])
        return started[nbytes]

    yield server
    for ps in started.values():
        ps.close()


@pytest.fixture
def tiny(servers):
    """A server that some tests share: what one has pushed is there for the next."""
    return servers(8)


@pytest.fixture
def matrix(servers):
    """Another one, of float32."""
    return servers(ONES.nbytes)


@pytest.fixture
def large(servers):
    """Another one, of three shards."""
    return servers(13_000_000)


@pytest.fixture(scope="module")
def pushers(cluster3):
    """Other workers, on node 0 and on node 1."""
    found = [workers.Worker.options(resources={f"node{node}": 0.001}).remote() for node in (0, 1)]
    yield found
    for pusher in found:
        ray.kill(pusher)


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


NUMBERS_OF_SHARDS = {name: short_or_long([number], [1, 4]) for name, number in [("shm", 4), ("ray", 1), ("mixed", 4)]}


def test_nested_parameters_of_both_dtypes_come_out_as_they_went_in_and_as_pushes_left_them(reach, rng):
    def make(shape, dtype):
        return np.asarray(rng.normal(size=shape), dtype)

    initial, grads = tree(make), tree(make)
    rule = fastps.SGD(0.1, weight_decay=0.01)
    for num_shards in NUMBERS_OF_SHARDS[reach.name]:
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


SIZES = {
    "shm": (8, 13_000_000),
    "ray": (8, ONES.nbytes, 8_000_000, 13_000_000),
    "mixed": (ONES.nbytes, 13_000_000),
}


def test_payloads_of_every_size_arrive_whole(reach, servers, rng):
    for nbytes in SIZES[reach.name]:
        ps = servers(nbytes)
        before = ps.pull()
        values = rng.integers(-(2**18), 2**18, before.shape).astype(before.dtype)  # sums of a few are exact
        assert values.nbytes == nbytes
        reach.push(values)
        assert np.array_equal(reach.pull(), before + values)
        assert np.array_equal(reach.push_pull(values), before + 2 * values)
        assert np.array_equal(ps.pull(), before + 2 * values)


@pytest.mark.usefixtures("matrix")
def test_out_is_written_in_place_and_refused_where_it_cannot_be(reach):
    shape, before = SHAPE, reach.pull()
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
    "another shape": (ONES[:, :9], fastps.ShapeError),
    "float64": (np.ones(SHAPE), fastps.DtypeError),
    "integers": (np.ones(SHAPE, int), fastps.DtypeError),
    "a mapping": ({"a": ONES}, fastps.ParameterError),
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


def test_no_pull_is_torn_while_others_push(reach, large, pushers):
    zeros = np.zeros(1_625_000)
    reach.push(-reach.pull())
    versions = reach.versions()
    assert not reach.pull().any()
    ray.get([pusher.take.remote(large) for pusher in pushers])
    pushed = [pusher.push_ones.remote(zeros + 1, 1.0) for pusher in pushers]
    assert reach.pull_torn(bounds(zeros, 3), 10) == 0
    count = sum(ray.get(pushed))
    assert count > 0
    assert (reach.pull() == count).all()
    assert reach.versions() == tuple(version + count for version in versions)
    ray.get([pusher.take.remote(None) for pusher in pushers])


@pytest.mark.usefixtures("matrix")
def test_threads_of_one_worker_push_and_pull_at_once_without_losing_any(reach):
    before = reach.pull()
    assert reach.push_from_threads(ONES, 4, 10) == []
    assert np.array_equal(reach.pull(), before + 40)


@pytest.mark.usefixtures("matrix")
def test_every_other_node_costs_one_call_however_many_shards_it_has(reach):
    reach.push(ONES)
    before = reach.pull()
    for function, *args in [(workers.push, ONES), (workers.pull,), (workers.push_pull, ONES)]:
        assert len(reach.do(workers.count_calls, function, *args)) == reach.remote_nodes
    assert np.array_equal(reach.pull(), before + 2)


def test_stats_count_what_happened_wherever_they_are_asked(reach, matrix):
    before = reach.stats()
    reach.push(ONES, 4)
    reach.pull()
    reach.push_pull(ONES)
    stats = reach.stats()
    assert [shard.shard for shard in stats.shards] == [0, 1, 2, 3]
    assert tuple(shard.node_id for shard in stats.shards) == matrix.node_ids
    for was, shard in zip(before.shards, stats.shards, strict=True):
        done = [
            getattr(shard, name) - getattr(was, name)
            for name in ("pushes", "pulls", "push_pulls", "version", "bytes_written", "bytes_read")
        ]
        assert done == [4, 1, 1, 5, 5 * ONES.nbytes // 4, 2 * ONES.nbytes // 4]
        assert shard.interrupted_pushes == shard.recovered_locks == 0
    assert stats.total["pushes"] == before.total["pushes"] + 16
    assert matrix.stats() == stats or matrix.stats().total["sessions"] >= stats.total["sessions"]


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


@pytest.mark.usefixtures("matrix")
def test_a_push_that_arrives_twice_is_applied_once(reach):
    before, versions = reach.pull(), reach.versions()
    repeated, found = reach.do(repeat_last_push, ONES)
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


def check_resumption(reach, ps, grads, added):
    """One shard's lock is held while a push is on its way; `added()`: how much more than at first each array holds."""
    versions = reach.versions()
    reach.push(grads)
    held = ps.attachment.spec.addresses[1]
    with Holder(held.pid, held.fd, stripe=1) as holder:
        text, applied, partial, pending = reach.do(push_and_keep_the_error, grads, 0.7)
        assert "resume=error.resume" in text
        assert sorted([*applied, *partial, *pending]) == [0, 1, 2]
        assert 1 not in applied
        holder.let_go()
    reach.do(resume_kept, grads)
    assert all((array == 2).all() for array in added())
    versions = tuple(version + 2 for version in versions)
    assert reach.versions() == versions
    assert reach.error_of(resume_kept, grads)[0] is fastps.OptionError
    assert reach.versions() == versions


def test_a_push_that_timed_out_is_resumed_to_exactly_once(reach, large):
    before = reach.pull()
    check_resumption(reach, large, np.ones_like(before), lambda: [reach.pull() - before])
    if reach.name in short_or_long(["mixed"], REACHES):  # one of many arrays, too
        grads = {"a": np.ones(500_000), "b": np.ones((100, 10), np.float32)}
        with reach.server({name: ones * 0 for name, ones in grads.items()}, 3) as ps:
            check_resumption(reach, ps, grads, lambda: reach.pull().values())


def test_a_killed_shard_raises_shard_died_error_that_names_shard_and_node(reach):
    ps = reach.server(np.zeros(1000), 2)
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


def test_more_workers_one_after_the_other_than_a_shard_remembers_lose_no_push(reach, tiny):
    """Each comes with a number of its own, pushes once and is not heard of again."""
    before, (version,) = tiny.pull(), tiny.versions
    for count in range(1, 71):
        reach.do(push_as_somebody_new, np.ones(1))
        assert tiny.versions == (version + count,)
    assert tiny.pull() == before + 70


def push_as_somebody_new(ps, grads):
    """A push of a process that the shards have not heard of."""
    ps.attachment.arrays = None

    attach.attachments.drop(ps.attachment.spec.server_id)
    ps.push(grads)

"""Local steps and averages: workers with copies of their own do what each would do alone, and then take the mean."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading

import numpy as np
import pytest
import ray

import fastps
from tests.conformance.test_round_workers import Interrupted, notes_of
from tests.support import workers
from tests.support.extent import samples
from tests.support.leftovers import own_arenas
from tests.support.local_server import LocalServer
from tests.support.waiting import GUARD_SECONDS

pytestmark = pytest.mark.usefixtures("ray_local")

N, K, ROUNDS, TOGETHER = 1001, 3, 8, 3
ZEROS, ONES = np.zeros(N), np.ones(N)


def start_values(dtype):
    return np.linspace(-1, 1, N).astype(dtype)


def gradient(params, rank, step):
    """Depends on what was read: a stale or torn read changes all that follows."""
    kind = params.dtype.type
    return params * kind(0.3) + kind((rank + 1) * 0.01 * (step % 5 - 2))


def alone(rule, first, limit=np.inf):
    """The same without a server of rounds: a server for each worker, and the mean as numpy takes it."""
    servers = [LocalServer.create(first, rule=rule, num_shards=3) for _ in range(TOGETHER)]
    means, own = [], np.empty((TOGETHER, N), first.dtype)
    for number in range(ROUNDS):
        for rank, server in enumerate(servers):
            for step in range(number * K, (number + 1) * K):
                server.pull_into(own[rank])
                server.push_from(np.clip(gradient(own[rank], rank, step), -limit, limit))
            server.pull_into(own[rank])
        means.append(own.mean(axis=0, dtype=first.dtype))
        for server in servers:
            server.group.run([means[-1]], None, streams=[[0]])
    return means


def train(ps, rank, seen=None):
    with ps.worker(rank) as w:
        for step in range(ROUNDS * K):
            params = w.pull()
            if step % K == 0 and seen is not None:
                seen.append(params.copy())
            assert w.push(gradient(params, rank, step)).counted
        assert w.clock == ROUNDS
        return w.pull()


@pytest.fixture(scope="module")
def shared_server(ray_local):
    with fastps.ParameterServer(ZEROS, num_shards=2, consistency=fastps.LocalSGD(2)) as ps:
        yield ps


@pytest.fixture
def shared(shared_server):
    """`shared(count)`: a server that many tests use, and `count` workers in this thread. Its parameters are zeros, a
    round has two steps, and the rounds go on from `ps.versions`."""

    @contextlib.contextmanager
    def entered(count):
        with shared_server.worker() as w:
            for _ in range(2):
                w.end_step()  # with what those that have left gave to the open round
            w.push(-w.pull())
            w.end_step()
            assert not w.pull().any()
        with contextlib.ExitStack() as stack:
            yield shared_server, *[stack.enter_context(shared_server.worker()) for _ in range(count)]

    return entered


@samples(rule=[fastps.SGD(0.05, momentum=0.9), fastps.Adam(0.01)], dtype=[np.float32, np.float64])
def test_local_steps_and_means_are_those_of_workers_alone_bit_for_bit(rule, dtype):
    first = start_values(dtype)
    expected = alone(rule, first)
    with fastps.ParameterServer(first, rule=rule, num_shards=2, consistency=fastps.LocalSGD(K, workers=TOGETHER)) as ps:
        seen = [[] for _ in range(TOGETHER)]
        threads = [threading.Thread(target=train, args=(ps, rank, seen[rank])) for rank in range(TOGETHER)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for rank in range(TOGETHER):
            assert [found.tobytes() for found in seen[rank]] == [first.tobytes(), *(m.tobytes() for m in expected[:-1])]
        assert ps.pull().tobytes() == expected[-1].tobytes()
        assert ps.versions == (ROUNDS,) * 2
    gc.collect()


def test_workers_in_other_processes_take_part_in_the_same_means():
    first = start_values(np.float32)
    expected = alone(fastps.Adam(0.01), first)
    with fastps.ParameterServer(
        first, rule=fastps.Adam(0.01), num_shards=2, consistency=fastps.LocalSGD(K, workers=TOGETHER)
    ) as ps:
        actors = [workers.Worker.remote(ps) for _ in range(TOGETHER)]
        last = ray.get([actor.do.remote(train, rank) for rank, actor in enumerate(actors)])
        assert all(found.tobytes() == expected[-1].tobytes() for found in last)
        for actor in actors:
            ray.kill(actor)


def test_clipping_is_of_each_gradient_and_not_of_the_parameters():
    first = start_values(np.float64) * 100
    expected = alone(fastps.SGD(0.1), first, limit=0.2)
    with fastps.ParameterServer(
        first, rule=fastps.SGD(0.1), clip_value=0.2, consistency=fastps.LocalSGD(K, workers=TOGETHER)
    ) as ps:
        threads = [threading.Thread(target=train, args=(ps, rank)) for rank in range(TOGETHER)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert np.array_equal(ps.pull(), expected[-1])


def test_pushes_change_only_the_workers_own_copy_until_the_round_is_over(shared):
    with shared(2) as (ps, a, b):
        first = a.clock
        a.push(ONES)
        assert (a.pull() == 1).all()
        with a.view() as view:
            pieces = [piece.array for piece in view.pieces]
            assert all((piece == 1).all() for piece in pieces)
            for piece in pieces:
                with pytest.raises(ValueError, match="read-only"):
                    piece[0] = 5
        assert (b.pull() == 0).all()
        assert (ps.pull() == 0).all()
        assert (a.push_pull(ONES, step=False) == 2).all()  # none of the steps
        a.push(ONES)
        b.end_step()
        b.push(3 * ONES)
        assert (a.pull() == 3).all()
        assert (b.pull() == 3).all()
        assert (ps.pull() == 3).all()
        assert (a.clock, b.clock, ps.versions) == (first + 1, first + 1, (first + 1,) * 2)
        del pieces, piece


def test_a_step_of_a_round_that_its_worker_does_not_end_counts_for_nobody(shared):
    with shared(1) as (ps, a):
        with ps.worker() as b:
            b.push(100 * ONES)
            a.push(ONES)
            a.push(ONES)
        assert (a.pull() == 2).all()
        assert (ps.pull() == 2).all()


def test_hyper_parameters_are_those_of_the_rounds_beginning():
    with (
        fastps.ParameterServer(ZEROS, rule=fastps.SGD(1.0), consistency=fastps.LocalSGD(2)) as ps,
        ps.worker() as w,
    ):
        w.push(ONES)
        ps.configure(lr=10.0)
        w.push(ONES)
        assert (w.pull() == -2).all()
        w.push(ONES)
        assert (w.pull() == -12).all()


@pytest.mark.parametrize("nonfinite", ["skip", "raise"])
def test_gradients_that_are_not_finite_do_not_reach_the_copy(nonfinite):
    with (
        fastps.ParameterServer(ZEROS, nonfinite=nonfinite, consistency=fastps.LocalSGD(2)) as ps,
        ps.worker() as w,
    ):
        if nonfinite == "skip":
            assert not w.push(np.full(N, np.nan)).counted
        else:
            with pytest.raises(fastps.NonfiniteError):
                w.push(np.full(N, np.inf))
        w.push(ONES)
        w.push(ONES)
        assert (w.pull() >= 1).all()
        assert np.isfinite(ps.pull()).all()
        assert ps.stats().total["skipped"] == 1


def test_a_wrong_gradient_leaves_copy_and_steps_as_they_were(shared):
    with shared(1) as (_, w):
        first = w.clock
        w.push(ONES)
        with pytest.raises(fastps.ShapeError):
            w.push(np.ones(N + 1))
        with pytest.raises(fastps.OptionError, match="nothing to resume"):
            w.push(ONES, pulled=ONES)
        assert (w.pull() == 1).all()
        assert w.clock == first
        w.push(ONES)
        assert w.clock == first + 1


def test_slots_are_each_workers_own():
    with fastps.ParameterServer(ZEROS, rule=fastps.Adam(0.1), consistency=fastps.LocalSGD(2)) as ps:
        for call in (lambda: ps.slots("m"), lambda: ps.set(slots={"m": ZEROS})):
            with pytest.raises(fastps.OptionError, match="each worker has slots of its own"):
                call()
        with pytest.raises(fastps.WorkerRequiredError):
            ps.push(ONES)
        with fastps.ParameterServer(ZEROS, rule=fastps.Adam(0.1), consistency=fastps.BSP()) as other:
            sizes = [os.fstat(server.attachment.session.shm.arenas[0].fd).st_blocks for server in (ps, other)]
            assert sizes[0] < sizes[1]  # no room for slots


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize(("of", "name"), [("_membership", "give"), ("_rounds", "deposit"), ("_rounds", "help")])
def test_an_interrupt_at_the_end_of_a_round_leaves_its_step_done_once(shared, of, name, behind):
    with shared(2) as (ps, a, b):
        first = a.clock
        b.push(ONES)
        b.push(ONES)
        a.push(ONES)
        setattr(a, of, Interrupted(getattr(a, of), name, behind))
        assert "do not repeat it" in notes_of(a.push, 3 * ONES)
        assert (a.pull() == 3).all()
        for w in (a, b, a, b):
            w.push(ONES)
        assert (a.pull() == 5).all()
        assert (a.clock, b.clock, ps.versions) == (first + 2, first + 2, (first + 2,) * 2)


@pytest.mark.parametrize("steps", [0, -1, 1.5, "8", True, None])
def test_steps_are_a_whole_number_above_zero(steps):
    with pytest.raises(fastps.OptionError, match="steps: expected a whole number from 1"):
        fastps.LocalSGD(steps)


def test_a_worker_that_left_gives_its_memory_back(shared):
    with shared(0) as (ps,):
        ps.pull()
        gc.collect()
        before = len(own_arenas())
        for _ in range(5):
            with ps.worker() as w:
                w.push(ONES)
                assert len(own_arenas()) > before
                view = w.view()
            assert (view.pieces[0].array == 1).all()
            del view
            assert len(own_arenas()) == before
            w.close()
            with pytest.raises(fastps.ClosedError):
                w.pull()


def hold(ps, rank):
    ps.kept = ps.worker(rank)
    ps.kept.push(ONES)
    return os.getpid()


def push_late(ps):
    """(whether the first counted, whether the second did, returns)"""
    w = ps.kept
    found = w.push(np.full(N, 50.0)).counted, w.push(ONES).counted, w.returns
    w.close()
    return found


def test_a_worker_that_was_expelled_begins_again_with_the_mean_of_the_others():
    policy = fastps.LocalSGD(2, workers=2, straggler_timeout=1.0)
    with fastps.ParameterServer(ZEROS, consistency=policy) as ps, ps.worker(0) as w:
        other = workers.Worker.remote(ps)
        pid = ray.get(other.do.remote(hold, 1))
        w.pull()
        os.kill(pid, signal.SIGSTOP)
        for _ in range(4):
            w.push(ONES, timeout=GUARD_SECONDS)
        assert (w.pull(timeout=GUARD_SECONDS) == 4).all()
        os.kill(pid, signal.SIGCONT)
        counted, again, returns = ray.get(other.do.remote(push_late))
        assert (counted, again, returns) == (False, True, 1)
        w.push(ONES)
        w.push(ONES)
        assert (w.pull(timeout=GUARD_SECONDS) == 6).all()
        ray.kill(other)

"""Handles in tasks, actors and other drivers of a real cluster of one node."""

from __future__ import annotations

import concurrent.futures
import os
import pickle
import subprocess
import sys
import time

import numpy as np
import pytest
import ray

import fastps
from tests.support import workers
from tests.support.leftovers import own_arenas
from tests.support.waiting import GUARD_SECONDS

pytestmark = pytest.mark.usefixtures("ray_local")


@pytest.fixture(scope="module")
def worker(ray_local):
    return workers.Worker.remote()


@pytest.fixture(scope="module")
def five(ray_local):
    """A server of five parameters, which the tests add to, and what it held at the beginning."""
    with fastps.ParameterServer(5) as ps:
        yield ps, ps.pull()


@pytest.fixture(scope="module")
def split(ray_local):
    """A server of two shards, and the array that it was created with."""
    mine = np.ones((2, 3), np.float32)
    with fastps.ParameterServer({"w": mine}, num_shards=2, rule=fastps.SGD(0.5)) as ps:
        yield ps, mine


@pytest.fixture(scope="module")
def tree(ray_local):
    """A server of arrays of two dtypes, one of them in a dict of its own, which the tests add to."""
    with fastps.ParameterServer({"a": np.zeros(4), "b": {"c": np.ones((2, 2), np.float32)}}) as ps:
        yield ps


@pytest.fixture(scope="module")
def closed(ray_local):
    """A closed handle, and one that was pickled before."""
    ps = fastps.ParameterServer(np.zeros(4))
    ps.push(np.ones(4))
    late = pickle.dumps(ps)
    ps.close()
    ps.close()
    return ps, late


def test_the_readme_example_works():
    ps = fastps.ParameterServer(np.zeros(10, np.float32), num_shards=2)

    @ray.remote
    def work(ps):
        for _ in range(10):
            params = ps.pull()
            ps.push(np.ones_like(params))

    ray.get([work.remote(ps) for _ in range(2)])
    assert ps.pull().tolist() == [20] * 10
    ps.close()


def test_the_style_of_an_actor_works_and_also_pulls_and_pushes():
    from fastps import ParameterServer

    ps = ParameterServer.remote(5)
    ps.update_params.remote(np.ones(5))
    ps.update_params.remote(ray.put(np.ones(5)))
    assert ray.get(ps.get_params.remote()).tolist() == [2] * 5
    ps.push(np.ones(5))
    assert ps.pull().tolist() == [3] * 5
    assert ray.get(workers.push_and_pull.remote(ps, np.ones(5)))[0].tolist() == [4] * 5
    ps.close()


def test_a_process_attaches_once_however_many_handles_arrive():
    worker = workers.Worker.remote()
    with fastps.ParameterServer(np.zeros(10), num_shards=2) as ps:
        for count in range(1, 6):
            ray.get(worker.take.remote(ps))
            ray.get(worker.push.remote(np.ones(10)))
            assert ray.get(worker.arenas.remote()) == 2
            assert (ps.pull() == count).all()
        answers = ray.get([workers.push_and_pull.remote(ps, np.ones(10)) for _ in range(3)])
        assert (ps.pull() == 8).all()
        assert ps.stats().shards[0].sessions <= 2 + len({pid for _, pid in answers})
    ray.kill(worker)


def test_a_worker_that_pulls_and_pushes_does_not_load_numba(split):
    worker = workers.Worker.remote(split[0])
    ray.get(worker.push_pull.remote({"w": np.ones((2, 3), np.float32)}))
    loaded = ray.get(worker.modules.remote())
    assert "llvmlite" in loaded
    assert "numba" not in loaded
    ray.kill(worker)


def test_object_references_and_futures_are_pushed_as_what_they_stand_for(five, tree):
    @ray.remote
    def gradient(value, size):
        return np.full(size, value)

    ps, _ = five
    before = ps.pull()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        ps.push(ray.put(np.ones(5)))
        ps.push(gradient.remote(2.0, 5))
        ps.push(pool.submit(np.full, 5, 4.0))
        assert (ps.push_pull(gradient.remote(8.0, 5)) - before).tolist() == [15] * 5
    before = tree.pull()
    tree.push({"a": gradient.remote(1.0, 4), "b": {"c": ray.put(np.full((2, 2), 2.0, np.float32))}})
    after = tree.pull()
    assert (after["a"] - before["a"]).tolist() == [1] * 4
    assert (after["b"]["c"] - before["b"]["c"]).tolist() == [[2] * 2] * 2


def test_an_object_reference_that_fails_or_does_not_come_changes_nothing(five):
    @ray.remote
    def fail():
        raise RuntimeError("no gradient today")

    @ray.remote(num_cpus=1000)
    def never():
        return None

    ps, _ = five
    before = ps.versions
    with pytest.raises(RuntimeError, match="no gradient today"):
        ps.push(fail.remote())
    ref = never.remote()
    with pytest.raises(fastps.WaitTimeoutError):
        ps.push(ref, timeout=0.2)
    ray.cancel(ref, force=True)
    assert ps.versions == before


def test_two_servers_at_once_do_not_touch_each_other(five):
    one, _ = five
    with fastps.ParameterServer(np.zeros(20, np.float32)) as two:
        before = one.pull()
        one.push(np.ones(5))
        assert ray.get(workers.push_and_pull.remote(two, np.ones(20, np.float32)))[0].tolist() == [1] * 20
        two.push(np.ones(20, np.float32))
        assert (one.pull() - before).tolist() == [1] * 5
        assert two.pull().tolist() == [2] * 20


def test_a_server_can_be_created_again_and_again_under_the_same_name():
    for _ in range(2):
        with fastps.ParameterServer(np.zeros(3), name="again") as ps:
            ps.push(np.ones(3))
            assert fastps.get("again").pull().tolist() == [1] * 3


def test_a_taken_name_raises_and_an_unknown_one_is_not_found():
    with fastps.ParameterServer(np.zeros(3), name="mine") as ps:
        assert ps.name == "mine"
        with pytest.raises(fastps.NameTakenError, match="'mine'"):
            fastps.ParameterServer(np.ones(3), name="mine")
        assert not fastps.get("mine").pull().any()
    with pytest.raises(fastps.ServerNotFoundError, match="'nobody'"):
        fastps.get("nobody")


def test_another_driver_finds_a_named_server_and_its_end_leaves_the_server():
    program = (
        "import ray, sys, numpy as np, fastps\n"
        "ray.init(address=sys.argv[1], log_to_driver=False)\n"
        "with fastps.get('shared') as ps:\n"
        "    ps.push(np.ones(3, np.float32))\n"
        "    print(ps.pull().tolist())\n"
    )
    with fastps.ParameterServer(np.zeros(3, np.float32), name="shared") as ps:
        answer = subprocess.run(
            [sys.executable, "-c", program, ray.get_runtime_context().gcs_address],
            capture_output=True,
            text=True,
            timeout=GUARD_SECONDS,
        )
        assert answer.stdout.splitlines()[-1:] == [str([1.0] * 3)], answer.stderr
        ps.push(np.ones(3, np.float32))
        assert fastps.get("shared").pull().tolist() == [2] * 3


def test_closing_a_handle_lets_go_in_this_process_and_leaves_other_handles_and_the_server(five):
    ps, _ = five
    before, uncounted = ps.pull(), ps.versions[0] - ps.stats().shards[0].pushes  # those of push_pull
    other, third = (pickle.loads(pickle.dumps(ps)) for _ in range(2))
    other.push(np.ones(5))
    third.push(np.ones(5))
    other.close()
    other.close()
    with pytest.raises(fastps.ClosedError):
        other.push(np.ones(5))
    for handle in (ps, third):
        handle.push(np.ones(5))
        assert handle.versions[0] > 2
        assert handle.stats().shards[0].pushes == handle.versions[0] - uncounted
        with handle.view() as view:
            assert np.array_equal(view.params, handle.pull())
    assert (ps.pull() - before).tolist() == [4] * 5


def test_a_closed_handle_raises_closed_error_whatever_is_asked(closed):
    ps, _ = closed
    asks = [
        ps.pull, lambda: ps.push(np.ones(4)), lambda: ps.push_pull(np.ones(4)), ps.view, ps.stats, lambda: ps.versions,
        lambda: ps.pull(out=np.zeros(4)), lambda: ps.push(np.ones(5)),
    ]  # fmt: skip
    for ask in asks:
        with pytest.raises(fastps.ClosedError):
            ask()
    assert "closed" in repr(ps)


def test_a_handle_that_arrives_after_the_end_raises_closed_error_or_shard_died_error(closed):
    _, late = closed
    with pytest.raises((fastps.ClosedError, fastps.ShardDiedError)):
        pickle.loads(late).pull()


def test_a_worker_blocked_out_by_close_gets_closed_error(worker):
    ps = fastps.ParameterServer(np.zeros(1_000_000))
    ray.get(worker.take.remote(ps))
    ref = worker.error_of.remote(push_until_it_fails, np.ones(1_000_000))
    while ps.versions[0] < 3:
        time.sleep(0.01)
    ps.close()
    error, text, *_ = ray.get(ref)
    assert error is fastps.ClosedError
    assert "shard 0 of 1" in text


def push_until_it_fails(ps, grads):
    while True:
        ps.push(grads)


def test_the_with_block_closes_after_an_exception():
    with pytest.raises(KeyError, match="mine"), fastps.ParameterServer(np.zeros(4), name="broken") as ps:
        raise KeyError("mine")
    with pytest.raises(fastps.ClosedError):
        ps.pull()
    with pytest.raises(fastps.ServerNotFoundError):
        fastps.get("broken")


def test_close_gives_the_memory_back_while_a_worker_has_it_mapped(worker):
    ps = fastps.ParameterServer(np.ones(2_000_000))
    ray.get(worker.take.remote(ps))
    ray.get(worker.push.remote(np.ones(2_000_000)))
    with ps.view() as view:
        kept = view.params
    address = ps.attachment.spec.addresses[0]
    fd = os.open(f"/proc/{address.pid}/fd/{address.fd}", os.O_RDONLY)
    before = os.fstat(fd).st_blocks * 512
    assert before > 16_000_000
    ps.close()
    assert os.fstat(fd).st_blocks * 512 < before - 15_000_000
    os.close(fd)
    assert kept[1_000_000] == 0


def test_views_are_live_and_follow_pushes_of_other_processes(worker, tree):
    before = tree.pull()
    ray.get(worker.take.remote(tree))
    with tree.view() as view:
        a = view["a"]
        ray.get(worker.push.remote({"a": np.ones(4), "b": {"c": np.ones((2, 2), np.float32)}}))
        assert a.tolist() == (before["a"] + 1).tolist()
        assert view["b"]["c"].tolist() == (before["b"]["c"] + 1).tolist()
    del a


def test_a_view_of_parameters_on_two_shards_is_in_two_pieces(split):
    ps, _ = split
    with ps.view() as view:
        with pytest.raises(fastps.SplitError):
            _ = view.params
        assert [piece.array.size for piece in view.pieces] == [3, 3]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"num_shards": 0}, fastps.OptionError),
        ({"placement": "ANYWHERE"}, fastps.PlacementError),
        ({"placement": ["no such node"]}, fastps.PlacementError),
        ({"placement": {"num_cpus": 1000}}, fastps.PlacementError),
        ({"placement": {"resources": {"moon": 1}}}, fastps.PlacementError),
        ({"placement": "STRICT_SPREAD", "num_shards": 2}, fastps.PlacementError),
    ],
    ids=str,
)
def test_options_out_of_range_raise_and_create_nothing(options, error):
    before = own_arenas()
    with pytest.raises(error):
        fastps.ParameterServer(np.zeros(10), **options)
    assert own_arenas() == before


@pytest.mark.parametrize("length", [10**11, 1 << 44, 10**30])
def test_parameters_that_no_machine_holds_raise_a_memory_error_and_leave_the_name_free(length):
    with pytest.raises(fastps.ArenaMemoryError) as caught:
        fastps.ParameterServer(length, name="huge")
    assert isinstance(caught.value, MemoryError)
    with pytest.raises(fastps.ServerNotFoundError):
        fastps.get("huge")


def test_an_int_is_that_many_float64_zeros(five):
    _, found = five
    assert (found.dtype, found.tolist()) == (np.float64, [0] * 5)


def test_the_initial_parameters_are_copied(split):
    ps, mine = split
    before = ps.pull()["w"]
    mine[:] = 7
    assert (ps.pull()["w"] == before).all()
    ps.push({"w": np.ones((2, 3), np.float32)})
    assert (ps.pull()["w"] == before - 0.5).all()
    assert (mine == 7).all()


def test_a_rule_of_the_users_own_is_applied():
    with fastps.ParameterServer(np.full(5, 10.0), rule=workers_rule()) as ps:
        ps.push(np.array([-9.0, -0.5, 0.0, 0.5, 9.0]))
        assert ps.pull().tolist() == [11, 10.5, 10, 9.5, 9]


def workers_rule():
    from tests.support.clipped import clipped

    return clipped(1.0, 1.0)


def test_what_repr_says(split):
    text = repr(split[0])
    assert "float32[2, 3]" in text
    assert "2 shards" in text
    assert "SGD(0.5)" in text

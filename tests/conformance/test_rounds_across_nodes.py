"""The same promises with workers and shards on three nodes."""

from __future__ import annotations

import numpy as np
import pytest
import ray

import fastps
from tests.conformance import test_local_sgd as local
from tests.conformance.test_round_workers import ONES, N, check_what_others_do, two_streams
from tests.conformance.test_rounds import (
    ROUNDS,
    TOGETHER,
    alone,
    assert_same_bits,
    check,
    check_coded,
    give_coded,
    histories,
    start,
    start_values,
    team,
    train,
)
from tests.support.extent import samples, short_or_long

SHARDS_ON = {"shards-on-two": (0, 1), "shards-on-one": (2,)}  # workers are on all three
STEPS = 40  # of a recorded history
BACKUP_ROUNDS = 200


def spread(*short):
    """Parametrizes a test: where the shards are."""
    names = short_or_long(list(short), list(SHARDS_ON))
    return pytest.mark.parametrize("shards_on", [pytest.param(SHARDS_ON[name], id=name) for name in names])


@pytest.fixture(scope="module")
def actors(cluster3):
    found = start(TOGETHER, cluster3.ids)
    yield found
    for actor in found:
        ray.kill(actor)


def server(cluster3, shards_on, params, policy, **options):
    placement = [cluster3.ids[i] for i in shards_on]
    return fastps.ParameterServer(params, num_shards=len(placement), placement=placement, consistency=policy, **options)


@pytest.mark.parametrize(
    ("rule", "dtype", "reduce", "shards_on"),
    [
        (fastps.SGD(0.02, momentum=0.9), np.float64, "sum", (0, 1)),
        (fastps.Adam(0.01), np.float32, "mean", (2,)),
    ],
    ids=["momentum-shards-on-two", "adam-shards-on-one"],
)
def test_workers_together_are_one_process_bit_for_bit(cluster3, actors, rng, rule, dtype, reduce, shards_on):
    first = start_values(N, dtype)
    expected = alone(rule, first, reduce, ROUNDS)
    policy = fastps.BSP(reduce=reduce, deterministic=True, workers=TOGETHER)
    with (
        server(cluster3, shards_on, first, policy, rule=rule) as ps,
        team("actors", ps, TOGETHER, actors) as those,
    ):
        for found in those.run(train, ROUNDS, first, int(rng.integers(2**31))):
            assert_same_bits(found, expected[:ROUNDS])
        assert_same_bits([ps.pull()], [expected[ROUNDS]])


@samples(backup=[0, 1], shards_on=list(SHARDS_ON.values()))
def test_recorded_histories_are_of_rounds(cluster3, actors, rng, backup, shards_on):
    policy = fastps.BSP(reduce="sum", backup=backup, workers=3)
    with server(cluster3, shards_on, np.zeros(6), policy) as ps:
        check(histories("actors", ps, STEPS, int(rng.integers(2**31)), actors), backup, ps)


@spread("shards-on-two")
def test_with_backup_workers_every_gradient_counts_on_all_shards_or_on_none(cluster3, actors, rng, shards_on):
    policy = fastps.BSP(reduce="sum", backup=1, workers=TOGETHER)
    with server(cluster3, shards_on, np.zeros(N), policy) as ps:
        with team("actors", ps, TOGETHER, actors) as those:
            answers = those.run(give_coded, BACKUP_ROUNDS, N, int(rng.integers(2**31)))
        assert check_coded(answers, TOGETHER) > 0


def do_all(ps, nodes):
    """What a worker does, step by step, where its shards are elsewhere."""
    with ps.worker() as w:
        w.push(ONES, step=False)
        for grads in (np.ones(N + 1, np.float32), np.ones(N)):
            with pytest.raises(fastps.ParameterError):
                w.push(grads)
        w.push(ONES, step=False)
        assert (w.pull() == 0).all()
        assert not w.push(np.nan * ONES, step=False).counted
        w.push(ONES)
        assert (w.pull() == 3).all()
        assert w.reply.versions == (1,) * nodes
        w.end_step()
        w.end_step()
        assert (w.pull() == 3).all()
        assert w.reply.versions == (3,) * nodes
        w.push(7 * ONES, step=False)
        with pytest.raises(fastps.SplitError):
            w.view()
    with ps.worker() as again:
        assert (again.rank, again.clock) == (0, 3)
        assert (again.push_pull(ONES) == 4).all()
        assert (again.reply.clock, again.reply.versions, again.reply.counted) == (3, (4,) * nodes, True)
    with pytest.raises(fastps.WorkerRequiredError):
        ps.push(ONES)


@spread("shards-on-two", "shards-on-one")
def test_a_worker_elsewhere_does_all_that_one_here_does(cluster3, actors, shards_on):
    with server(cluster3, shards_on, np.zeros(N, np.float32), fastps.BSP(reduce="sum"), nonfinite="skip") as ps:
        ray.get(actors[1].take.remote(ps))
        ray.get(actors[1].do.remote(do_all, len(shards_on)))
        assert (ps.pull() == 4).all()


def join(ps):
    ps.kept = ps.worker(1)
    return ps.kept.clock


def give_and_go(ps, factor, keeps):
    ps.kept.push(factor * ONES, step=not keeps)
    ps.kept.close()


def test_a_worker_elsewhere_that_leaves_in_the_middle_of_a_step_leaves_nothing_behind(cluster3, actors):
    away = actors[2]
    with server(cluster3, (0, 1), np.zeros(N, np.float32), fastps.BSP(reduce="sum")) as ps, ps.worker(0) as w:
        ray.get(away.take.remote(ps))
        total = 0
        for number, keeps in enumerate([True, False, True]):
            assert ray.get(away.do.remote(join)) == number
            w.push(ONES)
            with pytest.raises(fastps.WaitTimeoutError, match="the worker of rank 1"):
                w.pull(timeout=0.05)
            ray.get(away.do.remote(give_and_go, 10, keeps))
            total += 1 if keeps else 11
            assert (w.pull() == total).all()


def test_processes_elsewhere_that_are_no_workers_read_and_set_while_rounds_go_on(cluster3, actors):
    policy = fastps.BSP(reduce="sum", workers=2)
    with server(cluster3, (0, 1), np.zeros(N, np.float32), policy, rule=two_streams) as ps:
        ray.get([actor.take.remote(ps) for actor in actors])
        check_what_others_do(ps, actors[:2], lambda *args: ray.get(actors[2].do.remote(*args)), 600, 20)


@spread("shards-on-one")
def test_local_steps_and_means_are_those_of_workers_alone(cluster3, actors, shards_on):
    first = local.start_values(np.float32)
    expected = local.alone(fastps.Adam(0.01), first)
    policy = fastps.LocalSGD(local.K, workers=local.TOGETHER)
    with server(cluster3, shards_on, first, policy, rule=fastps.Adam(0.01)) as ps:
        those = actors[: local.TOGETHER]
        ray.get([actor.take.remote(ps) for actor in those])
        last = ray.get([actor.do.remote(local.train, rank) for rank, actor in enumerate(those)])
        assert all(found.tobytes() == expected[-1].tobytes() for found in last)
        assert ps.pull().tobytes() == expected[-1].tobytes()
        ray.get([actor.take.remote(None) for actor in those])

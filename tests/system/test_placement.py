"""Where shards go, on a cluster of three nodes."""

from __future__ import annotations

import numpy as np
import pytest
import ray

import fastps
from fastps.cluster import placement
from tests.support import workers
from tests.support.waiting import wait_until


def holds(ps):
    """A push reaches every shard wherever it is."""
    ps.push(np.ones(90))
    return (ps.pull() == 1).all()


def really_on(ps):
    """The nodes of the shards' processes as those themselves say."""
    return {node.node_id for node in ps.attachment.spec.nodes}


def test_without_a_placement_shards_are_on_the_drivers_node(cluster3):
    with fastps.ParameterServer(np.zeros(90), num_shards=2) as ps:
        assert ps.node_ids == (cluster3.ids[0],) * 2
        assert holds(ps)


def test_a_server_that_a_worker_creates_is_on_the_workers_node(cluster3):
    worker = workers.Worker.options(resources={"node2": 0.001}).remote()
    assert ray.get(worker.do.remote(create_and_ask_where)) == (cluster3.ids[2], cluster3.ids[2])
    ray.kill(worker)


def create_and_ask_where(_):
    with fastps.ParameterServer(np.zeros(90)) as ps:
        assert holds(ps)
        return ps.node_ids[0], ray.get_runtime_context().get_node_id()


@pytest.mark.parametrize(
    ("strategy", "shards", "nodes"),
    [("SPREAD", 2, 2), ("STRICT_SPREAD", 3, 3), ("PACK", 2, 1), ("STRICT_PACK", 2, 1)],
)
def test_strategies_spread_and_pack(cluster3, strategy, shards, nodes):
    with fastps.ParameterServer(np.zeros(90), num_shards=shards, placement=strategy) as ps:
        assert len(really_on(ps)) == nodes
        assert holds(ps)


def test_node_ids_place_each_shard(cluster3):
    wanted = [cluster3.ids[i] for i in (2, 0, 2)]
    with fastps.ParameterServer(np.zeros(90), num_shards=3, placement=wanted) as ps:
        assert list(ps.node_ids) == wanted
        assert holds(ps)


def test_resources_place_all_shards_or_each(cluster3):
    with fastps.ParameterServer(np.zeros(90), num_shards=2, placement={"resources": {"node1": 0.1}}) as ps:
        assert really_on(ps) == {cluster3.ids[1]}
        assert holds(ps)
    each = [{"num_cpus": 1, "resources": {"node2": 1}}, cluster3.ids[1]]
    with fastps.ParameterServer(np.zeros(90), num_shards=2, placement=each) as ps:
        assert ps.node_ids == (cluster3.ids[2], cluster3.ids[1])
        assert holds(ps)


def test_what_shards_asked_for_is_free_again_after_close(cluster3):
    most = {"num_cpus": 2, "resources": {"node1": 60}}
    for where, shards in [(most, 1), ("STRICT_SPREAD", 3), (most, 1)]:  # no two of them fit at once
        with fastps.ParameterServer(np.zeros(90), num_shards=shards, placement=where) as ps:
            assert holds(ps)


@pytest.mark.parametrize(
    ("placement", "words"),
    [
        ({"resources": {"node1": 1, "node2": 1}}, "no node has"),
        ({"num_cpus": 3}, "no node has"),
        ("STRICT_SPREAD", "4 shards on different nodes, but only 3"),
    ],
    ids=str,
)
def test_what_the_cluster_cannot_give_raises_placement_error_and_leaves_nothing(cluster3, placement, words):
    with pytest.raises(fastps.PlacementError, match=words):
        fastps.ParameterServer(np.zeros(90), num_shards=4, placement=placement, name="nowhere")
    with pytest.raises(fastps.ServerNotFoundError):
        fastps.get("nowhere")


@pytest.fixture(scope="module")
def on_all_nodes(cluster3):
    params = {"a": np.zeros((30, 3)), "b": np.zeros(10, np.float32)}
    with fastps.ParameterServer(params, num_shards=3, placement=cluster3.ids) as ps:
        yield ps


def test_a_view_of_shards_on_other_nodes_raises_split_error(on_all_nodes):
    with pytest.raises(fastps.SplitError, match=r"\[1, 2\]"):
        on_all_nodes.view()


def test_workers_on_all_nodes_share_one_server_on_all_nodes(on_all_nodes):
    ps = on_all_nodes
    everywhere = [workers.Worker.options(resources={f"node{i}": 0.001}).remote(ps) for i in range(3)]
    grads = {"a": np.ones((30, 3)), "b": np.ones(10, np.float32)}
    ray.get([worker.push.remote(grads, 5) for worker in everywhere])
    for found in [ps.pull(), *ray.get([worker.pull.remote() for worker in everywhere])]:
        assert (found["a"] == 15).all()
        assert (found["b"] == 15).all()
    assert ps.versions == (15, 15, 15)
    for worker in everywhere:
        ray.kill(worker)


@pytest.mark.usefixtures("cluster3")
def test_what_a_signal_handler_raises_behind_a_reservation_leaves_none(monkeypatch):
    def interrupted(*args, **options):
        made.append(real(*args, **options))
        raise KeyboardInterrupt

    made, real = [], placement.placement_group
    monkeypatch.setattr(placement, "placement_group", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fastps.ParameterServer(np.zeros(90), num_shards=3, placement="SPREAD")
    table = ray.util.placement_group_table
    wait_until(lambda: table(made[0])["state"] == "REMOVED", 60, "the reservation is removed")

"""Who is on which node."""

import pytest

from bench.harness.arguments import ArgumentError
from bench.sweep import run
from bench.sweep.grid import Setting
from bench.sweep.placement import Node, Places, places, require_memory

NODES = [Node(name, f"10.0.0.{i}", 1000.0) for i, name in enumerate("abc")]


@pytest.mark.parametrize(
    ("placement", "shards", "workers"), [("local", "aaaa", "aaa"), ("spread", "abca", "abc"), ("remote", "aaaa", "bcb")]
)
def test_placements_are_what_their_names_say(placement, shards, workers):
    assert places(placement, NODES, 4, 3) == Places(tuple(shards), tuple(workers))


def test_one_node_has_no_remote_workers():
    assert places("spread", NODES[:1], 2, 2) == places("local", NODES[:1], 2, 2)
    with pytest.raises(ArgumentError, match="--local-cluster"):
        places("remote", NODES[:1], 1, 1)


@pytest.mark.parametrize(
    ("shards", "worker", "way", "share"),
    [("aa", "a", "shm", 0), ("ab", "a", "mixed", 0.5), ("ab", "c", "ray", 1), ("b", "a", "ray", 1)],
)
def test_the_transport_follows_from_where_everybody_is(shards, worker, way, share):
    where = Places(tuple(shards), (worker,))
    assert where.share_elsewhere(0) == share
    assert run.transports(where, "auto") == [way]
    assert run.transports(where, "ray") == ["ray"]


def test_bytes_cross_nodes_once_an_operation_and_twice_for_both_ways():
    setting, where = Setting(800, 2, 2, "add"), Places(("a", "b"), ("a", "c"))
    runs = [[([], 0.0, 10), ([], 0.0, 3)], [([], 0.0, 1), ([], 0.0, 2)]]  # 11 calls of one worker, 5 of the other
    assert run.crossed(setting, where, "pull", "fastps", runs) == 11 * 400 + 5 * 800
    assert run.crossed(setting, where, "push_pull", "fastps", runs) == 2 * (11 * 400 + 5 * 800)
    assert run.crossed(setting, where, "push", "ray_actor", runs) == 5 * 800  # it is on the first shard's node
    assert run.crossed(setting, where, "push", "memcpy", runs) == 0


def test_a_nodes_share_that_it_has_no_memory_for_is_refused():
    require_memory(NODES, {"a": 1000, "b": 0})
    with pytest.raises(ArgumentError, match=r"node b at 10\.0\.0\.1"):
        require_memory(NODES, {"a": 1000, "b": 1001})

"""Where actors go on a cluster of which only the nodes are known: no Ray runs here."""

from __future__ import annotations

import pytest

from fastps.cluster import placement as module
from fastps.cluster.placement import Owned, Placed, place
from fastps.errors import ClosedError, PlacementError
from fastps.spec.placement import placement_request

HERE, THERE = "a" * 56, "b" * 56
NODES = {HERE: {"CPU": 2.0}, THERE: {"CPU": 4.0, "label": 1.0}}


class Group:
    """A placement group of Ray that is ready at a number of looks."""

    def __init__(self, ready=1):
        self.looks, self.ready, self.removed, self.error, self.lost = 0, ready, 0, None, None
        self.name = ""

    def make(self, bundles, strategy, name):
        self.name = name
        if self.lost is not None:
            raise self.lost
        return self

    def of(self, name):
        if name != self.name:
            raise ValueError(f"no group {name}")
        return self

    def wait(self, seconds):
        self.looks += 1
        if self.error is not None:
            raise self.error
        return self.looks >= self.ready


@pytest.fixture
def group(monkeypatch):
    made = Group()
    monkeypatch.setattr(module.cluster, "nodes", lambda: NODES)
    monkeypatch.setattr(module.cluster, "this_node", lambda: HERE)
    monkeypatch.setattr(module.cluster, "available", lambda: {"CPU": 1.0})
    monkeypatch.setattr(module, "placement_group", made.make)
    monkeypatch.setattr(module, "get_placement_group", made.of)
    monkeypatch.setattr(module, "remove_placement_group", lambda group: setattr(group, "removed", group.removed + 1))
    return made


def placed(placement, num_shards=2, timeout=60.0):
    """What was placed; released where that raises, as by a launch."""
    found = Placed()
    try:
        place(placement_request(placement, num_shards), num_shards, timeout, found)
    except BaseException:
        found.release()
        raise
    return found


def node_of(options):
    strategy = options["scheduling_strategy"]
    assert not strategy.soft
    return strategy.node_id


@pytest.mark.usefixtures("group")
def test_without_a_placement_all_shards_are_on_this_node_and_take_no_cpu():
    found = placed(None)
    assert [node_of(options) for options in found.options] == [HERE, HERE]
    assert {options["num_cpus"] for options in found.options} == {0}
    assert found.group is None


@pytest.mark.usefixtures("group")
def test_node_ids_and_resources_are_options_of_actors():
    one, two = placed([THERE, {"num_cpus": 3, "resources": {"label": 0.5}}]).options
    assert node_of(one) == THERE
    assert two == {"num_cpus": 3, "resources": {"label": 0.5}}


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize(
    ("placement", "words"),
    [
        ([HERE, "c" * 56], f"shard 1: no live node has the id '{'c' * 56}'; the live nodes are"),
        ({"num_cpus": 5}, "shard 0: no node has {'CPU': 5.0}; the live nodes have"),
        ({"resources": {"moon": 1}}, "no node has {'moon': 1.0}"),
        ([HERE, {"num_cpus": 1, "memory": 1, "resources": {"label": 1}}], "shard 1: no node has"),
    ],
    ids=str,
)
def test_what_no_node_has_raises_placement_error(placement, words):
    with pytest.raises(PlacementError) as caught:
        placed(placement)
    assert words in str(caught.value)


def test_a_strategy_reserves_a_bundle_for_each_shard_until_it_is_released(group):
    found = placed("PACK", num_shards=3)
    assert [options["scheduling_strategy"].placement_group_bundle_index for options in found.options] == [0, 1, 2]
    assert found.group is group
    assert group.removed == 0
    found.release()
    found.release()
    assert group.removed == 1


def test_strict_spread_over_more_shards_than_nodes_reserves_nothing(group):
    with pytest.raises(PlacementError, match="3 shards on different nodes, but only 2 live"):
        placed("STRICT_SPREAD", num_shards=3)
    assert group.looks == 0


def test_what_is_not_reserved_in_time_is_removed(group):
    group.ready = 10**9
    with pytest.raises(PlacementError, match=r"could not reserve SPREAD for 2 shards within 0\.01 s; it has"):
        placed("SPREAD", timeout=0.01)
    assert group.removed == 1


def test_what_a_signal_handler_raises_while_it_waits_removes_it_too(group):
    group.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        placed("SPREAD")
    assert group.removed == 1


def test_a_group_that_an_exception_has_lost_is_removed_too(group):
    group.lost = KeyboardInterrupt()  # raised when Ray has made it
    with pytest.raises(KeyboardInterrupt):
        placed("SPREAD")
    assert group.removed == 1


@pytest.mark.usefixtures("group")
def test_what_ray_was_never_asked_for_is_not_removed(monkeypatch):
    def refused(bundles, strategy, name):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "placement_group", refused)
    monkeypatch.setattr(module, "remove_placement_group", None)
    with pytest.raises(KeyboardInterrupt):
        placed("SPREAD")


class Actor:
    def __init__(self):
        self.close = self

    def remote(self):
        return self


def test_a_servers_end_tells_its_actors_and_kills_them_even_where_they_do_not_answer(group, monkeypatch):
    def unanswered(ref, timeout, what):
        told.append(ref)  # although the first one does not answer, the second one is waited for: it frees its memory
        raise ClosedError(what)

    told, killed = [], []
    monkeypatch.setattr(module.cluster, "get", unanswered)
    monkeypatch.setattr(module.ray, "kill", killed.append)
    monkeypatch.setattr(module.cluster, "connection", lambda: (HERE, "job"))
    actors = [Actor(), Actor()]
    Owned((HERE, "job"), Placed([], group), actors).end(1.0)
    assert told == killed == actors
    assert group.removed == 1
    Owned((HERE, "an earlier job"), Placed([], group), actors).end(1.0)
    assert killed == actors  # what was there has gone with that Ray
    assert group.removed == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("of Ray")], ids=repr)
def test_an_end_that_is_interrupted_kills_all_the_same(group, monkeypatch, error):
    def interrupted(refs, timeout, what):
        raise error

    killed = []
    monkeypatch.setattr(module.cluster, "get", interrupted)
    monkeypatch.setattr(module.ray, "kill", killed.append)
    monkeypatch.setattr(module.cluster, "connection", lambda: (HERE, "job"))
    actors = [Actor(), Actor()]
    with pytest.raises(type(error)):
        Owned((HERE, "job"), Placed([], group), actors).end(1.0)
    assert killed == actors
    assert group.removed == 1


def test_an_actor_that_cannot_be_killed_keeps_neither_the_others_nor_the_place(group, monkeypatch):
    def kill(actor):
        killed.append(actor)
        if len(killed) == 1:
            raise KeyboardInterrupt

    killed, actors = [], [Actor(), Actor(), Actor()]
    monkeypatch.setattr(module.ray, "kill", kill)
    owned = Owned((HERE, "job"), Placed([], group), actors)
    with pytest.raises(KeyboardInterrupt):
        owned.kill()
    assert killed == actors
    assert group.removed == 1

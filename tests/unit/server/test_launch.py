"""A launch that an error ends leaves nothing. Actors that only note what they are told take the place of Ray's."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from fastps.cluster.placement import Owned
from fastps.errors import NameTakenError, PlacementError, WaitTimeoutError
from fastps.machine.capacity import Need
from fastps.server import launch as module
from fastps.server.launch import launch
from fastps.spec.server import NodeAddress, ShardAddress
from tests.unit.server.test_options import planned

ROOM = Need("shard", "node", 10, 1000)
NODE = NodeAddress("node", "machine", "cpu", ())


class Cluster:
    """What a launch asks of Ray, noted in order. `fails` says at which step, and with what."""

    NAMESPACE = "fastps"

    def __init__(self):
        self.steps = []
        self.fails = {}
        self.taken = None

    def note(self, step):
        self.steps.append(step)
        if step in self.fails:
            raise self.fails[step]

    def start(self):
        self.note("start Ray")

    def living_actor(self, name, timeout):
        return self.named_actor(name)

    def named_actor(self, name):
        return object() if name == self.taken else None

    def generated(self, server_id, what):
        return f"{server_id}/{what}"

    def require(self, what):
        return "node", "job"

    def nodes(self):
        return {"node": {}}

    def available(self):
        return {"CPU": 0}

    def place(self, request, num_shards, timeout, placed):
        placed.options = [{"num_cpus": 0}] * num_shards
        self.note("place")

    def get(self, answers, timeout, what):
        return answers

    def options(self, **options):
        return SimpleNamespace(remote=lambda index, count: Actor(self, options["name"], index))

    def kill(self, owned):
        self.steps.append(("kill", [actor.index for actor in owned.actors]))

    def attach(self, spec):
        self.note("attach")
        return SimpleNamespace(spec=spec, run=lambda operation, timeout, verb: self.note("fill"))

    def detach(self, server_id):
        self.note("detach")


class Actor:
    def __init__(self, cluster, name, index):
        cluster.note(f"actor {index}")
        self.name, self.index, self.cluster = name, index, cluster

    def __getattr__(self, verb):
        answer = {"prepare": ROOM, "create": (NODE, ShardAddress(self.index, 0, "", 1, 2, b""))}.get(verb)

        def call(*arguments):
            self.cluster.note(f"{verb} {self.index}")
            return answer

        return SimpleNamespace(remote=call)


@pytest.fixture
def cluster(monkeypatch):
    made = Cluster()
    monkeypatch.setattr(module, "cluster", made)
    monkeypatch.setattr(module, "pickled", SimpleNamespace(packed_functions=lambda _: b"", packed_spec=lambda _: b""))
    monkeypatch.setattr(module, "place", made.place)
    monkeypatch.setattr(module, "shard_actor", lambda _: made)
    monkeypatch.setattr(Owned, "kill", lambda owned: made.kill(owned))
    return made


def launched(cluster, params=3, **options):
    return launch(planned(params, **options), cluster.attach, cluster.detach)


STEPS = [
    "start Ray", "place", "actor 0", "actor 1", "prepare 0", "prepare 1", "create 0", "create 1", "join 0", "join 1",
    "attach", "fill", "publish 0",
]  # fmt: skip


def test_all_shards_do_a_step_before_any_does_the_next_and_the_first_one_publishes(cluster):
    server = launched(cluster, np.ones(3), num_shards=2, name="mine")
    assert cluster.steps == STEPS
    assert [actor.name for actor in server.owned.actors] == ["mine", f"{server.spec.server_id}/shard/1"]
    assert server.spec.actors == tuple(actor.name for actor in server.owned.actors)
    assert server.session.spec is server.spec


def test_zeros_are_not_written(cluster):
    launched(cluster, 3, num_shards=2)
    assert cluster.steps == [step for step in STEPS if step != "fill"]


@pytest.mark.parametrize("error", [PlacementError("no"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("step", STEPS)
def test_an_error_at_any_step_ends_what_was_started_and_nothing_else(cluster, step, error):
    cluster.fails[step] = error
    with pytest.raises(type(error)):
        launched(cluster, np.ones(3), num_shards=2)
    done = STEPS[: STEPS.index(step) + 1]
    started = [i for i in (0, 1) if f"actor {i}" in done[:-1]]
    undone = ["detach", ("kill", started)] if len(done) > 1 else []
    assert cluster.steps == done + undone


@pytest.mark.parametrize("step", STEPS[1:])
def test_a_second_error_on_the_way_out_ends_what_was_started_all_the_same(cluster, step):
    cluster.fails = {step: PlacementError("no"), "detach": KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        launched(cluster, np.ones(3), num_shards=2)
    assert cluster.steps[-1][0] == "kill"


def test_what_a_signal_handler_raised_comes_out_where_a_call_of_rays_hides_it(cluster):
    hidden = SystemError("returned a result with an exception set")
    hidden.__cause__ = KeyboardInterrupt()
    cluster.fails["create 1"] = hidden
    with pytest.raises(KeyboardInterrupt):
        launched(cluster, num_shards=2)
    assert cluster.steps[-1] == ("kill", [0, 1])
    cluster.fails["create 1"] = SystemError("Python's own")
    with pytest.raises(SystemError):
        launched(cluster, num_shards=2)


def test_a_name_that_is_taken_starts_no_actor(cluster):
    cluster.taken = "mine"
    with pytest.raises(NameTakenError, match="'mine' lives already"):
        launched(cluster, name="mine")
    assert cluster.steps == ["start Ray"]


def test_a_name_that_is_taken_while_an_actor_starts_is_said_so(cluster):
    found = iter([None, object()])
    cluster.named_actor = lambda name: next(found)
    cluster.fails["actor 0"] = ValueError("the name is taken")
    with pytest.raises(NameTakenError, match="'mine' lives already"):
        launched(cluster, name="mine")
    assert cluster.steps[-1] == ("kill", [])


def test_processes_that_do_not_start_in_time_are_said_with_what_ray_has_left(cluster):
    cluster.fails["prepare 0"] = WaitTimeoutError("create: no reply")
    with pytest.raises(WaitTimeoutError):
        launched(cluster)

    def late(answers, timeout, what):
        raise WaitTimeoutError(f"{what}: no reply")

    del cluster.fails["prepare 0"]
    cluster.get = late
    with pytest.raises(WaitTimeoutError, match=r"not all processes started in time; Ray has \{'CPU': 0\} free"):
        launched(cluster)
    assert cluster.steps[-1] == ("kill", [0])

"""Partial operations of a session on shards of this process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest

from fastps import BSP, SSP, LocalSGD
from fastps._core import Outcome
from fastps.client.array import ArrayHandle
from fastps.client.arrays import MOST_PARTS_LEAVES, ArraySession
from fastps.client.attach import Attachment
from fastps.client.session import Session
from fastps.errors import NamesError, NonfiniteError, SessionsExhaustedError, WaitTimeoutError
from fastps.spec.arrays import Leaf
from fastps.spec.tree import leaves_by_path
from fastps.testing.local import LocalServer
from fastps.transport.layout import MOST_PLACES, Layouts
from fastps.transport.shm import ShmEndpoint
from fastps.workers.policies import worker_of

LONG = 30.0  # a guard against hanging
NODE = "0" * 56


@dataclass
class Strict:
    """A dataclass that needs all of its arrays."""

    weight: Any
    bias: Any

    def __post_init__(self):
        self.sizes = len(self.weight), len(self.bias)


class Pair(NamedTuple):
    first: Any
    second: Any


def attachment_of(server):
    attachment = Attachment(server.spec)
    attachment.use(Session(server.spec, NODE, None, lambda value, timeout: value, None))
    return attachment


def a_strict_model():
    return [Strict(np.arange(3.0), np.arange(4.0, dtype=np.float32)), np.ones(2)]


@pytest.mark.parametrize("policy", [None, BSP()], ids=["Async", "BSP"])
@pytest.mark.parametrize("num_shards", [1, 2])
def test_one_array_is_read_without_the_containers_that_it_is_in(policy, num_shards):
    with LocalServer(a_strict_model(), num_shards=num_shards, consistency=policy) as server:
        attachment = attachment_of(server)
        for number, expected in enumerate(([0, 1, 2], [0, 1, 2, 3], [1, 1])):
            handle = ArrayHandle(attachment, number)
            assert handle.pull().tolist() == expected
            assert handle.pull().dtype == handle.dtype
            if num_shards == 1:
                assert handle.view().tolist() == expected


@pytest.mark.parametrize("policy", [None, BSP()], ids=["Async", "BSP"])
def test_a_bare_array_is_read_by_its_name(policy):
    with LocalServer(np.arange(3.0), consistency=policy) as server:
        handle = ArrayHandle(attachment_of(server), 0)
        assert handle.pull().tolist() == handle.view().tolist() == [0, 1, 2]


def test_an_array_on_one_shard_is_viewed_though_others_are_split():
    with LocalServer({"small": np.ones(2), "large": np.zeros(100_000)}, num_shards=2) as server:
        assert ArrayHandle(attachment_of(server), 0).view().tolist() == [1, 1]


@pytest.mark.parametrize("policy", [None, BSP()], ids=["Async", "BSP"])
def test_a_class_that_refuses_none_for_what_is_left_out_is_told_what_to_do(policy):
    with LocalServer(a_strict_model(), consistency=policy) as server:
        arrays = attachment_of(server).attach()
        told = r"Strict: .* None for \['bias'\], .* \(TypeError: .*\); read single arrays by ps\[name\].pull\(\)"
        with pytest.raises(NamesError, match=told) as caught:
            arrays.pull(None, LONG, ["0/weight"])
        assert isinstance(caught.value.__cause__, TypeError)
        assert arrays.pull(None, LONG, ["1"])[0][0] is None
        assert arrays.pull(None, LONG, ["0"])[0][0].sizes == (3, 4)


@dataclass
class Layer:
    weight: Any
    bias: Any = None


MODELS = {
    "dict": ({"a": np.arange(3.0), "b": np.ones(2)}, ["a"]),
    "list": ([np.arange(3.0), np.ones(2)], ["1"]),
    "tuple": ((np.arange(3.0), np.ones(2)), ["1"]),
    "named tuple": (Pair(np.arange(3.0), np.ones(2)), ["second"]),
    "dataclass": (Layer(np.arange(3.0), np.ones(2)), ["bias"]),
    "nested": (
        [{"in": [Layer(np.arange(3.0), np.ones(2)), Pair(np.ones(3), (np.ones(1),))], "x": 1}, np.ones(4)],
        ["0/in/1/second"],
    ),
    "constants": ([Layer(np.arange(3.0), "words"), None, np.ones(2)], ["0/weight"]),
    "tied": ((lambda w: [w, {"head": w, "bias": np.ones(2)}, np.ones(1)])(np.arange(3.0)), ["0"]),
}  # fmt: skip


def rows_of(value):
    return [given.tolist() for given in leaves_by_path(value, "test").values() if given is not None]


@pytest.mark.parametrize("policy", [None, BSP(), LocalSGD(2)], ids=["Async", "BSP", "LocalSGD"])
@pytest.mark.parametrize("kind", MODELS)
def test_what_a_partial_pull_returned_is_an_out_for_it(kind, policy):
    model, names = MODELS[kind]
    with LocalServer(model, consistency=policy) as server:
        attachment = attachment_of(server)
        arrays = attachment.attach()
        out = arrays.pull(None, LONG, names)[0]
        expected = rows_of(out)
        for given in leaves_by_path(out, "test").values():
            if given is not None:
                given[...] = -1
        assert arrays.pull(out, LONG, names)[0] is out
        assert rows_of(out) == expected != []
        with worker_of(attachment, attachment.session.join(None, LONG)) as worker:
            out = worker.pull(names=names)
            assert worker.pull(names=names, out=out) is out
            assert rows_of(out) == expected
            assert worker.push_pull(out, partial=True, out=out) is out


def test_a_partial_push_pull_takes_what_one_returned_as_its_out():
    with LocalServer([np.arange(3.0), Layer(np.ones(2), np.ones(1))]) as server:
        arrays, grads = attachment_of(server).attach(), [None, Layer(np.ones(2))]
        out = arrays.push_pull(grads, None, None, LONG, None, Outcome(), True)[0]
        assert arrays.push_pull(grads, None, out, LONG, None, Outcome(), True)[0] is out
        assert out[1].weight.tolist() == arrays.pull(None, LONG)[0][1].weight.tolist()


@pytest.mark.parametrize(
    "out",
    [[np.zeros(3), np.zeros(2)], [None, np.zeros(2), None], [np.zeros(3), None], {"1": np.zeros(2), "x": None}],
    ids=str,
)  # fmt: skip
def test_an_out_has_none_or_nothing_for_other_arrays(out):
    with LocalServer([np.arange(3.0), np.ones(2)]) as server, pytest.raises(NamesError):
        attachment_of(server).attach().pull(out, LONG, ["1"])


class Part:
    """An endpoint to some shards of this process. Its operations raise `before` or `after`, where set, before or
    after they are done."""

    def __init__(self, endpoint):
        self.endpoint, self.shards, self.before, self.after = endpoint, endpoint.shards, None, None

    def start(self, *arguments):
        if self.before is not None:
            raise self.before
        pending = self.endpoint.start(*arguments)
        if self.after is not None:
            raise self.after
        return pending


@pytest.fixture
def on_nodes():
    """Makes a session of a server with two shards that are reached as if each was on a node of its own. Returns its
    attachment, per shard its endpoint, and the name of an array there."""
    servers = []

    def make(**options):
        servers.append(LocalServer({"a": np.zeros(3), "b": np.zeros(3)}, num_shards=2, **options))
        spec = servers[-1].spec
        parts = [Part(ShmEndpoint.of_leaves(spec, (shard,))) for shard in (0, 1)]
        attachment = Attachment(spec)
        attachment.use(SplitSession(spec, parts))
        names = [[spec.structure.leaves[run.leaf].name for run in plan.runs] for plan in spec.plans]
        assert sorted(names) == [["a"], ["b"]]
        return attachment, parts, [name for (name,) in names]

    yield make
    for server in servers:
        server.close()


class SplitSession(Session):
    """A session with an endpoint for each shard."""

    def __init__(self, spec, parts):
        super().__init__(spec, NODE, None, lambda value, timeout: value, None)
        self.endpoints, self.all_here = parts, False
        self._leaves = [frozenset(run.leaf for run in plan.runs) for plan in spec.plans]


@pytest.mark.parametrize("shard", [0, 1])
def test_nodes_that_have_nothing_of_a_partial_push_count_as_applied(on_nodes, shard):
    attachment, _, names = on_nodes()
    outcome = Outcome()
    versions = attachment.attach().push({names[shard]: np.ones(3)}, None, LONG, None, outcome, True)
    assert outcome.applied == (0, 1)
    assert versions[1 - shard] == 0 < versions[shard]


@pytest.mark.parametrize("shard", [0, 1])
def test_errors_and_outcomes_agree_on_where_a_partial_push_is_applied(on_nodes, shard):
    attachment, parts, names = on_nodes()
    parts[shard].before = WaitTimeoutError("in vain", pending=(shard,))
    outcome = Outcome()
    with pytest.raises(WaitTimeoutError) as caught:
        attachment.attach().push({names[shard]: np.ones(3)}, None, LONG, None, outcome, True)
    assert caught.value.applied == outcome.applied == (1 - shard,)
    parts[shard].before = None
    attachment.attach().push({names[shard]: np.ones(3)}, None, LONG, caught.value.resume, outcome, True)
    assert outcome.applied == (0, 1)
    assert attachment.attach().pull(None, LONG)[0][names[shard]].any()


def test_a_partial_push_of_which_nothing_began_has_nothing_to_resume(on_nodes):
    attachment, parts, names = on_nodes()
    parts[0].before = SessionsExhaustedError("every session is taken")
    with pytest.raises(SessionsExhaustedError) as caught:
        attachment.attach().push({names[0]: np.ones(3)}, None, LONG, None, Outcome(), True)
    assert caught.value.resume is None
    assert not getattr(caught.value, "__notes__", ())


@pytest.mark.parametrize("shard", [0, 1])
@pytest.mark.parametrize("verb", ["push", "push_pull"])
def test_a_step_ends_whose_partial_push_was_applied_and_then_interrupted(on_nodes, shard, verb):
    attachment, parts, names = on_nodes(consistency=SSP(1))
    with worker_of(attachment, attachment.session.join(None, LONG)) as worker:
        parts[shard].after = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            getattr(worker, verb)({names[shard]: np.ones(3)}, partial=True)
        parts[shard].after = None
        worker.pull()
        assert worker.clock == 1


@pytest.mark.parametrize("policy", [None, SSP(1), BSP(), LocalSGD(2)], ids=["Async", "SSP", "BSP", "LocalSGD"])
@pytest.mark.parametrize("flat", [False, True], ids=["slow", "fast"])
def test_a_partial_push_pull_resolves_its_gradients_once(policy, flat):
    resolved = []

    def resolve(value, timeout):
        assert not any(value is one for one in resolved)
        resolved.append(value)
        return value

    model = {"a": np.zeros(3), "b": np.zeros(2)} if flat else {"in": {"a": np.zeros(3), "b": np.zeros(2)}}
    with LocalServer(model, consistency=policy) as server:
        attachment = Attachment(server.spec)
        attachment.use(Session(server.spec, NODE, None, resolve, None))
        with worker_of(attachment, attachment.session.join(None, LONG)) as worker:
            grads = {"b": np.ones(2)} if flat else {"in": {"b": np.ones(2)}}
            found = worker.push_pull(grads, partial=True)
            assert found.keys() == grads.keys()
            assert len(resolved) == 1
            assert rows_of(found) == rows_of(worker.pull(names=["b" if flat else "in/b"])) != [[0, 0]]


def test_a_partial_push_pull_that_is_resumed_resolves_its_gradients_once(on_nodes):
    attachment, parts, _ = on_nodes()
    parts[0].before = WaitTimeoutError("in vain", pending=(0,))
    grads, arrays, resolved = dict.fromkeys("ab", np.ones(3)), attachment.attach(), []
    with pytest.raises(WaitTimeoutError) as caught:
        arrays.push_pull(grads, None, None, LONG, None, Outcome(), True)
    parts[0].before = None
    arrays.session.resolve = lambda value, timeout: resolved.append(value) or value
    found = arrays.push_pull(grads, None, None, LONG, caught.value.resume, Outcome(), True)[0]
    assert len(resolved) == 1
    assert found["a"].tolist() == found["b"].tolist() != [0, 0, 0]


@pytest.mark.parametrize("policy", [BSP(), LocalSGD(2)], ids=["BSP", "LocalSGD"])
def test_a_class_that_refuses_none_does_so_before_the_push(policy):
    with LocalServer(a_strict_model(), consistency=policy) as server:
        attachment = attachment_of(server)
        with worker_of(attachment, attachment.session.join(None, LONG)) as worker:
            before = rows_of(worker.pull())
            with pytest.raises(NamesError, match="Strict") as caught:
                worker.push_pull([{"weight": np.ones(3)}, None], partial=True)
            assert "nothing was done" in caught.value.__notes__
            assert (rows_of(worker.pull()), worker.clock) == (before, 0)


@pytest.mark.parametrize("options", [{}, {"clip_norm": 1.0}, {"nonfinite": "raise"}], ids=str)
def test_a_push_makes_no_names_unless_an_error_says_them(options, monkeypatch):
    asked = []
    with LocalServer({"in": {"a": np.zeros(3), "b": np.zeros(2)}}, **options) as server:
        arrays = attachment_of(server).attach()
        monkeypatch.setattr(Leaf, "name", property(lambda leaf: asked.append(leaf.path) or "/".join(leaf.path)))
        arrays.push({"in": {"b": np.ones(2)}}, None, LONG, None, Outcome(), True)
        arrays.push({"in": {"a": np.ones(3), "b": np.ones(2)}}, None, LONG, None, Outcome())
        assert len(asked) == 3  # one for each gradient, in the check of its type
        if "nonfinite" in options:
            with pytest.raises(NonfiniteError, match=r"`in/b`\[1\]"):
                arrays.push({"in": {"b": np.array([0, np.nan])}}, None, LONG, None, Outcome(), True)


def test_what_is_kept_for_partial_operations_is_bounded_by_its_size():
    n, most = 1100, {"selected_spans": 1 << 20, "places": MOST_PLACES, "leaves": MOST_PARTS_LEAVES}
    sizes = {name: [] for name in most}
    with LocalServer({f"w{i}": np.zeros(1) for i in range(n)}) as server:
        session = Session(server.spec, NODE, None, lambda value, timeout: value, None)
        arrays, layouts, outs = ArraySession(session), Layouts(server.spec, (0,)), [np.zeros(1) for _ in range(n)]
        for i in range(n):
            leaves = tuple(k for k in range(n) if k != i)
            session.shm.group.run(None, outs, LONG, leaves=leaves)
            sizes["selected_spans"].append(session.shm.group.selected_spans)
            if i < 150:
                assert layouts.of(leaves) is layouts.of(leaves)
                assert arrays.structure_of(leaves) is arrays.structure_of(leaves)
                sizes["places"].append(layouts.size)
                sizes["leaves"].append(arrays.kept_leaves)
    for name, found in sizes.items():
        assert max(found) <= most[name] < max(found) + n, name
        assert found[-1] < max(found), name

"""Every rule of the library through real servers: one shard and several, push and push_pull, shared memory and Ray.

The rules of many cases share a server, each for an array of its own; so what is tested is also that they stay apart.
"""

import numpy as np
import pytest

import fastps
from fastps.rules.assignment import MAX_RULES
from tests.support.extent import samples, short_or_long
from tests.support.references import CASES, TOLERANCE, difference, problem
from tests.support.waiting import GUARD_SECONDS

STEPS, N = 200, 60


def servable():
    """The cases in groups of as many rules as a server can have."""
    names = {f"{i:02}-{case.id}": case for i, case in enumerate(CASES)}
    items = list(names.items())
    return [dict(items[i : i + MAX_RULES]) for i in range(0, len(items), MAX_RULES)]


GROUPS = servable()


# For each group in turn. So each rule comes by shared memory and by Ray, and every two of these meet in some group.
WAYS = [
    (("shm", 1, "float32"), ("ray", 2, "float64")),
    (("shm", 2, "float64"), ("ray", 1, "float32")),
    (("shm", 2, "float32"), ("ray", 1, "float64")),
]

TRANSPORTS = {"shm": [0], "ray": [1], "both": [0, 1]}  # the nodes of the shards; the tests are on node 0


def place(cluster, transport, num_shards):
    nodes = TRANSPORTS[transport]
    return {
        "num_shards": num_shards,
        "placement": [cluster.ids[nodes[i % len(nodes)]] for i in range(num_shards)],
        "timeout": GUARD_SECONDS,
    }


@pytest.fixture(params=short_or_long(["both"], list(TRANSPORTS)))
def there(request, cluster3):
    """Options for where two shards are."""
    return place(cluster3, request.param, 2)


@pytest.mark.parametrize(
    ("group", "transport", "num_shards", "dtype"),
    [(group, *way) for group in range(len(GROUPS)) for way in WAYS[group % len(WAYS)]],
)
def test_a_server_computes_what_the_references_do(cluster3, group, transport, num_shards, dtype):
    cases = GROUPS[group]
    starts, all_grads, all_pulled, expected = {}, {}, {}, {}
    for seed, (name, case) in enumerate(cases.items()):
        starts[name], all_grads[name], all_pulled[name] = problem(N + seed, STEPS, dtype, seed)
        expected[name] = case.final(starts[name], all_grads[name], dtype, all_pulled[name])
    wants_pulled = any(case.rule.family.uses_pulled for case in cases.values())
    rules = {name: case.rule for name, case in cases.items()}
    with fastps.ParameterServer(starts, rule=rules, **place(cluster3, transport, num_shards)) as ps:
        assert (ps.attachment.session.shm is None) == (transport == "ray")
        for i in range(STEPS):
            grads = {name: all_grads[name][i] for name in cases}
            pulled = {name: all_pulled[name][i] for name in cases} if wants_pulled else None
            if i % 2:
                ps.push(grads, pulled=pulled)
            else:
                ps.push_pull(grads, pulled=pulled)
        found = ps.pull()
        assert ps.versions == (STEPS,) * num_shards
    wrong = {
        name: error
        for name in cases
        if not (error := difference(found[name], expected[name], starts[name])) < TOLERANCE[dtype]
    }
    assert wrong == {}


# How the parameters are served: transport, number of shards, push_pull or push.
SERVED = short_or_long(
    [("shm", 1, False), ("ray", 2, True)],
    [(transport, *how) for transport in ("shm", "ray") for how in ((1, False), (3, True))],
)


def test_push_and_push_pull_and_any_number_of_shards_and_transport_give_the_same_bits(cluster3, rng):
    start, *grads = rng.normal(size=(21, 1000)).astype(np.float32)
    found = []
    for transport, num_shards, fused in SERVED:
        with fastps.ParameterServer(start, rule=fastps.Adam(0.01), **place(cluster3, transport, num_shards)) as ps:
            for grad in grads:
                last = ps.push_pull(grad) if fused else ps.push(grad)
            found.append(ps.pull())
            assert last is None or np.array_equal(last, found[-1])
    assert all(np.array_equal(found[0], other) for other in found)


@pytest.mark.parametrize(
    ("transport", "num_shards"),
    short_or_long([("shm", 1), ("ray", 2)], [(transport, count) for transport in ("shm", "ray") for count in (1, 3)]),
)
def test_gradients_are_clipped_alike_however_many_shards(cluster3, transport, num_shards, rng):
    grad = rng.normal(size=500)
    norm = np.sqrt((grad**2).sum())
    with fastps.ParameterServer(np.zeros(500), clip_norm=2.0, **place(cluster3, transport, num_shards)) as ps:
        ps.push(grad)
        assert np.allclose(ps.pull(), grad * 2 / (norm + 1e-6), rtol=1e-12)
        ps.push(grad * 1e-3)  # its norm is below
        assert np.allclose(ps.pull(), grad * (2 / (norm + 1e-6) + 1e-3), rtol=1e-12)


def test_gradients_are_clipped_element_by_element_on_every_shard(there, rng):
    grad = rng.normal(size=500)
    with fastps.ParameterServer(np.zeros(500), clip_value=0.5, **there) as ps:
        assert np.array_equal(ps.push_pull(grad), np.clip(grad, -0.5, 0.5))


@samples(transport=["shm", "ray"], clip_norm=[None, 1.0])
def test_a_push_that_is_not_finite_is_skipped_or_refused_on_every_shard(cluster3, transport, clip_norm):
    bad, where = np.nan if clip_norm is None else -np.inf, place(cluster3, transport, 2)
    grads = {"a": np.ones(10), "b": np.ones((3, 4), np.float32)}
    spoilt = {"a": np.ones(10), "b": np.ones((3, 4), np.float32)}
    spoilt["b"][2, 1] = bad
    zeros = {name: grad * 0 for name, grad in grads.items()}
    options = {"rule": fastps.Adam(), "clip_norm": clip_norm, **where}
    with fastps.ParameterServer(zeros, nonfinite="skip", **options) as ps:
        ps.push(grads)
        before, slots = ps.pull(), ps.slots()
        ps.push(spoilt)
        found = ps.push_pull(spoilt)
        for name in grads:
            assert np.array_equal(found[name], before[name])
            assert all(np.array_equal(ps.slots(slot)[name], slots[slot][name]) for slot in slots)
        assert ps.versions == (1, 1)
        assert [shard.skipped for shard in ps.stats().shards] == [2, 2]
    with fastps.ParameterServer(zeros, nonfinite="raise", **options) as ps:
        with pytest.raises(fastps.NonfiniteError, match=r"`b`\[2, 1\]"):
            ps.push(spoilt)
        assert ps.versions == (0, 0)
        assert not ps.pull()["b"].any()
    if clip_norm is None:
        with fastps.ParameterServer(zeros, **where) as ps:
            ps.push(spoilt)
            assert not np.isfinite(ps.pull()["b"][2, 1])


def test_slots_are_read_and_set_in_the_structure_of_the_parameters(there, rng):
    params = {"w": rng.normal(size=(30, 7)).astype(np.float32), "deep": {"bias": np.zeros(5), "x": np.ones(9)}}
    rule = {
        "*bias": fastps.SGD(0.5),
        "w": fastps.SGD(0.1, momentum=0.5),
        "*": fastps.Adagrad(initial_accumulator_value=2),
    }
    with fastps.ParameterServer(params, rule=rule, **there) as ps:
        assert set(ps.slots()) == {"velocity", "sum"}
        assert list(ps.slots("velocity")) == ["w"]
        assert ps.slots("sum")["deep"]["x"].tolist() == [2.0] * 9
        velocity = rng.normal(size=(30, 7)).astype(np.float32)
        ps.set(slots={"velocity": {"w": velocity}})
        assert np.array_equal(ps.slots("velocity")["w"], velocity)
        assert np.array_equal(ps.pull()["w"], params["w"])
        assert ps.versions == (0, 0)
        with pytest.raises(fastps.OptionError, match=r"\['velocity', 'sum'\]"):
            ps.slots("m")
        with pytest.raises(fastps.ShapeError):
            ps.set(slots={"velocity": {"w": velocity[:1]}})
        with pytest.raises(fastps.NamesError):
            ps.set(slots={"sum": {"w": velocity}})
        assert np.array_equal(ps.slots("velocity")["w"], velocity)


def test_hyper_parameters_change_for_the_next_push(there):
    rule = {"a": fastps.SGD(1.0), "*": fastps.SGD(lambda version: version + 1, weight_decay=0.0)}
    zeros = {"a": np.zeros(10), "b": np.zeros(10)}
    ones = {"a": np.ones(10), "b": np.ones(10)}
    with fastps.ParameterServer(zeros, rule=rule, **there) as ps:
        ps.push(ones)
        ps.push(ones)
        assert (ps.pull()["a"][0], ps.pull()["b"][0]) == (-2, -3)
        assert ps.hyper["*"] == {"lr": None, "weight_decay": 0.0}
        ps.configure(lr=0.5)
        ps.push(ones)
        assert (ps.pull()["a"][0], ps.pull()["b"][0]) == (-2.5, -3.5)
        ps.configure("*", lr=None)
        ps.push(ones)
        assert (ps.pull()["a"][0], ps.pull()["b"][0]) == (-3, -7.5)
        for wrong in ({"rl": 1.0}, {"lr": np.nan}, {"lr": "much"}, {"weight_decay": None}):
            with pytest.raises(fastps.OptionError):
                ps.configure(**wrong)
        with pytest.raises(fastps.OptionError, match="no rule has the pattern"):
            ps.configure("c", lr=1.0)
        assert ps.hyper == {"a": {"lr": 0.5, "weight_decay": 0.0}, "*": {"lr": None, "weight_decay": 0.0}}


@pytest.mark.parametrize(
    ("transport", "num_shards"),
    short_or_long([("shm", 1), ("ray", 2)], [(transport, count) for transport in ("shm", "ray") for count in (1, 3)]),
)
def test_delay_compensation_needs_what_the_worker_had(cluster3, transport, num_shards, rng):
    start, grad, had = rng.normal(size=(3, 50))
    expected = start - 0.1 * (grad + 0.5 * grad * grad * (start - had))
    where = place(cluster3, transport, num_shards)
    with fastps.ParameterServer(start, rule=fastps.DCASGD(0.1, 0.5), **where) as ps:
        with pytest.raises(fastps.OptionError, match="pulled="):
            ps.push(grad)
        assert ps.versions == (0,) * num_shards
        out = had.copy()
        assert np.allclose(ps.push_pull(grad, pulled=out, out=out), expected, rtol=1e-12)


@pytest.mark.parametrize("transport", short_or_long(["ray"], ["shm", "ray"]))
def test_other_rules_refuse_what_the_worker_had(cluster3, transport, rng):
    start, grad, had = rng.normal(size=(3, 50))
    with (
        fastps.ParameterServer(start, **place(cluster3, transport, 1)) as ps,
        pytest.raises(fastps.OptionError, match="pulled="),
    ):
        ps.push(grad, pulled=had)

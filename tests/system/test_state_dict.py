"""The state of a server as one flat dict: what is in it, what is refused, and that a training goes on exactly."""

from __future__ import annotations

import pickle
import threading
from collections import OrderedDict

import numpy as np
import pytest

import fastps
from fastps import BSP, SGD, Adam, DtypeError, LocalSGD, NamesError, OptionError, RuleError, ShapeError
from fastps.schedules import cosine
from tests.support.waiting import GUARD_SECONDS

RULE = {"layers/*": Adam(cosine(1e-2, steps=100)), "*": SGD(0.1, momentum=0.9)}


def a_model(rng):
    weight = rng.normal(size=(7, 5)).astype(np.float32)
    return {
        "embed": weight,
        "layers": [{"w": rng.normal(size=(700, 300)), "b": np.zeros(30, np.float32)}, {"w": rng.normal(size=(3, 3))}],
        "head": weight,
        "batches": np.array([41], np.int64),
        "mask": np.array([True, False, True]),
        "nothing": np.zeros((0, 4), np.float32),
        "version": "mine",
    }


def grads_of(model, rng):
    return {
        "embed": rng.normal(size=(7, 5)).astype(np.float32),
        "head": rng.normal(size=(7, 5)).astype(np.float32),
        "layers": [
            {k: rng.normal(size=v.shape).astype(v.dtype) for k, v in layer.items()} for layer in model["layers"]
        ],
    }


def check_same(one, other):
    assert list(one) == list(other)
    for key in one:
        assert one[key].dtype == other[key].dtype, key
        assert one[key].shape == other[key].shape, key
        assert one[key].tobytes() == other[key].tobytes(), key


@pytest.fixture(params=["here", "there"])
def there(request, cluster3):
    """Where shards are: on this node, or each on another one."""

    def place(num_shards):
        nodes = cluster3.ids if request.param == "there" else cluster3.ids[:1] * 3
        return {"num_shards": num_shards, "placement": nodes[:num_shards], "timeout": GUARD_SECONDS}

    return place


@pytest.mark.parametrize("policy", [fastps.Async(), BSP(workers=1)], ids=repr)
def test_a_training_goes_on_exactly_on_another_number_of_shards(there, rng, policy):
    model = a_model(rng)
    steps = [grads_of(model, rng) for _ in range(8)]
    part = {"layers": [{"w": None, "b": None}, steps[0]["layers"][1]]}

    def train(ps, steps, part=None):
        pusher = ps if policy == fastps.Async() else ps.worker(0)
        with pusher if pusher is not ps else threading.Lock():
            for grads in steps:
                pusher.push(grads)
            if part is not None:
                pusher.push(part, partial=True)
            pusher.pull()

    with fastps.ParameterServer(model, rule=RULE, consistency=policy, **there(2)) as ps:
        train(ps, steps[:4], part)
        ps.configure("*", momentum=0.5)
        state = pickle.loads(pickle.dumps(ps.state_dict()))
        train(ps, steps[4:])
        wanted = ps.state_dict()
    other = a_model(np.random.default_rng(1))
    with fastps.ParameterServer(other, rule=RULE, consistency=policy, **there(3)) as ps:
        train(ps, steps[:1])
        assert ps.load_state_dict(state) == ([], [])
        check_same(ps.state_dict(), state)
        assert ps.hyper["*"]["momentum"] == 0.5
        assert ps.hyper["layers/*"]["lr"] is None
        train(ps, steps[4:])
        check_same(ps.state_dict(), wanted)


def test_the_dict_has_parameters_slots_counts_and_hyper_parameters_and_nothing_else(there, rng):
    model = a_model(rng)
    with fastps.ParameterServer(model | {"t": fastps.Table(2)}, rule=RULE, **there(3)) as ps:
        ps.push(grads_of(model, rng))
        ps["t"].push([1], np.ones((1, 2), np.float32))
        state, found, slots = ps.state_dict(), ps.pull(), ps.slots()
        assert [key for key in state if not key.startswith("fastps:")] == [
            "embed", "layers/0/w", "layers/0/b", "layers/1/w", "head", "batches", "mask", "nothing",
        ]  # fmt: skip
        assert state["embed"] is state["head"]
        assert np.array_equal(state["layers/1/w"], found["layers"][1]["w"])
        assert np.array_equal(state["fastps:slots/v/layers/0/w"], slots["v"]["layers"][0]["w"])
        assert np.array_equal(state["fastps:slots/velocity/embed"], slots["velocity"]["embed"])
        assert [key for key in state if key.startswith("fastps:steps/")] == [
            f"fastps:steps/{name}" for name in ("embed", "layers/0/w", "layers/0/b", "layers/1/w")
        ]
        assert state["fastps:steps/embed"] == 1
        assert state["fastps:hyper/momentum/*"] == 0.9
        assert np.isnan(state["fastps:hyper/lr/layers/*"])
        assert {(state[key].dtype, state[key].shape) for key in state if key.startswith("fastps:hyper/")} == {
            (np.dtype(np.float64), ())
        }
        assert all(type(value) is np.ndarray for value in state.values())
        assert (state["batches"].tolist(), state["mask"].tolist()) == ([41], [True, False, True])
        assert state["nothing"].shape == (0, 4)
        ps.load_state_dict(state | {"version": "mine"})
        with pytest.raises(OptionError, match=r"`version`.*expected 'mine', got 'other'"):
            ps.load_state_dict(state | {"version": "other"})


def test_what_does_not_fit_is_refused_and_nothing_is_loaded(cluster3, rng):
    model = {"a": rng.normal(size=70_000), "n": np.arange(5, dtype=np.int16)}
    with fastps.ParameterServer(model, rule=Adam(0.1), num_shards=2) as ps:
        ps.push({"a": np.ones(70_000)})
        before = ps.state_dict()
        other = {key: value + 1 for key, value in before.items()}

        def without(*keys):
            return {key: value for key, value in other.items() if key not in keys}

        m, steps, lr = "fastps:slots/m/a", "fastps:steps/a", "fastps:hyper/lr/*"
        for state, error, text in (
            (without("a"), NamesError, r"missing \['a'\]"),
            (other | {"b": 1, "c": 2}, NamesError, r"unexpected \['b', 'c'\]"),
            (other | {1: 2}, NamesError, r"unexpected \[1\]"),
            ({"a": other["a"], "n": other["n"]}, NamesError, r"missing .*as that of a model, .*strict=False"),
            ({}, NamesError, "missing"),
            (without(m), RuleError, r"missing \['fastps:slots/m/a'\]: the state is that of another rule than Adam"),
            (other | {"fastps:slots/u/a": other[m]}, RuleError, r"unexpected \['fastps:slots/u/a'\]"),
            (other | {"a": np.zeros(7)}, ShapeError, r"`a`: expected float64\[70000\], got float64\[7\]"),
            (other | {m: other[m].astype(np.float32)}, DtypeError, r"slot 'm' `a`: expected float64"),
            (other | {"n": np.zeros(5)}, DtypeError, "`n`: expected int16"),
            (other | {"n": None}, DtypeError, "NoneType"),
            (other | {steps: -1}, OptionError, r"`fastps:steps/a`: expected a whole number"),
            (other | {steps: 1.5}, OptionError, "whole number"),
            (other | {lr: np.nan}, RuleError, "a rule with a schedule for lr"),
            (other | {lr: np.inf}, OptionError, "finite"),
            (other | {lr: "fast"}, OptionError, "number"),
            ([1], OptionError, "expected a dict of arrays by name, got list"),
        ):
            with pytest.raises(error, match=text):
                ps.load_state_dict(state)
            check_same(ps.state_dict(), before)
        with pytest.raises(ShapeError):
            ps.load_state_dict({"a": np.zeros(7)}, strict=False)
        with pytest.raises(OptionError, match="strict"):
            ps.load_state_dict(other, strict="yes")
        check_same(ps.state_dict(), before)


@pytest.mark.parametrize("policy", [fastps.Async(), BSP(workers=1)], ids=repr)
def test_what_is_missing_stays_where_a_state_need_not_have_everything(there, policy):
    model = {"a": np.arange(70_000.0), "b": np.ones(3, np.float32), "n": np.arange(5)}
    with fastps.ParameterServer(model, rule=Adam(0.1), consistency=policy, **there(3)) as ps:
        with ps.worker(0) as w:
            w.push({"a": np.ones(70_000), "b": np.ones(3, np.float32)})
        before, values = ps.state_dict(), np.full(70_000, 7.0)
        missing, unexpected = ps.load_state_dict(
            {"a": values, "n": np.zeros(5, int), "other": 1, "fastps:slots/u/a": values}, strict=False
        )
        assert missing == [key for key in before if key not in ("a", "n")]
        assert unexpected == ["other", "fastps:slots/u/a"]
        check_same(ps.state_dict(), before | {"a": values, "n": np.zeros(5, int)})
        ps.load_state_dict({"b": before["b"] + 1, "fastps:steps/b": 9, "fastps:slots/m/a": values}, strict=False)
        ps.load_state_dict({"fastps:hyper/lr/*": 0.5}, strict=False)
        wanted = {
            "a": values, "n": np.zeros(5, int), "b": before["b"] + 1, "fastps:steps/b": np.array(9),
            "fastps:slots/m/a": values, "fastps:hyper/lr/*": np.array(0.5),
        }  # fmt: skip
        check_same(ps.state_dict(), before | wanted)
        ps.load_state_dict({"fastps:steps/a": 3}, strict=False)  # a count goes with its array
        check_same(ps.state_dict(), before | wanted)
        ps.load_state_dict({}, strict=False)
        ps.load_state_dict(before)
        check_same(ps.state_dict(), before)


def test_parameters_slots_and_counts_are_of_one_moment(cluster3):
    """A state that is read while others push has, of each shard, all of so many pushes."""
    n, done = 200_000, threading.Event()

    @fastps.rule(slots={"seen": 0.0})
    def counting(p, g, seen, *, step):
        return p + g, seen * 0 + step

    with fastps.ParameterServer(np.zeros(n), rule=counting, num_shards=2) as ps:

        def keep_pushing():
            while not done.is_set():
                ps.push(np.ones(n))

        thread = threading.Thread(target=keep_pushing)
        thread.start()
        try:
            for _ in range(40):
                state = ps.state_dict()
                seen = [
                    {*state["params"][shard].tolist(), *state["fastps:slots/seen/params"][shard].tolist()}
                    for shard in (slice(0, n // 2), slice(n // 2, n))
                ]
                assert [len(found) for found in seen] == [1, 1]
                assert state["fastps:steps/params"] == max(max(found) for found in seen)
        finally:
            done.set()
            thread.join()


def test_a_state_is_loaded_between_two_pushes(cluster3):
    n, done = 300_000, threading.Event()
    with fastps.ParameterServer(np.zeros(n), rule=Adam(0.1), num_shards=2) as ps:
        state = ps.state_dict()

        def keep_loading():
            value = 0
            while not done.is_set():
                value += 1
                ps.load_state_dict(
                    state
                    | {key: np.full(n, value, float) for key in state if state[key].shape == (n,)}
                    | {"fastps:steps/params": value}
                )

        thread = threading.Thread(target=keep_loading)
        thread.start()
        try:
            for _ in range(40):
                found = ps.state_dict()
                for shard in (slice(0, n // 2), slice(n // 2, n)):
                    assert (
                        len({x for key in state if state[key].shape == (n,) for x in found[key][shard].tolist()}) == 1
                    )
        finally:
            done.set()
            thread.join()


def test_tied_arrays_have_both_names_and_one_value(cluster3):
    weight = np.arange(6.0)
    with fastps.ParameterServer({"embed": weight, "head": weight}) as ps:
        ps.load_state_dict(ps.state_dict() | {"embed": weight + 1, "head": weight + 1})
        assert ps.pull()["head"].tolist() == (weight + 1).tolist()
        with pytest.raises(NamesError, match="comes twice"):
            ps.load_state_dict(ps.state_dict() | {"embed": weight})
        with pytest.raises(NamesError, match=r"missing \['head'\]"):
            ps.load_state_dict({key: value for key, value in ps.state_dict().items() if key != "head"})
        assert ps.load_state_dict({"head": weight}, strict=False).missing_keys[0] == "embed"
        assert ps.pull()["embed"].tolist() == weight.tolist()


def test_half_precision_is_given_as_it_is_stored_and_taken_as_it_is_given(there):
    dtypes = pytest.importorskip("ml_dtypes")
    weight = np.linspace(-3, 3, 1000).astype(dtypes.bfloat16)
    with fastps.ParameterServer({"w": weight}, rule=Adam(1e-4), **there(2)) as ps:
        ps.push({"w": np.ones(1000, np.float32)})
        state = ps.state_dict()
        assert state["w"].dtype == np.float32
        assert np.array_equal(state["w"].astype(dtypes.bfloat16), ps.pull()["w"])
        assert not np.array_equal(state["w"].astype(dtypes.bfloat16).astype(np.float32), state["w"])
        ps.load_state_dict(state | {"w": weight})
        assert np.array_equal(ps.pull()["w"], weight)
        ps.load_state_dict(state)
        check_same(ps.state_dict(), state)


def test_copies_of_workers_have_no_slots(cluster3):
    with fastps.ParameterServer(np.zeros(4), rule=Adam(0.1), consistency=LocalSGD(1)) as ps:
        with ps.worker() as w:
            w.push(np.ones(4))
            w.pull()
        state = ps.state_dict()
        assert [key for key in state if "slots" in key] == []
        ps.load_state_dict(state | {"params": np.full(4, 10.0)})
        assert ps.pull().tolist() == [10] * 4
        with pytest.raises(RuleError, match="slots/m/params"):
            ps.load_state_dict(state | {"fastps:slots/m/params": np.zeros(4)})


def test_tables_alone_and_names_of_our_own_are_refused(cluster3):
    with fastps.ParameterServer({"t": fastps.Table(2)}) as ps:
        with pytest.raises(OptionError, match=r"export\(\)"):
            ps.state_dict()
        with pytest.raises(OptionError, match=r"export\(\)"):
            ps.load_state_dict({})
    with fastps.ParameterServer({"fastps:steps": {"w": np.zeros(2)}}) as ps, pytest.raises(NamesError, match="rename"):
        ps.state_dict()


def torch_model(torch):
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        OrderedDict(embed=torch.nn.Embedding(5, 4), norm=torch.nn.BatchNorm1d(4), head=torch.nn.Linear(4, 5))
    )
    model.head.weight = model.embed.weight
    return model


def tensors(torch, state):
    return {key: torch.from_numpy(value) for key, value in state.items()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_state_goes_through_a_file_of_torch_and_into_a_model(cluster3, tmp_path, dtype):
    torch = pytest.importorskip("torch")
    model = torch_model(torch).to(getattr(torch, dtype))
    model.norm.num_batches_tracked += 7
    grads = {name: torch.ones_like(value) for name, value in model.state_dict().items()}
    with fastps.ParameterServer(model.state_dict(), rule=Adam(cosine(0.1, steps=50)), num_shards=2) as ps:
        ps.push(grads)
        assert [key for key in ps.state_dict() if not key.startswith("fastps:")] == list(model.state_dict())
        state = ps.state_dict()
        torch.save(tensors(torch, state), tmp_path / "tensors.pt")
        torch.save(state, tmp_path / "arrays.pt")
        ps.push(grads)
        wanted = ps.state_dict()
        pulled = ps.pull()
    saved = torch.load(tmp_path / "tensors.pt", weights_only=True)
    for found in (saved, torch.load(tmp_path / "arrays.pt", weights_only=False)):
        with fastps.ParameterServer(
            torch_model(torch).to(model.norm.weight.dtype).state_dict(), rule=Adam(cosine(0.1, steps=50))
        ) as ps:
            ps.load_state_dict(found)
            check_same(ps.state_dict(), state)
            ps.push(grads)
            check_same(ps.state_dict(), wanted)
            assert ps.pull()["norm.num_batches_tracked"].item() == 7
    model.load_state_dict({name: torch.from_numpy(wanted[name]) for name in model.state_dict()})
    for name, value in model.state_dict().items():
        assert np.array_equal(fastps_array(value), pulled[name]), name
    with fastps.ParameterServer(model.state_dict(), rule=Adam(0.1)) as ps:
        with pytest.raises(NamesError, match="as that of a model"):
            ps.load_state_dict(model.state_dict())
        ps.load_state_dict(model.state_dict(), strict=False)


def fastps_array(tensor):
    from fastps.arrays.interchange import as_array

    return as_array(tensor, "test")


def test_a_server_is_a_stateful_of_distributed_checkpoints(cluster3, tmp_path):
    torch = pytest.importorskip("torch")
    dcp = pytest.importorskip("torch.distributed.checkpoint")
    if not torch.distributed.is_available():
        pytest.skip("torch was built without torch.distributed")
    from torch.distributed.checkpoint.stateful import Stateful

    model, grads = {"layer.w": np.arange(3000.0), "n": np.arange(4)}, {"layer.w": np.ones(3000)}
    with fastps.ParameterServer(model, rule=Adam(cosine(0.1, steps=50)), num_shards=2) as ps:
        assert isinstance(ps, Stateful)
        ps.push(grads)
        dcp.save({"ps": ps, "epoch": torch.tensor(3)}, checkpoint_id=tmp_path / "saved", no_dist=True)
        ps.push(grads)
        wanted = ps.state_dict()
    with fastps.ParameterServer(
        {"layer.w": np.zeros(3000), "n": np.zeros(4, int)}, rule=Adam(cosine(0.1, steps=50)), num_shards=3
    ) as ps:
        dcp.load({"ps": ps, "epoch": torch.tensor(0)}, checkpoint_id=tmp_path / "saved", no_dist=True)
        ps.push(grads)
        check_same(ps.state_dict(), wanted)

"""Parameters, slots and update counts that are set without the rule."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import fastps
from fastps import BSP, SSP, Adam, LocalSGD, NamesError, OptionError, ShapeError
from tests.support.waiting import GUARD_SECONDS

SHARDS = [1, 3]


@fastps.rule(slots={"seen": 0.0})
def steps(p, g, seen, *, step):
    """A parameter that is the sum of its steps; the slot keeps the last one."""
    return p + g * step, seen * 0 + step


def a_model():
    return {
        "a": np.arange(70_000, dtype=np.float32),
        "deep": [np.ones((3, 5)), np.full(2, 2.0)],
        "kept": np.arange(5, dtype=np.int16),  # ten bytes: no whole number of words
        "odd": np.array([True, False, True]),
    }


def other(model):
    return {
        "a": model["a"] * 2 + 1,
        "deep": [model["deep"][0] * 7, model["deep"][1] - 9],
        "kept": model["kept"][::-1].copy(),
        "odd": ~model["odd"],
    }


def grads_of(model):
    return {"a": np.ones_like(model["a"]), "deep": [np.ones_like(one) for one in model["deep"]]}


def check(found, wanted):
    for name in ("a", "kept", "odd"):
        assert np.array_equal(found[name], wanted[name]), name
    for one, two in zip(found["deep"], wanted["deep"], strict=True):
        assert np.array_equal(one, two)


@pytest.fixture(params=["here", "there"])
def there(request, cluster3):
    """Where three shards are, or one."""

    def place(num_shards):
        nodes = cluster3.ids if request.param == "there" else cluster3.ids[:1] * 3
        return {"num_shards": num_shards, "placement": nodes[:num_shards], "timeout": GUARD_SECONDS}

    return place


@pytest.mark.parametrize("policy", [fastps.Async(), SSP(2), BSP(workers=1)], ids=repr)
def test_what_is_set_is_what_is_pulled_and_what_the_next_push_begins_with(there, policy):
    model, wanted = a_model(), other(a_model())
    with fastps.ParameterServer(model, rule=steps, consistency=policy, **there(3)) as ps:
        pusher = ps if policy == fastps.Async() else ps.worker(0)
        with pusher if pusher is not ps else threading.Lock():
            pusher.push(grads_of(model))
            ps.set(wanted)
            check(ps.pull(), wanted)
            assert ps.slots("seen")["a"][0] == 1
            pusher.push(grads_of(model))
            assert np.array_equal(pusher.pull()["deep"][0], wanted["deep"][0] + 2)  # it was step 2


def test_slots_and_counts_are_set_with_parameters(there):
    model = a_model()
    with fastps.ParameterServer(model, rule=steps, **there(3)) as ps:
        ps.push(grads_of(model))
        ps.set(model, slots={"seen": {"a": model["a"], "deep": model["deep"]}}, steps=40)
        assert np.array_equal(ps.slots()["seen"]["deep"][0], model["deep"][0])
        assert ps.steps() == {"a": 40, "deep": [40, 40]}
        assert ps.versions == (40, 40, 40)
        ps.push(grads_of(model))
        check(ps.pull(), {**other(model), "a": model["a"] + 41, "deep": [d + 41 for d in model["deep"]]} | kept(model))
        assert ps.slots("seen")["a"].tolist() == [41.0] * 70_000


def kept(model):
    return {name: model[name] for name in ("kept", "odd")}


@pytest.mark.parametrize("policy", [fastps.Async(), BSP(workers=1)], ids=repr)
def test_arrays_have_counts_of_their_own(there, policy):
    model, counts = a_model(), {"a": 5, "deep": [0, 9]}
    with fastps.ParameterServer(model, rule=steps, consistency=policy, **there(2)) as ps:
        pusher = ps if policy == fastps.Async() else ps.worker(0)
        with pusher if pusher is not ps else threading.Lock():
            pusher.push(grads_of(model))
            ps.set(model, steps=counts)
            assert ps.steps() == counts
            pusher.push(grads_of(model))
            check(
                pusher.pull(),
                {"a": model["a"] + 6, "deep": [model["deep"][0] + 1, model["deep"][1] + 10]} | kept(model),
            )
            pusher.push({"deep": [None, np.ones(2)]}, partial=True)
            assert ps.steps() == {"a": 6, "deep": [1, 11]}
            ps.set({"deep": [np.zeros((3, 5)), None]}, steps={"deep": [0, None]}, partial=True)
            assert ps.steps() == {"a": 6, "deep": [0, 11]}
            pusher.push(grads_of(model))
            found = pusher.pull()["deep"]
            assert (found[0] == 1).all()
            assert (found[1] == model["deep"][1] + 10 + 11 + 12).all()


def test_a_part_is_set_and_the_rest_stays(there):
    model = a_model()
    with fastps.ParameterServer(model, rule=Adam(0.1), **there(3)) as ps:
        ps.push(grads_of(model))
        before = ps.pull()
        ps.set(
            {"deep": [np.zeros((3, 5)), None], "kept": np.arange(5, dtype=np.int16) * 3},
            slots={"m": {"a": np.zeros(70_000, np.float32)}},
            partial=True,
        )
        now = ps.pull()
        assert (now["deep"][0] == 0).all()
        assert now["kept"].tolist() == [0, 3, 6, 9, 12]
        assert np.array_equal(now["deep"][1], before["deep"][1])
        assert np.array_equal(now["a"], before["a"])
        assert (ps.slots("m")["a"] == 0).all()
        assert (ps.slots("m")["deep"][0] != 0).all()
        ps.set({}, partial=True)
        check(ps.pull(), now)


def test_what_does_not_fit_is_refused_and_nothing_is_set(cluster3):
    model = a_model()
    with fastps.ParameterServer(model, rule=Adam(0.1)) as ps:
        short = other(model) | {"kept": np.zeros(2, np.int16)}
        for call, error, text in (
            (lambda: ps.set(short), ShapeError, "`kept`"),
            (lambda: ps.set({"a": model["a"]}), NamesError, r"missing \['deep/0'"),
            (lambda: ps.set(other(model) | {"kept": np.zeros(5)}), fastps.DtypeError, "int16"),
            (lambda: ps.set(), OptionError, "expected params, slots or both"),
            (lambda: ps.set(steps=3), OptionError, "steps= with params"),
            (lambda: ps.set(other(model), slots={"sum": model}), OptionError, r"no slot 'sum', only \['m', 'v'\]"),
            (lambda: ps.set(other(model), slots=[1]), OptionError, "expected a dict of slots"),
            (lambda: ps.set(other(model), slots={"m": {"a": model["a"]}}), NamesError, r"missing \['deep/0'"),
            (lambda: ps.set(other(model), steps=-1), OptionError, "whole number"),
            (lambda: ps.set(other(model), steps={"a": 1}), NamesError, r"missing \['deep/0'"),
            (lambda: ps.set({"nope": model["a"]}, partial=True), NamesError, r"unknown \['nope'\]"),
        ):
            with pytest.raises(error, match=text):
                call()
            check(ps.pull(), model)
            assert ps.steps()["a"] == 0


def test_tied_arrays_are_set_to_one_value(cluster3):
    weight = np.arange(6.0)
    with fastps.ParameterServer({"embed": weight, "head": weight}) as ps:
        ps.set({"embed": weight + 1, "head": weight + 1})
        assert ps.pull()["head"].tolist() == (weight + 1).tolist()
        with pytest.raises(NamesError, match="comes twice"):
            ps.set({"embed": weight, "head": weight + 1})
        assert ps.pull()["head"].tolist() == (weight + 1).tolist()


def test_each_shard_is_set_between_two_pushes(cluster3):
    """Parameter and slot are set together: no pull sees one without the other."""
    n, until = 300_000, threading.Event()
    with fastps.ParameterServer(np.zeros(n), rule=Adam(0.1), num_shards=2) as ps:

        def keep_setting():
            value = 0.0
            while not until.is_set():
                value += 1
                ps.set(np.full(n, value), slots={"m": np.full(n, value), "v": np.full(n, value)})

        thread = threading.Thread(target=keep_setting)
        thread.start()
        try:
            for _ in range(60):
                slots = ps.slots()
                for shard in (slice(0, n // 2), slice(n // 2, n)):
                    assert len({*slots["m"][shard].tolist(), *slots["v"][shard].tolist()}) == 1
        finally:
            until.set()
            thread.join()


def test_a_server_of_copies_is_set_for_its_next_round(cluster3):
    with fastps.ParameterServer(np.zeros(4), consistency=LocalSGD(1)) as ps, ps.worker() as w:
        w.push(np.ones(4))
        ps.set(np.full(4, 10.0))
        assert ps.pull().tolist() == [10] * 4
        with pytest.raises(OptionError, match="slots of its own"):
            ps.set(np.zeros(4), slots={"m": np.zeros(4)})


def test_half_precision_is_set_as_it_is_pushed(there):
    dtypes = pytest.importorskip("ml_dtypes")
    values = np.linspace(-3, 3, 1000).astype(dtypes.bfloat16)
    with fastps.ParameterServer({"w": np.zeros(1000, np.float32)}, rule=Adam(0.1), **there(2)) as ps:
        ps.set({"w": values}, slots={"m": {"w": values.astype(np.float16)}})
        assert np.array_equal(ps.pull()["w"], values.astype(np.float32))
        assert np.array_equal(ps.slots("m")["w"], values.astype(np.float16).astype(np.float32))

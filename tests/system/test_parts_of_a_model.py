"""Pushes and pulls of some of the arrays: each array counts its own updates."""

from __future__ import annotations

import numpy as np
import pytest

import fastps
from fastps import BSP, SSP, Adam, LocalSGD, NamesError


@fastps.rule
def steps(p, g, *, step):
    """Adds up the squares of the steps: a number that tells which these were."""
    return p + g * step * step


def a_model():
    return {"a": np.zeros(3), "b": np.zeros((2, 2), np.float32), "c": np.zeros(()), "kept": np.arange(3)}


GIVEN = [("a", "b", "c"), ("b",), ("a", "c"), ("a", "b", "c"), ("c",), (), ("a", "b", "c")]


def grads_of(names, model):
    """Of the arrays with these names, each of one letter."""
    return {name: np.ones_like(model[name]) for name in names}


def expected_of(given):
    """Per array, the sum of the squares of 1 to the number of pushes that had it."""
    counts = {name: sum(name in names for names in given) for name in "abc"}
    return {name: sum(step * step for step in range(1, count + 1)) for name, count in counts.items()}


def check(found, expected):
    for name, value in expected.items():
        assert (found[name] == value).all(), (name, found[name], value)


@pytest.mark.parametrize("isolation", ["shard", "none"])
@pytest.mark.parametrize("num_shards", [1, 3])
def test_each_array_counts_the_pushes_that_had_it(ray_local, num_shards, isolation):
    model = a_model()
    with fastps.ParameterServer(model, rule=steps, num_shards=num_shards, isolation=isolation) as ps:
        for i, names in enumerate(GIVEN, 1):
            grads = grads_of(names, model)
            if i % 2:
                grads |= dict.fromkeys(set(model) - set(grads))
            ps.push(grads, partial=True)
            check(ps.pull(), expected_of(GIVEN[:i]))
        assert ps.pull()["kept"].tolist() == [0, 1, 2]


def test_a_part_is_pulled_by_name(ray_local):
    tree = {"head": np.ones(2), "body": [{"w": np.full(3, 2.0), "b": np.full(1, 3.0)}, {"w": np.full(3, 4.0)}]}
    with fastps.ParameterServer(tree, num_shards=2) as ps:
        assert list(ps.pull(names=["head"])) == ["head"]
        assert ps.pull(names="body/0")["body"][0]["b"].tolist() == [3]
        assert ps.pull(names="body/0")["body"][1] is None
        found = ps.pull(names=["body/1/w", "head"])
        assert found["head"].tolist() == [1, 1]
        assert found["body"][1]["w"].tolist() == [4, 4, 4]
        out = {"head": np.empty(2)}
        assert ps.pull(names=["head"], out=out) is out
        assert out["head"].tolist() == [1, 1]
        assert ps["body/1/w"].pull().tolist() == [4, 4, 4]
        assert ps.pull_async(names=["head"]).result(60)["head"].tolist() == [1, 1]
        with pytest.raises(NamesError, match=r"no array is called 'hed'; there are \['head'"):
            ps.pull(names=["hed"])
        for names in (5, [0], b"head"):
            with pytest.raises(NamesError, match="expected names to be str"):
                ps.pull(names=names)
        with pytest.raises(NamesError, match="missing"):
            ps.pull(names=["head"], out={"other": np.empty(2)})
        with pytest.raises(NamesError, match=r"unknown \['typo'\]"):
            ps.push({"typo": np.ones(2)}, partial=True)
        with pytest.raises(NamesError, match="partial=True"):
            ps.push({"head": np.ones(2)})
        with pytest.raises(fastps.ShapeError):
            ps.push({"head": np.ones(3)}, partial=True)
        assert ps.pull(names=["head"])["head"].tolist() == [1, 1]


def test_a_partial_push_pull_returns_what_it_made(ray_local):
    with fastps.ParameterServer({"a": np.zeros(3), "b": np.zeros(2, np.float32)}, rule=steps) as ps:
        assert list(ps.push_pull({"b": np.ones(2, np.float32)}, partial=True)) == ["b"]
        out = {"b": np.empty(2, np.float32)}
        assert ps.push_pull({"b": np.ones(2, np.float32), "a": None}, partial=True, out=out) is out
        assert out["b"].tolist() == [5, 5]
        assert ps.push_pull({"a": np.ones(3)}, partial=True)["a"].tolist() == [1, 1, 1]
        ps.push_async({"b": np.ones(2, np.float16)}, partial=True).result(60)
        assert ps.pull()["b"].tolist() == [14, 14]
        same = np.ones(3)
        ps.push_pull({"a": same}, partial=True, out={"a": same})
        assert same.tolist() == [5, 5, 5]


def test_one_array_is_a_part_of_itself(ray_local):
    with fastps.ParameterServer(np.zeros(3), rule=steps) as ps:
        ps.push(None, partial=True)
        ps.push(np.ones(3), partial=True)
        assert ps.push_pull(np.ones(3), partial=True).tolist() == [5, 5, 5]
        assert ps.versions == (2,)
        with pytest.raises(NamesError, match="omit names="):
            ps.pull(names=["w"])
    with fastps.ParameterServer(np.zeros(3), rule=steps, consistency=BSP()) as ps, ps.worker() as w:
        assert w.push_pull(np.ones(3), partial=True).tolist() == [1, 1, 1]


def test_names_are_those_of_out(ray_local):
    with fastps.ParameterServer({"a": np.zeros(3), "b": np.zeros(2)}) as ps:
        for names, out in ((["a"], "b"), (["a", "b"], "a"), (["a"], "ab")):
            kept = {name: np.full(3 if name == "a" else 2, 7.0) for name in out}
            with pytest.raises(NamesError):
                ps.pull(names=names, out=kept)
            assert all((array == 7).all() for array in kept.values())


def test_a_norm_that_overflows_ignores_what_is_not_given(ray_local):
    with fastps.ParameterServer({"a": np.zeros(2), "b": np.zeros(2)}, clip_norm=1.0) as ps:
        ps.push({"a": np.full(2, 1e200)}, partial=True)
        assert ps.pull()["a"] == pytest.approx(np.sqrt([0.5, 0.5]))


def test_a_push_of_nothing_changes_nothing(ray_local):
    with fastps.ParameterServer({"a": np.zeros(3), "b": [np.zeros(2)]}, rule=steps) as ps:
        for nothing in ({}, {"a": None}, {"b": []}, [None, None]):
            ps.push(nothing, partial=True)
            assert ps.push_pull(nothing, partial=True) == {}
        assert ps.versions == (0,)


def test_gradients_of_unused_layers_are_none(ray_local):
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 2))
    with fastps.ParameterServer(dict(model.named_parameters()), rule=Adam(0.1)) as ps:
        before = ps.pull()
        model[1](torch.ones(2)).sum().backward()
        ps.push([p.grad for p in model.parameters()], partial=True)
        after = ps.pull()
        assert {name for name in after if not (before[name] == after[name]).all()} == {"1.weight", "1.bias"}


def test_rules_that_read_what_was_pulled_get_it_for_the_part(ray_local):
    with fastps.ParameterServer({"a": np.zeros(2), "b": np.zeros(3)}, rule=fastps.DCASGD(0.5)) as ps:
        had = ps.pull()
        ps.push({"a": np.ones(2)}, partial=True, pulled=had)
        assert ps.pull()["a"].tolist() == [-0.5, -0.5]
        with pytest.raises(NamesError, match="missing"):
            ps.push({"a": np.ones(2)}, partial=True, pulled={"b": np.zeros(3)})


@pytest.mark.parametrize("policy", [BSP(), SSP(1), LocalSGD(2)], ids=["BSP", "SSP", "LocalSGD"])
def test_workers_push_parts(ray_local, policy):
    model = {"a": np.zeros(3), "b": np.zeros(2, np.float32), "c": np.zeros(())}
    with fastps.ParameterServer(model, rule=steps, consistency=policy) as ps, ps.worker() as w:
        given = [names for names in GIVEN for _ in range(2)]
        for names in given:
            w.push(grads_of(names, model), partial=True)
        check(w.pull(), expected_of(given))
        assert list(w.pull(names=["b"])) == ["b"]
        made = w.push_pull(grads_of("c", model), partial=True)
        assert list(made) == ["c"]
        check(made, {"c": expected_of([*given, "c"])["c"]})


def test_a_round_adds_up_what_each_worker_gave_of_an_array(ray_local):
    model = {"a": np.zeros(3), "b": np.zeros(2, np.float32), "c": np.zeros(())}
    with (
        fastps.ParameterServer(model, rule=steps, consistency=BSP(workers=2, reduce="sum"), num_shards=2) as ps,
        ps.worker() as one,
        ps.worker() as two,
    ):
        one.push(grads_of("ab", model), partial=True)
        two.push(grads_of("b", model), partial=True)
        check(one.pull(), {"a": 1, "b": 2, "c": 0})
        one.push(grads_of("a", model), partial=True, step=False)
        one.push(grads_of("ac", model), partial=True)
        two.push(grads_of("abc", model))
        check(two.pull(), {"a": 1 + 3 * 4, "b": 2 + 4, "c": 2})

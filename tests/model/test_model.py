"""Hypothesis drives a real server through several handles, and a perfect model beside it: they never differ."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

import fastps
from fastps.testing import ModelServer
from tests.support.extent import short_or_long

RULES = [
    fastps.Add(),
    fastps.SGD(0.5),
    fastps.SGD(0.1, weight_decay=0.25),
    fastps.Lion(0.1),
    {"*a": fastps.SGD(0.5), "*": fastps.Lion(0.25, beta1=0.5, beta2=0.75)},
]


def array(shape, dtype):
    return lambda seed: np.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


SHAPES = {
    "array": array((17, 3), np.float32),
    "scalar": array((), np.float64),
    "line": array((2000,), np.float64),
    "mapping": lambda seed: {
        "a": array((5, 5), np.float32)(seed),
        "deep": {"b": array((40,), np.float64)(seed), "c": array((1,), np.float32)(seed)},
    },
}
seeds = st.integers(0, 2**32 - 1)


def same(a, b):
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[name], b[name]) for name in a)
    return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b, equal_nan=True)


def each(tree, change):
    return {name: each(item, change) for name, item in tree.items()} if isinstance(tree, dict) else change(tree)


class Servers(RuleBasedStateMachine):
    """Three handles of one server, and the model."""

    @initialize(
        shape=st.sampled_from(sorted(SHAPES)), update=st.sampled_from(RULES), shards=st.integers(1, 4), seed=seeds
    )
    def create(self, shape, update, shards, seed):
        self.make = SHAPES[shape]
        initial = self.make(seed)
        update = fastps.Add() if isinstance(update, dict) and shape != "mapping" else update
        shards = 1 if shape == "scalar" else shards
        self.real = fastps.ParameterServer(initial, rule=update, num_shards=shards)
        self.handles = [self.real, *(pickle.loads(pickle.dumps(self.real)) for _ in range(2))]
        self.model = ModelServer(initial, rule=update, num_shards=shards)

    def teardown(self):
        if hasattr(self, "real"):
            self.real.close()
            self.handles = []

    @rule(handle=st.integers(0, 2), seed=seeds)
    def push(self, handle, seed):
        grads = self.make(seed)
        kept = each(grads, np.copy)
        self.handles[handle].push(grads)
        self.model.push(grads)
        assert same(grads, kept)

    @rule(handle=st.integers(0, 2))
    def pull(self, handle):
        found = self.handles[handle].pull()
        assert same(found, self.model.pull())
        each(found, lambda a: a.fill(np.nan))  # a copy: what we do to it stays here

    @rule(handle=st.integers(0, 2))
    def pull_out(self, handle):
        out = each(self.make(0), lambda a: np.full_like(a, np.nan))
        assert self.handles[handle].pull(out=out) is out
        assert same(out, self.model.pull())

    @rule(handle=st.integers(0, 2), seed=seeds, how=st.sampled_from(["new", "out", "in place"]))
    def push_pull(self, handle, seed, how):
        grads = self.make(seed)
        expected = self.model.push_pull(each(grads, np.copy))
        out = {"new": None, "out": each(grads, np.zeros_like), "in place": grads}[how]
        found = self.handles[handle].push_pull(grads, out=out)
        assert same(found, expected)
        assert out is None or found is out

    @rule(handle=st.integers(0, 2), seed=seeds)
    def push_strided_gradients(self, handle, seed):
        grads = each(self.make(seed), lambda a: np.repeat(a[..., None], 2, -1)[..., 0])
        self.handles[handle].push(grads)
        self.model.push(grads)

    @rule(handle=st.integers(0, 2), seed=seeds, value=st.sampled_from([np.inf, -np.inf, np.nan, 0.0, -0.0]))
    def push_special_numbers(self, handle, seed, value):
        grads = self.make(seed)
        first = grads["a"] if isinstance(grads, dict) else grads
        first.reshape(-1)[seed % first.size] = value
        self.handles[handle].push(grads)
        self.model.push(grads)

    @rule(
        handle=st.integers(0, 2),
        seed=seeds,
        break_it=st.sampled_from(
            [
                lambda g: each(g, lambda a: a.astype(np.int32)),
                lambda g: each(g, lambda a: a[None]),
                lambda g: each(g, lambda a: a.astype(a.dtype.newbyteorder())),
                lambda g: {**g, "more": np.zeros(1)} if isinstance(g, dict) else {"params": g},
                lambda g: {"a": g["a"]} if isinstance(g, dict) else np.concatenate([g.ravel(), [0]]),
                lambda g: None,
            ]
        ),
    )
    def push_what_does_not_fit(self, handle, seed, break_it):
        """The model and the server refuse it; the invariant sees that nothing has changed."""
        bad = break_it(self.make(seed))
        for push in (self.handles[handle].push, self.handles[handle].push_pull):
            with pytest.raises(fastps.ParameterError):
                push(bad)
        with pytest.raises(fastps.ParameterError):
            self.model.push(bad)

    @rule(handle=st.integers(0, 2), seed=seeds)
    def push_pull_into_what_does_not_fit(self, handle, seed):
        grads = self.make(seed)
        out = each(grads, np.zeros_like)
        each(out, lambda a: a.setflags(write=False))
        for ask in (lambda: self.handles[handle].push_pull(grads, out=out), lambda: self.handles[handle].pull(out=out)):
            with pytest.raises(fastps.OutputError):
                ask()

    @rule(handle=st.integers(1, 2))
    def replace_a_handle(self, handle):
        self.handles[handle] = pickle.loads(pickle.dumps(self.handles[handle]))

    @rule(handle=st.integers(1, 2))
    def close_a_handle(self, handle):
        """Lets go of one handle; the others go on."""
        self.handles[handle].close()
        with pytest.raises(fastps.ClosedError):
            self.handles[handle].pull()
        self.handles[handle] = pickle.loads(pickle.dumps(self.real))

    @invariant()
    def versions_agree(self):
        if hasattr(self, "real"):
            for handle in self.handles:
                assert handle.versions == self.model.versions

    @invariant()
    def parameters_agree(self):
        if hasattr(self, "real"):
            assert same(self.real.pull(), self.model.pull())


@pytest.mark.usefixtures("ray_local")
def test_a_server_and_the_model_never_differ():
    run_state_machine_as_test(
        Servers,
        settings=settings(
            max_examples=short_or_long(4, 12),
            stateful_step_count=40,
            phases=[Phase.explicit, Phase.generate],  # shrinking would start hundreds of servers
            suppress_health_check=list(HealthCheck),
        ),
    )

"""Hypothesis drives tables of a real server through several handles, and a dict of rows beside each: they never differ.

One server serves all examples; each begins by evicting what the one before has left.
"""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

import fastps
from fastps.init import Constant, Normal, Uniform
from tests.support.extent import short_or_long
from tests.support.naive_table import NaiveTable
from tests.support.row_rules import counting

# Rules that kernels compute bit for bit as they are written.
TABLES = {
    "add": fastps.Table(5, rule=fastps.Add(), init=Uniform(-1, 1)),
    "sgd": fastps.Table(9, rule=fastps.SGD(0.5, weight_decay=0.25), init=Normal(), dtype="float64", keys="uint64"),
    "lion": fastps.Table(4, rule=fastps.Lion(0.25, beta1=0.5, beta2=0.75), init=Constant(2.0), keys="bytes"),
    "counting": fastps.Table(3, rule=counting(0.5), dtype="float64"),
}
NUM_SHARDS = 3
numbers = {
    "int64": [-(2**63), -7, -1, 0, 1, 2, 3, 10**12, 2**63 - 1],
    "uint64": [0, 1, 2, 3, 4, 2**32, 2**63, 2**64 - 2, 2**64 - 1],
    "bytes": ["", "a", "b", "é", "user:1", "user:2", "x" * 8, "x" * 9, "\0"],
}
places = st.lists(st.integers(0, 8), max_size=14)
seeds = st.integers(0, 2**32 - 1)
handles = st.integers(0, 1)


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b, equal_nan=True)


class Tables(RuleBasedStateMachine):
    """Two handles of one table, and the dict. `server` is set by the test."""

    server: fastps.ParameterServer

    @initialize(name=st.sampled_from(sorted(TABLES)))
    def choose(self, name):
        table = TABLES[name]
        self.handles = [self.server[name], pickle.loads(pickle.dumps(self.server[name]))]
        self.every = numbers[table.keys]
        handle = self.handles[0]
        handle.evict(self.every)
        assert len(handle) == 0
        self.first = dict(zip(self.every, handle.initial(self.every), strict=True))
        version = handle.stats()[0].version
        self.naive = NaiveTable(table.rule, table.dim, table.dtype, self.first.__getitem__, version)

    def keys(self, places):
        return [self.every[place] for place in places]

    def rows(self, seed, n):
        values = np.random.default_rng(seed).normal(size=(n, self.naive.dim))
        return values.astype(self.naive.dtype)

    @rule(handle=handles, places=places, verb=st.sampled_from(["peek", "pull"]))
    def read(self, handle, places, verb):
        keys = self.keys(places)
        found = getattr(self.handles[handle], verb)(keys)
        assert same(found, getattr(self.naive, verb)(keys))
        found.fill(np.nan)  # a copy: what we do to it stays here

    @rule(handle=handles, places=places)
    def pull_out(self, handle, places):
        keys = self.keys(places)
        out = np.full((len(keys), self.naive.dim), np.nan, self.naive.dtype)
        assert self.handles[handle].pull(keys, out=out) is out
        assert same(out, self.naive.pull(keys))

    @rule(handle=handles, places=places, seed=seeds, special=st.sampled_from([None, np.nan, np.inf, -0.0, 1e30]))
    def push(self, handle, places, seed, special):
        keys, grads = self.keys(places), self.rows(seed, len(places))
        if special is not None and len(keys):
            grads[seed % len(keys), seed % self.naive.dim] = special
        kept = grads.copy()
        self.handles[handle].push(keys, grads)
        assert same(grads, kept)
        self.naive.push(keys, grads)

    @rule(handle=handles, places=places, seed=seeds, how=st.sampled_from(["new", "out", "in place"]))
    def push_pull(self, handle, places, seed, how):
        keys, grads = self.keys(places), self.rows(seed, len(places))
        expected = self.naive.push_pull(keys, grads.copy())
        out = {"new": None, "out": np.zeros_like(grads), "in place": grads}[how]
        found = self.handles[handle].push_pull(keys, grads, out=out)
        assert same(found, expected)
        assert out is None or found is out

    @rule(handle=handles, places=places, seed=seeds, which=st.sets(st.sampled_from(["row", "slots"]), min_size=1))
    def set(self, handle, places, seed, which):
        keys, slots = self.keys(places), list(self.naive.rule.slots) if "slots" in which else []
        streams = {name: self.rows(seed + i, len(keys)) for i, name in enumerate(["row"] * ("row" in which) + slots)}
        if streams:
            rows = streams.get("row")
            self.handles[handle].set(keys, rows, **{name: streams[name] for name in slots})
            self.naive.set(keys, **streams)

    @rule(handle=handles, places=places)
    def evict(self, handle, places):
        keys = self.keys(places)
        assert self.handles[handle].evict(keys) == self.naive.evict(keys)

    @rule(handle=handles, places=places, seed=seeds)
    def push_what_does_not_fit(self, handle, places, seed):
        """The invariants see that nothing has changed."""
        keys, grads = self.keys(places), self.rows(seed, len(places) + 1)
        for wrong in (grads, grads[:-1, :-1], grads[:-1].astype(np.int32)):
            for verb in (self.handles[handle].push, self.handles[handle].push_pull, self.handles[handle].set):
                with pytest.raises(fastps.ParameterError):
                    verb(keys, wrong)
        with pytest.raises(fastps.ParameterError):
            self.handles[handle].pull([*keys, 1.5])

    @rule(handle=handles)
    def move_everything_through_arrow(self, handle):
        """Out, away, and in again; text does not come back from its hash, but its row does."""
        table = self.handles[handle]
        found = table.to_arrow(slots=True)
        assert table.evict(self.every) == found.num_rows
        assert table.from_arrow(found) == found.num_rows

    @rule()
    def replace_a_handle(self):
        self.handles[1] = pickle.loads(pickle.dumps(self.handles[1]))

    @invariant()
    def they_agree(self):
        if not hasattr(self, "naive"):
            return
        for handle in self.handles:
            assert len(handle) == len(self.naive)
            assert np.array_equal(handle.contains(self.every), self.naive.contains(self.every))
            assert same(handle.peek(self.every), self.naive.peek(self.every))
            assert handle.stats()[0].version == handle.stats()[-1].version == self.naive.version
        slots = {name: [] for name in self.naive.rule.slots}
        rows = 0
        for _, values, named in self.handles[0].items(slots=True):
            rows += len(values)
            for name, found in named.items():
                slots[name] += found.tolist()
        assert rows == len(self.naive)
        for name, found in slots.items():
            assert sorted(map(repr, found)) == sorted(repr(row[name].tolist()) for row in self.naive.rows.values())


@pytest.mark.usefixtures("ray_local")
def test_a_table_and_a_dict_of_rows_never_differ():
    with fastps.ParameterServer(TABLES, num_shards=NUM_SHARDS) as Tables.server:
        try:
            run_state_machine_as_test(
                Tables,
                settings=settings(
                    max_examples=short_or_long(8, 25),
                    stateful_step_count=40,
                    phases=[Phase.explicit, Phase.generate, Phase.shrink],  # an example costs no server
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            del Tables.server

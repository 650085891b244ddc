"""Rules from modules that the shards' processes cannot import."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest

import fastps
from tests.support.leftovers import started_here
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("ray_local")

HELPER = """
def doubled(x):
    return 2 * x
"""
RULES = """
import fastps
from helper_of_rules import doubled

@fastps.rule
def twice(p, g, *, lr=1.0):
    return p + doubled(g) * lr

def falling(step):
    return 4.0 - doubled(step)

def keep(keys, values, slots):
    with open({path!r}, "a") as file:
        file.write(f"{{doubled(len(keys))}}\\n")
"""
# It cannot be pickled by value: a module that is referred to as a whole, with a lock in it.
LOCKED = """
import threading
import helper_with_a_lock

def keep(keys, values, slots):
    helper_with_a_lock.count += len(keys)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of modules that this process finds and those of shards do not: Ray was started before."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in sys.modules[name].__file__:
            del sys.modules[name]


def test_rules_schedules_and_what_gets_evicted_rows_travel_with_their_code(folder):
    (folder / "helper_of_rules.py").write_text(HELPER)
    (folder / "my_rules.py").write_text(RULES.format(path=str(folder / "evicted")))
    my_rules = importlib.import_module("my_rules")

    with fastps.ParameterServer(np.zeros(3), rule=my_rules.twice(lr=0.5), num_shards=2) as ps:
        ps.push(np.ones(3))
        assert ps.pull().tolist() == [1] * 3
    with fastps.ParameterServer(np.zeros(3), rule=my_rules.twice(lr=my_rules.falling)) as ps:
        ps.push(np.ones(3))
        assert ps.pull().tolist() == [8] * 3
    table = fastps.Table(2, rule=my_rules.twice(), capacity=4, evict="lru", on_evict=my_rules.keep)
    with fastps.ParameterServer(table) as ps:
        for key in range(8):
            ps.table.push([key], np.ones((1, 2), np.float32))
        wait_until((folder / "evicted").exists, 20, "the rows that were evicted")
        assert int((folder / "evicted").read_text().split()[0]) >= 2


def test_a_module_that_must_be_imported_and_cannot_be_is_named_with_what_to_set(folder):
    (folder / "helper_with_a_lock.py").write_text("import threading\nlock, count = threading.Lock(), 0\n")
    (folder / "my_keeper.py").write_text(LOCKED)
    my_keeper = importlib.import_module("my_keeper")

    before = {pid for pid, command in started_here(shared=True).items() if "Shard" in command}
    with pytest.raises(fastps.RuleError, match=r"'my_keeper'.*PYTHONPATH"):
        fastps.ParameterServer(fastps.Table(2, capacity=4, evict="lru", on_evict=my_keeper.keep))
    wait_until(
        lambda: {pid for pid, command in started_here(shared=True).items() if "Shard" in command} <= before,
        20,
        "the end of the shards that were started",
    )


def test_what_cannot_be_pickled_at_all_is_refused_before_anything_starts():
    import threading

    lock = threading.Lock()
    with pytest.raises(fastps.RuleError, match="lock"):
        fastps.ParameterServer(fastps.Table(2, capacity=4, evict="lru", on_evict=lambda *_: lock.acquire()))

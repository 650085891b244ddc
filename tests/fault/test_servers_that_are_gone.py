"""One rule for every verb and property: when the server was closed or a shard's process has died, what reads or changes
the server's state raises ClosedError or ShardDiedError, on every handle; facts of the handle itself stay."""

from __future__ import annotations

import os
import pickle
import signal

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

import fastps
from fastps.client.array import ArrayHandle
from fastps.client.view import View
from fastps.tables.handle import TableHandle
from fastps.workers.worker import Worker
from tests.support.extent import samples, short_or_long
from tests.support.waiting import GUARD_SECONDS, wait_until

KEYS, ROWS = np.arange(40), np.ones((40, 2), np.float32)
ARROW = pa.table({"key": KEYS, "row": pa.FixedSizeListArray.from_arrays(pa.array(ROWS.ravel()), 2)})
GRADS = {"a": np.ones(3), "b": np.ones(3)}

# Each class's verbs: how one is called, with whatever `there` has.
SERVER = {
    "pull": lambda ps, there: ps.pull(),
    "push": lambda ps, there: ps.push(GRADS),
    "push_pull": lambda ps, there: ps.push_pull(GRADS),
    "pull_async": lambda ps, there: ps.pull_async().result(GUARD_SECONDS),
    "grad_buffer": lambda ps, there: ps.push_async(ps.grad_buffer()).result(GUARD_SECONDS),
    "push_async": lambda ps, there: ps.push_async(GRADS).result(GUARD_SECONDS),
    "push_pull_async": lambda ps, there: ps.push_pull_async(GRADS).result(GUARD_SECONDS),
    "slots": lambda ps, there: ps.slots(),
    "steps": lambda ps, there: ps.steps(),
    "state_dict": lambda ps, there: ps.state_dict(),
    "load_state_dict": lambda ps, there: ps.load_state_dict(GRADS, strict=False),
    "save": lambda ps, there: ps.save("/proc/no/such/folder"),
    "save_every": lambda ps, there: ps.save_every("/proc/no/such/folder", steps=1),
    "set": lambda ps, there: ps.set(GRADS, slots={"velocity": GRADS}),
    "configure": lambda ps, there: ps.configure(lr=0.2),
    "hyper": lambda ps, there: ps.hyper,
    "versions": lambda ps, there: ps.versions,
    "stats": lambda ps, there: ps.stats(),
    "view": lambda ps, there: ps.view(),
    "worker": lambda ps, there: ps.worker(),
}
# flush: of this process's queue
SERVER_FACTS = {"name", "num_shards", "node_ids", "table", "reader", "remote", "close", "flush"}
TABLE = {
    "pull": lambda t, there: t.pull(KEYS),
    "peek": lambda t, there: t.peek(KEYS),
    "push": lambda t, there: t.push(KEYS, ROWS),
    "push_pull": lambda t, there: t.push_pull(KEYS, ROWS),
    "pull_async": lambda t, there: t.pull_async(KEYS).result(GUARD_SECONDS),
    "peek_async": lambda t, there: t.peek_async(KEYS).result(GUARD_SECONDS),
    "push_async": lambda t, there: t.push_async(KEYS, ROWS).result(GUARD_SECONDS),
    "push_pull_async": lambda t, there: t.push_pull_async(KEYS, ROWS).result(GUARD_SECONDS),
    "set": lambda t, there: t.set(KEYS, ROWS),
    "evict": lambda t, there: t.evict(KEYS),
    "contains": lambda t, there: t.contains(KEYS),
    "activity": lambda t, there: t.activity(KEYS),
    "view": lambda t, there: t.view(KEYS),
    "keys": lambda t, there: list(t.keys()),
    "items": lambda t, there: list(t.items()),
    "to_arrow": lambda t, there: t.to_arrow(),
    "from_arrow": lambda t, there: t.from_arrow(ARROW),
    "export": lambda t, there: t.export(there / "rows.parquet"),
    "load": lambda t, there: t.load(there / "given.parquet"),
    "nearest": lambda t, there: t.nearest([1, 1]),
    "configure": lambda t, there: t.configure(lr=0.2),
    "hyper": lambda t, there: t.hyper,
    "stats": lambda t, there: t.stats(),
    "__len__": lambda t, there: len(t),
    "__contains__": lambda t, there: 3 in t,
}
TABLE_FACTS = {"name", "dim", "dtype", "initial"}
WORKER = {
    "pull": lambda w, there: w.pull(),
    "push": lambda w, there: w.push(GRADS),
    "push_pull": lambda w, there: w.push_pull(GRADS),
    "view": lambda w, there: w.view(),
    "end_step": lambda w, there: w.end_step(),
}
WORKER_FACTS = {"__getitem__", "close"}  # and what an instance has: rank, clock, reply, returns
VIEW = {
    "params": lambda v, there: v.params,
    "array": lambda v, there: v.array(0),
    "pieces": lambda v, there: v.pieces,
    "to_arrow": lambda v, there: v.to_arrow(),
    "__getitem__": lambda v, there: v[...],
    "__len__": lambda v, there: len(v),
    "__array__": lambda v, there: v.__array__(),
}
EMPTY = {  # operations on no keys at all
    "pull": lambda t, there: t.pull([]),
    "peek": lambda t, there: t.peek([]),
    "push": lambda t, there: t.push([], np.empty((0, 2), np.float32)),
    "push_pull": lambda t, there: t.push_pull([], np.empty((0, 2), np.float32)),
    "set": lambda t, there: t.set([], np.empty((0, 2), np.float32)),
    "evict": lambda t, there: t.evict([]),
    "contains": lambda t, there: t.contains([]),
    "activity": lambda t, there: t.activity([]),
    "view": lambda t, there: t.view([]),
    "from_arrow": lambda t, there: t.from_arrow(ARROW[:0]),
}

DUNDERS = {"__len__", "__contains__", "__getitem__", "__array__"}
ENDS = {
    "closed": lambda ps: ps.close(),
    "shard 0 killed": lambda ps: kill(ps, 0),
    "shard 1 killed": lambda ps: kill(ps, 1),
}


def public(cls):
    return {name for name in dir(cls) if not name.startswith("_")} | (DUNDERS & set(dir(cls)))


@pytest.mark.parametrize(
    ("cls", "verbs", "facts"),
    [
        (fastps.ParameterServer, SERVER, SERVER_FACTS | {"__getitem__", "__contains__", "__len__"}),
        (TableHandle, TABLE, TABLE_FACTS),
        (ArrayHandle, {}, {"pull", "view"}),  # the server's
        (Worker, WORKER, WORKER_FACTS),
        (View, VIEW, set()),
    ],
)
def test_the_tables_above_have_every_verb_and_property(cls, verbs, facts):
    assert public(cls) == verbs.keys() | facts


def kill(ps, shard):
    pid = ps.attachment.spec.addresses[shard].pid
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: is_gone(pid), 30, "the death of a shard's process")


def is_gone(pid):
    """With all its threads: the one that started the others may be the first to go."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            state = file.read().rpartition(")")[2].split()[0]
        return state == "Z" and len(os.listdir(f"/proc/{pid}/task")) == 1
    except OSError:
        return True


def check(verbs, target, there):
    """Every verb raises what it should; the message says of all that do not what they did."""
    wrong = {}
    for name, call in verbs.items():
        try:
            wrong[name] = f"answered {call(target, there)!r}"[:100]
        except fastps.UnavailableError:  # "try again" is of no use
            wrong[name] = "UnavailableError"
        except (fastps.ClosedError, fastps.ShardDiedError):
            pass
        except Exception as error:
            wrong[name] = f"{type(error).__name__}: {error}"
    assert wrong == {}


WHERE = {"shards here": [0, 0], "shards elsewhere": [1, 1], "both": [0, 2]}


SCENES = [(where, end) for where in WHERE for end in ENDS]
SOME = [*SCENES[:3], ("shards elsewhere", "closed"), ("both", "shard 1 killed")]


@pytest.fixture(params=short_or_long(SOME, SCENES), ids=", ".join)
def scene(request, cluster3):
    """Options of a server of two shards, what ends it, and which verbs cannot tell: they ask one shard of another node
    alone."""
    where, end = request.param
    untold = {"view"} if where != "shards here" else set()  # SplitError
    if (where, end) == ("both", "shard 1 killed"):
        untold |= {"hyper", "worker"}
    if where != "shards here" and end == "shard 1 killed":
        untold |= {"end_step"}
    return (
        {"num_shards": 2, "timeout": GUARD_SECONDS, "placement": [cluster3.ids[i] for i in WHERE[where]]},
        ENDS[end],
        untold,
    )


def but(verbs, names):
    return {name: call for name, call in verbs.items() if name not in names}


@pytest.fixture
def there(tmp_path):
    pa.parquet.write_table(ARROW, tmp_path / "given.parquet")
    return tmp_path


def another_handle(ps):
    return pickle.loads(pickle.dumps(ps))


def check_workers(handle, end, untold):
    """Two workers, one of which has done nothing, when the server ends; and the view that one had."""
    with handle.worker() as worker, handle.worker() as idle:
        worker.pull()
        view = worker.view() if "view" not in untold else None
        end()
        for one in (worker, idle):
            check(but(WORKER, untold), one, None)
        if view is not None:
            check(but(VIEW, {"__array__"}), view, None)
        assert {worker.rank, idle.rank} == {0, 1}


def test_every_verb_of_servers_tables_and_asynchronous_workers_raises_on_another_handle(scene, there):
    options, end, untold = scene
    params = {"a": np.zeros(3), "b": np.zeros(3), "t": fastps.Table(2, track=True, init=0.0)}
    with fastps.ParameterServer(params, rule=fastps.SGD(0.1, momentum=0.9), **options) as ps:
        ps["t"].pull(KEYS)
        other, late = another_handle(ps), another_handle(ps)
        other["t"].pull(KEYS)
        check_workers(other, lambda: end(ps), untold)
        check(but(SERVER, untold), other, there)
        check(but(TABLE, untold), other["t"], there)
        assert sorted(os.listdir(there)) == ["given.parquet"]  # no export was left half-way
        if ps.node_ids[0] == ps.node_ids[1] and "view" not in untold:
            check(EMPTY, other["t"], there)
        check({name: SERVER[name] for name in ("pull", "push", "stats")}, late, there)
        other.push_async(GRADS)
        with pytest.raises((fastps.ClosedError, fastps.ShardDiedError)):
            other.flush()
        other.flush()
        assert other.num_shards == 2
        assert other["t"].initial(KEYS).shape == (40, 2)


@samples(consistency=[fastps.Async(), fastps.BSP()], end=["closed", "killed"])
def test_views_taken_before_keep_their_arrays_and_give_no_new_ones(cluster3, consistency, end):
    with fastps.ParameterServer(np.ones(3), num_shards=1, consistency=consistency) as one:
        view = another_handle(one).view()
        kept = view.params
        ENDS["closed"](one) if end == "closed" else kill(one, 0)
        check(VIEW, view, None)
        assert kept.tolist() in ([0] * 3, [1] * 3)


POLICIES = [None, fastps.SSP(1), fastps.BSP(), fastps.LocalSGD(1)]  # None: Async, whose workers the test above has


@pytest.mark.parametrize(
    ("scene", "consistency"),
    [
        pytest.param(scene, policy, id=", ".join([*scene, type(policy).__name__]))
        for i, scene in enumerate(SOME)
        for policy in short_or_long([POLICIES[i % len(POLICIES)]], POLICIES)
        if policy is not None
    ],
    indirect=["scene"],
)
def test_every_verb_of_a_worker_of_other_consistencies_raises(scene, consistency):
    options, end, untold = scene
    if consistency.local and "view" in untold:
        untold = untold | {"pull"}  # of the worker's own copy
    with fastps.ParameterServer(GRADS, rule=fastps.SGD(0.1), consistency=consistency, **options) as ps:
        check_workers(another_handle(ps), lambda: end(ps), untold)


def test_the_name_of_a_server_whose_first_shard_died_can_be_taken_again(cluster3):
    """Although the program that created it still has its handle."""
    old = fastps.ParameterServer(np.zeros(3), name="again")
    kill(old, 0)
    with pytest.raises(fastps.ShardDiedError, match="create the server again"):
        fastps.get("again")
    with fastps.ParameterServer(np.ones(4), name="again") as new:
        assert fastps.get("again").pull().tolist() == [1] * 4
        with pytest.raises(fastps.NameTakenError, match=r"lives already.*frees the name by close"):
            fastps.ParameterServer(np.zeros(3), name="again")
        old.close()
        assert new.pull().tolist() == [1] * 4

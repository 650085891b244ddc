"""Servers and tables in the style of a Ray actor: every verb, called and by `remote`."""

import pickle

import numpy as np
import pyarrow as pa
import pytest
import ray

import fastps
from fastps.server import actor_style
from fastps.tables.handle import TableHandle
from tests.support import workers
from tests.support.waiting import GUARD_SECONDS

pytestmark = pytest.mark.usefixtures("ray_local")

KEYS = np.arange(3)
ONES = np.ones((3, 2), np.float32)
RULE = fastps.SGD(0.1, momentum=0.9)
STATE = {
    "w": np.ones(5), "fastps:slots/velocity/w": np.ones(5), "fastps:steps/w": 1,
    **{f"fastps:hyper/{name}/*": value for name, value in zip(RULE.hyper, RULE.values, strict=True)},
}  # fmt: skip

# By verb the arguments of a call.
SERVER = {
    "pull": (), "push": ({"w": np.ones(5)},), "push_pull": ({"w": np.ones(5)},), "slots": ("velocity",), "steps": (),
    "set": ({"w": np.ones(5)},), "configure": (), "hyper": (), "versions": (), "stats": (),
    "get_params": (), "update_params": ({"w": np.ones(5)},),
    "state_dict": (), "load_state_dict": (STATE,),
}  # fmt: skip
TABLE = {
    "pull": (KEYS,), "peek": (KEYS,), "push": (KEYS, ONES), "push_pull": (KEYS, ONES), "set": (KEYS, ONES),
    "evict": (KEYS,), "contains": (KEYS,), "activity": (KEYS,), "to_arrow": (), "nearest": ([1, 1],),
    "initial": (KEYS,), "configure": (), "hyper": (), "stats": (), "from_arrow": (pa.table({"key": KEYS,
        "row": pa.FixedSizeListArray.from_arrays(pa.array(ONES.ravel()), 2)}),),
}  # fmt: skip
FACTS = {"name", "num_shards", "node_ids", "table", "reader", "remote", "dim", "dtype"}  # of a handle


@pytest.fixture(scope="module")
def ps(ray_local):
    params = {"w": np.zeros(5), "t": fastps.Table(2, rule=fastps.Add(), track=True)}
    with fastps.ParameterServer.remote(params, rule=RULE, num_shards=2) as ps:
        yield ps


def verbs_of(cls):
    return {name for name in dir(cls) if not name.startswith("_")} - FACTS


def test_the_tables_above_have_every_verb_or_the_style_says_why_not():
    assert verbs_of(fastps.ParameterServer) == (SERVER.keys() - actor_style.NAMES.keys()) | (
        actor_style.HERE.keys() & verbs_of(fastps.ParameterServer)
    )
    assert verbs_of(TableHandle) == TABLE.keys() | (actor_style.HERE.keys() & verbs_of(TableHandle))


@pytest.mark.parametrize("verb", SERVER)
def test_every_verb_of_a_server_is_executed_by_remote(verb, ps):
    here, there = pickle.loads(pickle.dumps(getattr(ps, verb))), getattr(ps, verb).remote
    reference = there(*SERVER[verb])
    assert isinstance(reference, ray.ObjectRef)
    answer = ray.get(reference, timeout=GUARD_SECONDS)
    assert type(answer) is type(here(*SERVER[verb]))


@pytest.mark.parametrize("verb", TABLE)
def test_every_verb_of_a_table_is_executed_by_remote(verb, ps):
    for table in (ps.table, ps["t"]):
        method = getattr(table, verb)
        answer = ray.get(method.remote(*TABLE[verb]), timeout=GUARD_SECONDS)
        assert type(answer) is type(method(*TABLE[verb]))


def test_pushes_by_remote_are_applied_in_order_and_once(ps):
    before, versions = ps.pull()["w"], ps.versions()
    ps.set(slots={"velocity": {"w": np.zeros(5)}})
    ps.configure(momentum=0.0)
    for _ in range(5):
        ps.push.remote({"w": np.ones(5)})
    ps.push.remote(ray.put({"w": np.ones(5)}))
    after = ray.get(ps.pull.remote(timeout=GUARD_SECONDS), timeout=GUARD_SECONDS)["w"]
    assert np.allclose(after, before - 0.6)
    assert ray.get(ps.versions.remote()) == tuple(version + 6 for version in versions) == ps.versions()


def test_a_table_by_remote_reads_what_it_has_written(ps):
    table = ps["t"]
    table.set.remote([70, 71], np.array([[1, 2], [3, 4]], np.float32))
    table.push.remote([71], np.ones((1, 2), np.float32))
    assert ray.get(table.pull.remote([71, 70]), timeout=GUARD_SECONDS).tolist() == [[4, 5], [1, 2]]
    assert 70 in table
    assert len(table) == len(ps.table) > 0


@pytest.mark.parametrize("verb", actor_style.HERE)
def test_what_makes_sense_in_the_callers_process_alone_says_what_to_do(verb, ps):
    targets = [target for target in (ps, ps.table) if hasattr(target, verb)]
    assert targets
    for target in targets:
        with pytest.raises(fastps.OptionError, match=rf"{verb}\.remote: "):
            getattr(target, verb).remote()


def test_arguments_that_are_of_this_process_are_refused_before_anything_is_sent(ps):
    with pytest.raises(fastps.OptionError, match=r"out= is memory of this process; omit it"):
        ps.pull.remote(out={"w": np.empty(5)})
    with pytest.raises(fastps.OptionError, match="resume="):
        ps.push.remote({"w": np.ones(5)}, resume=object())


def test_an_error_of_a_call_by_remote_is_of_its_class(ps):
    with pytest.raises(fastps.ShapeError, match="float64"):
        ray.get(ps.push.remote({"w": np.ones(4)}), timeout=GUARD_SECONDS)
    with pytest.raises(AttributeError):
        ps.train.remote()


def test_facts_and_views_and_sessions_are_those_of_the_server(ps):
    assert ps.num_shards == 2
    assert ps.table.dim == 2
    with fastps.ParameterServer.remote(3) as other:
        with other.view() as view:
            assert view.params.tolist() == [0, 0, 0]
        with other.worker() as worker:
            worker.push(np.ones(3))
        assert other.push_async(np.ones(3)).result(GUARD_SECONDS) is None
        assert ray.get(workers.push_and_pull.remote(other, np.ones(3)))[0].tolist() == [3] * 3
    with pytest.raises(fastps.ClosedError):
        other.pull.remote()
    with pytest.raises(fastps.ClosedError):
        other.pull()


def test_a_full_table_makes_room_for_a_push_by_remote(ray_local):
    table = fastps.Table(1, capacity=32, evict="lru", rule=fastps.Add(), init=0.0)
    with fastps.ParameterServer.remote(table, num_shards=2) as ps:
        for start in range(0, 200, 10):
            ray.get(
                ps.table.push.remote(np.arange(start, start + 10), np.ones((10, 1), np.float32)), timeout=GUARD_SECONDS
            )
        assert ps.table.contains(np.arange(190, 200)).all()


def test_names_and_arrays_are_those_of_the_server():
    with fastps.ParameterServer.remote({"w": np.zeros(3), "t": fastps.Table(2)}) as ar:
        assert list(ar) == ["w", "t"]
        assert len(ar) == 2
        assert "w" in ar
        assert ar["w"].pull().tolist() == [0, 0, 0]
        assert ray.get(ar["t"].pull.remote([1])).shape == (1, 2)

"""Readers: what they have reads, here and on another node, and everything else of a handle is refused."""

import pickle
from functools import partial

import numpy as np
import pytest
import ray

import fastps
from fastps.client.array import ArrayHandle
from fastps.client.refusal import Refusal, verbs_of
from fastps.cluster import ray as cluster
from fastps.server import actor_style
from fastps.server.reader import reader_of
from tests.support import workers
from tests.support.reading import (
    HERE,
    KEYS,
    ONES,
    REFUSED,
    ROWS,
    SERVER,
    TABLE,
    TABLE_HERE,
    TABLE_REFUSED,
    export,
    faults,
    not_refused,
    wrong,
)  # fmt: skip
from tests.support.waiting import GUARD_SECONDS


def offered(cls):
    return {verb for verb in verbs_of(cls) if not isinstance(getattr(cls, verb), Refusal)}


def params():
    return {"w": np.zeros(3), "t": fastps.Table(2, rule=fastps.Add(), track=True, init=0.0)}


def new_server(make=fastps.ParameterServer, **options):
    ps = make(params(), rule={"*": fastps.SGD(1.0, momentum=0.5)}, num_shards=2, **options)
    ps.push({"w": -np.ones(3)})
    ps["t"].push([1, 3], ROWS[[1, 0]])
    return ps


@pytest.fixture(scope="module")
def ps(cluster3):
    with new_server(placement=[cluster3.ids[0]] * 2) as ps:
        yield ps


@pytest.fixture(params=["as it is", "pickled", "pickled twice, as a part"])
def reader(request, ps):
    reader = ps.reader()
    if request.param != "as it is":
        reader = pickle.loads(pickle.dumps(reader))
    if request.param == "pickled twice, as a part":
        reader = pickle.loads(pickle.dumps({"of": [reader]}))["of"][0]
    return reader


def test_the_tables_above_have_every_verb_that_a_reader_offers():
    assert offered(fastps.Reader) == SERVER.keys() | HERE.keys()
    assert offered(fastps.TableReader) == TABLE.keys() | TABLE_HERE.keys() | {"export"}
    assert verbs_of(fastps.Reader) == verbs_of(fastps.ParameterServer)
    assert verbs_of(fastps.TableReader) == verbs_of(fastps.TableHandle)
    assert verbs_of(ArrayHandle) == {"pull", "view"}  # a reader gives it out


def test_what_changes_a_server_is_refused():
    assert {"push", "push_pull", "push_async", "push_pull_async", "configure", "worker", "close"} <= REFUSED
    assert {"pull", "pull_async", "push", "push_pull", "set", "evict", "load", "configure"} <= TABLE_REFUSED


def test_every_verb_of_a_handle_reads_or_is_refused(reader, ps, tmp_path):
    assert type(reader) is fastps.Reader
    assert wrong(SERVER | HERE, reader) == []
    assert not_refused(REFUSED, reader) == {}
    for table in (reader["t"], reader.table, pickle.loads(pickle.dumps(reader["t"]))):
        assert type(table) is fastps.TableReader
        assert wrong(TABLE | TABLE_HERE | {"export": partial(export, tmp_path)}, table) == []
        assert not_refused(TABLE_REFUSED, table) == {}
        assert len(table) == 2
        assert 2 not in table
    assert reader["w"].pull().tolist() == [1, 1, 1]
    assert (list(reader), len(reader), "t" in reader) == (["w", "t"], 2, True)
    assert repr(reader).startswith("<Reader ")
    assert ps.versions == (1, 1)


def test_a_refusal_says_what_to_do_and_is_the_error_that_a_caller_would_catch(ps):
    with pytest.raises(PermissionError, match=r"^push: .*handle that ParameterServer\(\) or fastps\.get\(\) returned"):
        ps.reader().push(ONES)
    with pytest.raises(fastps.ReadOnlyError, match=r"^pull: a pull creates rows.*peek\(keys\)"):
        ps.reader()["t"].pull([2])
    with pytest.raises(fastps.ReadOnlyError, match=r"^close: .*the program that created the server"):
        ps.reader().close()


def test_a_view_of_a_reader_creates_no_row(ps):
    with pytest.raises(fastps.KeysError, match=r"no row for \[2\]"):
        ps.reader()["t"].view(KEYS)
    assert 2 not in ps["t"]


@pytest.mark.parametrize("node", ["node0", "node1"])
def test_a_reader_stays_one_in_tasks_and_actors_of_every_node(ps, node):
    with_node = {"resources": {node: 0.001}}
    task = ray.remote(num_cpus=0)(faults).options(**with_node)
    assert ray.get(task.remote(ps.reader()), timeout=GUARD_SECONDS) == []
    actor = workers.Worker.options(**with_node).remote(ps.reader())
    assert ray.get(actor.do.remote(faults), timeout=GUARD_SECONDS) == []
    error, text, *_ = ray.get(actor.error_of.remote(workers.push, ONES), timeout=GUARD_SECONDS)
    assert (error, text.partition(":")[0]) == (fastps.ReadOnlyError, "push")
    with pytest.raises(fastps.ReadOnlyError):
        ray.get(actor.push.remote(ONES), timeout=GUARD_SECONDS)
    assert ps.versions == (1, 1)


def test_a_reader_in_the_style_of_an_actor_reads_by_remote_and_refuses_before_anything_is_sent(cluster3):
    with new_server(fastps.ParameterServer.remote, placement=[cluster3.ids[1]] * 2) as ps:
        for reader in (ps.reader(), pickle.loads(pickle.dumps(ps.reader())), ps.reader().reader()):
            assert ray.get(reader.pull.remote())["w"].tolist() == [1, 1, 1]
            assert ray.get(reader.get_params.remote())["w"].tolist() == [1, 1, 1]
            assert ray.get(reader.versions.remote()) == (1, 1)
            assert np.array_equal(ray.get(reader["t"].peek.remote(KEYS)), ROWS)
            assert np.array_equal(reader.table.peek(KEYS), ROWS)
            for target, verbs in ((reader, REFUSED | {"update_params"}), (reader["t"], TABLE_REFUSED)):
                for verb in verbs:
                    with pytest.raises(fastps.ReadOnlyError):
                        getattr(target, verb)()
                    with pytest.raises(fastps.ReadOnlyError):
                        getattr(target, verb).remote(KEYS)
            with pytest.raises(fastps.OptionError, match=r"view\.remote"):
                reader.view.remote()
        call = actor_style.Call(reader_of, "t", "pull")  # refused there, too
        with pytest.raises(fastps.ReadOnlyError):
            ray.get(cluster.actor_of(ps.attachment.spec, 0).perform.remote(call, KEYS), timeout=GUARD_SECONDS)
        assert ps.versions() == (1, 1)
        assert len(ps["t"]) == 2


def test_a_reader_of_rounds_reads_without_a_session(cluster3):
    options = {"placement": [cluster3.ids[0], cluster3.ids[1]], "num_shards": 2}
    with fastps.ParameterServer({"w": np.zeros(4)}, consistency=fastps.BSP(workers=1), **options) as ps:
        reader = pickle.loads(pickle.dumps(ps.reader()))
        assert reader.pull()["w"].tolist() == [0] * 4
        with ps.worker() as w:
            w.push({"w": np.ones(4)})
            w.pull()
            assert reader.pull()["w"].tolist() == [1] * 4
            with pytest.raises(fastps.ReadOnlyError):
                reader.worker()
            with pytest.raises(fastps.ReadOnlyError):
                reader.push({"w": np.ones(4)})
        assert reader["w"].pull().tolist() == [1] * 4
        assert reader.versions == (1, 1)


def test_a_reader_of_a_closed_server_raises_closed_error(cluster3):
    ps = new_server(placement=[cluster3.ids[0]] * 2)
    here, other = ps.reader(), pickle.loads(pickle.dumps(ps.reader()))
    other.pull()
    ps.close()
    for reader in (here, other):
        for read in (lambda r: r.pull(), lambda r: r["t"].peek(KEYS), lambda r: r.stats(), lambda r: r.view()):
            with pytest.raises(fastps.ClosedError):
                read(reader)
        with pytest.raises(fastps.ReadOnlyError):
            reader.push(ONES)

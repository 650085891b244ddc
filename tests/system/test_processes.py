"""Handles in processes that Ray does not know. Each case is a program of its own: a hang is a failure, not a hang."""

from __future__ import annotations

import json

import pytest

from tests.support.processes import run

SERVER = """
import concurrent.futures, json, multiprocessing, os, pickle, subprocess, sys
import numpy as np
from tests.support import processes
ray = processes.start(sys.argv[1])
import fastps
params = {"w": np.zeros(6), "b": np.zeros((2, 2)), "rows": fastps.Table(3)}
"""

POOLS = (
    SERVER
    + """
clocked = fastps.ParameterServer(6, consistency=fastps.SSP(3))
with fastps.ParameterServer(params, num_shards=2) as ps, clocked:
    for method in "fork", "spawn", "forkserver":
        context = multiprocessing.get_context(method)
        before = ps.pull()["w"][0]
        with context.Pool(2) as pool:  # map hands both handles to children that may or may not be there already
            answers = pool.map(processes.use, [ps, ps])
            back = pool.apply(processes.same, (ps,))
            clocks = pool.map(processes.step, [clocked, clocked])
        assert all(pid != os.getpid() for pid, _ in answers)
        assert clocks == [1, 1]
        assert ps.pull()["w"].tolist() == [before + 6] * 6
        back.push({"w": np.ones(6), "b": np.ones((2, 2))})
        inbox, outbox = context.Queue(), context.Queue()
        child = context.Process(target=processes.take_and_answer, args=(inbox, outbox))
        child.start()
        inbox.put(ps)
        pid, pulled = outbox.get(timeout=600)
        child.join(60)
        assert pid != os.getpid() and pulled == [before + 10] * 6, pulled
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
            executor.submit(processes.use, ps).result(60)
        assert ps.pull()["w"].tolist() == [before + 13] * 6
        print(method)
"""
)

EARLY_POOL = """
import multiprocessing, sys
import ray
ray.init(address=sys.argv[1], log_to_driver=False)
pool = multiprocessing.get_context("fork").Pool(1)
import numpy as np, fastps
from tests.support import processes
with fastps.ParameterServer({"w": np.zeros(6), "b": np.zeros((2, 2)), "rows": fastps.Table(3)}) as ps:
    ps.pull()
    print(pool.apply(processes.use, (ps,))[1])
pool.terminate()
"""

LOKY = (
    SERVER
    + """
import loky
with fastps.ParameterServer(params, num_shards=2) as ps:
    executor = loky.get_reusable_executor(max_workers=2)
    answers = list(executor.map(processes.use, [ps, ps]))
    executor.shutdown(kill_workers=True)
    assert ps.pull()["w"].tolist() == [6] * 6
print("done")
"""
)

IN_A_FILE = (
    SERVER
    + """
READER = (
    "import pickle, sys; from tests.support.processes import use; print(use(pickle.load(open(sys.argv[1], 'rb')))[1])"
)
with fastps.ParameterServer(params, num_shards=2) as ps:
    with open(sys.argv[2], "wb") as file:
        pickle.dump(ps, file)
    print(*processes.run(READER, sys.argv[2]))
    print(*processes.run(READER, sys.argv[2]))
"""
)

# Of two shards one is on another machine, or so the handles say.
ELSEWHERE = (
    SERVER
    + """
from dataclasses import replace
from fastps.server.handle import handle_of
with fastps.ParameterServer(6, num_shards=2, rule=fastps.SGD(0.1)) as ps:
    spec = ps.attachment.spec
    (near, far), (here,) = spec.addresses, spec.nodes
    there = replace(here, machine="another", node_id="f" * 56)
    addresses, nodes = (near, replace(far, node=1)), (here, there)
    for case in "fork", "fork attached", "spawn":
        away = handle_of(replace(spec, server_id=case, addresses=addresses, nodes=nodes))
        method, *attached = case.split()
        if attached:
            away.attachment.session
        context = multiprocessing.get_context(method)
        outbox = context.Queue()
        child = context.Process(target=processes.put_errors, args=(away, outbox))
        child.start()
        print(json.dumps([case, *outbox.get(timeout=600), list(ps.versions)]))
        child.join(60)
"""
)


FORKED = (
    SERVER
    + """
with fastps.ParameterServer(6) as ps:
    gradient = ray.put(np.ones(6))
    pid = os.fork()
    if pid == 0:
        for operation in (lambda: fastps.ParameterServer(6), lambda: fastps.get("model"), lambda: ps.push(gradient)):
            try:
                operation()
            except Exception as error:
                print(type(error).__name__, "forked" in str(error), flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
    print(ps.versions)
"""
)


def test_a_handle_works_in_pools_queues_and_executors_however_they_start_processes(one_node):
    assert run(POOLS, one_node.address) == ["fork", "spawn", "forkserver"]


def test_a_pool_that_was_forked_before_fastps_was_imported_can_use_a_handle(one_node):
    assert run(EARLY_POOL, one_node.address) == [str([3.0] * 6)]


def test_a_handle_works_in_workers_of_loky(one_node):
    assert run(LOKY, one_node.address) == ["done"]


def test_a_handle_works_from_a_file_in_a_program_without_ray(one_node, tmp_path):
    assert run(IN_A_FILE, one_node.address, str(tmp_path / "handle")) == [str([3.0] * 6), str([6.0] * 6)]


@pytest.fixture(scope="module")
def elsewhere(one_node):
    """What operations on a shard of another machine raise in a child, by how it was started."""
    answers = map(json.loads, run(ELSEWHERE, one_node.address))
    return {case: answer for case, *answer in answers}


@pytest.mark.parametrize("case", ["fork", "fork attached", "spawn"])
def test_where_ray_is_needed_and_not_there_each_operation_says_so_and_does_nothing(case, elsewhere):
    classes, text, started, versions = elsewhere[case]
    attached = "attached" in case
    assert set(classes.values()) == {"RayRequiredError"} or (attached and classes["view"] == "SplitError"), classes
    assert "ray.init(address=" in text
    assert ("forked" in text) == ("fork" in case)
    assert not started
    assert versions == [0, 0]


def test_a_forked_child_that_needs_ray_for_anything_else_is_told_at_once(one_node):
    assert run(FORKED, one_node.address) == ["RayRequiredError True"] * 3 + ["(0,)"]

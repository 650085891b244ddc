"""Rules from wherever users define them, in the processes that use them."""

import os
import subprocess
import sys

import numpy as np
import pytest
import ray

import fastps
from tests.support.waiting import GUARD_SECONDS

pytestmark = pytest.mark.usefixtures("ray_local")


@ray.remote
def use(ps):
    """What a worker does; and whether it loaded numba."""
    ps.push(np.ones(20))
    ps.configure(lr=0.5)
    ps.push(np.ones(20))
    return ps.pull(), ps.slots(), "numba" in sys.modules


def made_by_exec():
    names = {"fastps": fastps}
    exec(
        "@fastps.rule(slots={'m': 0})\n"
        "def from_exec(p, g, m, *, lr=1.0):\n    m = m + g\n    return p - lr * m, m\n", names,
    )  # fmt: skip
    return names["from_exec"]()


def made_by_closure(factor=1.0):
    def helper(x):
        return x * factor

    @fastps.rule(slots={"m": 0.0})
    def from_closure(p, g, m, *, lr=1.0):
        m = m + helper(g)
        return p - lr * m, m

    return from_closure()


@pytest.mark.parametrize("make", [made_by_exec, made_by_closure])
def test_a_worker_uses_a_rule_whose_code_it_does_not_have_without_numba(make):
    with fastps.ParameterServer(np.zeros(20), rule=make()) as ps:
        params, slots, loaded_numba = ray.get(use.remote(ps))
        assert params.tolist() == [-2.0] * 20  # 1 * 1, then 0.5 * 2
        assert slots["m"].tolist() == [2.0] * 20
        assert not loaded_numba
        assert ps.hyper == {"lr": 0.5}


def test_rules_that_differ_in_a_constant_do_not_share_code():
    for factor in (1.0, 3.0):
        with fastps.ParameterServer(np.zeros(4), rule=made_by_closure(factor)) as ps:
            ps.push(np.ones(4))
            assert ps.pull().tolist() == [-factor] * 4


PROGRAM = """
import sys
import numpy as np, ray, fastps
from math import sqrt

RATE = 0.5

def half(x):
    return x * RATE

@fastps.rule(slots={"v": 1.0})
def mine(p, g, v, *, step, lr=1.0):
    v = v + half(g)
    return p - lr * g * step / sqrt(v * v), v

@ray.remote
def work(ps):
    ps.push(np.ones(3, np.float32))
    return "numba" in sys.modules

ray.init(log_to_driver=False)
with fastps.ParameterServer(np.zeros(3, np.float32), rule=mine) as ps:
    print([ray.get(work.remote(ps)) for _ in range(2)], ps.pull().round(4).tolist(), "numba" in sys.modules)
"""


def test_a_rule_of_a_script_works_in_tasks_and_nothing_is_compiled_in_driver_or_worker(one_node, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        timeout=GUARD_SECONDS,
        env={**os.environ, "RAY_ADDRESS": one_node.address},
    )
    assert done.returncode == 0, done.stderr
    expected = [round(-(1 / 1.5 + 2 / 2), 4)] * 3
    assert done.stdout.splitlines()[-1].startswith("[False, False]")
    assert str(np.array(expected, np.float32).round(4).tolist()) in done.stdout
    assert done.stdout.strip().endswith("False")


@fastps.rule(slots={"m": 0.0})
def forgetful(p, g, m, *, lr=1.0):
    return p - lr * g


def test_a_rule_that_cannot_be_compiled_creates_nothing_and_quotes_its_line():
    with pytest.raises(fastps.CompileError, match=r"(?s)new parameter, m, got 1 value.*return p - lr \* g"):
        fastps.ParameterServer(np.zeros(4), rule=forgetful(), name="never")
    with pytest.raises(fastps.ServerNotFoundError):
        fastps.get("never")


@ray.remote
def push_some(ps, count):
    for _ in range(count):
        ps.push(np.ones(5))


def test_every_push_gets_the_scheduled_value_of_its_own_version():
    with fastps.ParameterServer(np.zeros(5), rule=fastps.SGD(lambda version: version * version), num_shards=2) as ps:
        ray.get([push_some.remote(ps, 100) for _ in range(2)])
        assert ps.pull().tolist() == [-float(sum(i * i for i in range(200)))] * 5
        assert ps.versions == (200, 200)

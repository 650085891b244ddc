"""Handles of a server whose Ray was shut down, in a process that has started another one since."""

from __future__ import annotations

import json

from tests.support.processes import run

PROGRAM = """
import json
import numpy as np, ray, fastps
options = {"address": "local", "num_cpus": 2, "include_dashboard": False, "object_store_memory": 100 << 20}
ray.init(log_to_driver=False, **options)

@ray.remote
def pull(ps):
    return ps.pull()

ones, rows = np.ones(6), np.ones((1, 3), np.float32)
with fastps.ParameterServer(6, num_shards=2, name="model", rule=fastps.SGD(0.1)) as ps:
    style = fastps.ParameterServer.remote(6)
    clocked = fastps.ParameterServer(6, consistency=fastps.SSP(3))
    tables = fastps.ParameterServer(fastps.Table(3))
    tables.table.push([1], rows)
    w = clocked.worker()
    ray.shutdown()
    {between}
    operations = {
        "pull": ps.pull, "push": lambda: ps.push(ones), "push_pull": lambda: ps.push_pull(ones), "worker": ps.worker,
        "configure": lambda: ps.configure(lr=0.5), "push_async": lambda: ps.push_async(ones).result(600),
        "w.pull": w.pull, "w.push": lambda: w.push(ones), "table.pull": lambda: tables.table.pull([1]),
        "table.push": lambda: tables.table.push([1], rows), "get_params": style.get_params.remote,
        "update_params": lambda: style.update_params.remote(ones), "style.pull": style.pull,
    }
    if ray.is_initialized():
        operations["task"] = lambda: ray.get(pull.remote(ps))
        operations["task with the actor style"] = lambda: ray.get(pull.remote(style))
    typed, found = ("ClosedError", "ShardDiedError", "RayRequiredError"), {}
    for verb, operation in operations.items():
        try:
            operation()
            found[verb] = "nothing"
        except Exception as error:
            found[verb] = next((name for name in typed if name in str(type(error))), repr(error))
    w.close()
    for server in (style, clocked, tables):
        server.close()
print(json.dumps(found))
if ray.is_initialized():
    with fastps.ParameterServer(6, name="model") as new:  # an old handle is not one of a new server of that name
        assert fastps.get("model").pull().tolist() == [0] * 6
        try:
            print(ray.get(pull.remote(ps)))
        except fastps.ShardDiedError:
            print("done")
    ray.shutdown()
"""


def found(between):
    return run(PROGRAM.replace("{between}", between))


def test_after_a_restart_of_ray_old_handles_raise_closed_error_or_shard_died_error_everywhere():
    classes, done = found("ray.init(log_to_driver=False, **options)")
    assert set(json.loads(classes).values()) <= {"ClosedError", "ShardDiedError"}, classes
    assert done == "done"


def test_after_the_end_of_ray_old_handles_do_not_start_another_one():
    (classes,) = found("")
    assert set(json.loads(classes).values()) <= {"ClosedError", "ShardDiedError", "RayRequiredError"}, classes

"""How long a fresh process takes from a handle's bytes to its first operation."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import numpy as np
import ray

import fastps

FRESH = """
import pickle, sys, time
import numpy, ray
ray.init(address=sys.argv[1], log_to_driver=False)
handle, grad = sys.stdin.buffer.read(), numpy.ones(int(sys.argv[2]), numpy.float32)
begun = time.perf_counter()
ps = pickle.loads(handle)
{operation}
ended = time.perf_counter()
assert "numba" not in sys.modules
print(ended - begun)
"""
PROCESSES = 5


def attach(ps: fastps.ParameterServer, operation: str, elements: int) -> tuple[float, int]:
    """(median seconds, bytes of the handle) of processes that have loaded ray and numpy and do `operation` once; it may
    use `ps` and `grad`, an array of `elements` ones. They import fastps and must not load numba."""
    handle, taken = pickle.dumps(ps), []
    for _ in range(PROCESSES):
        done = subprocess.run(
            [sys.executable, "-c", FRESH.format(operation=operation), ray.get_runtime_context().gcs_address,
             str(elements)],
            input=handle, capture_output=True, check=True, timeout=120,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        taken.append(float(done.stdout.split()[-1]))
    return float(np.median(taken)), len(handle)

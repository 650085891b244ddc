"""A driver that is killed takes everything with it."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest

from tests.conftest import is_agent, shm_entries, started_here, wait_until

PROGRAM = """
import time, numpy as np, ray, fastps
from tests import workers
ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False)
ps = fastps.ParameterServer(np.zeros(1_000_000), num_shards=2, name="orphan")
worker = workers.Worker.remote(ps)
worker.push_for_ever.remote(np.ones(1_000_000))
while ps.versions[0] < 3:
    time.sleep(0.01)
print(ray.get_runtime_context().gcs_address, *[a.pid for a in ps._spec.addresses], flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_driver_leaves_no_process_and_no_shared_memory(how):
    before = started_here(shared=True)
    driver = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
    _, *shards = driver.stdout.readline().split()
    assert len(shards) == 2
    assert {int(pid) for pid in shards} <= started_here().keys()
    os.kill(driver.pid, how)
    driver.wait(60)
    driver.stdout.close()
    wait_until(lambda: not started_here(), 60, "the end of the driver's processes")
    assert shm_entries() == []
    for pid, command in started_here(shared=True).items():
        if pid not in before and is_agent(command):  # they wait for their raylet, a minute long
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

"""A driver that is killed takes everything with it."""

import contextlib
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

import fastps
from tests.support.leftovers import is_agent, shm_entries, started_here
from tests.support.waiting import GUARD_SECONDS, wait_until

PROGRAM = """
import time, numpy as np, ray, fastps
from tests.support import workers
ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False)
ps = fastps.ParameterServer(np.zeros(1_000_000), num_shards=2, name="orphan")
worker = workers.Worker.remote(ps)
worker.push_for_ever.remote(np.ones(1_000_000))
while ps.versions[0] < 3:
    time.sleep(0.01)
print(ray.get_runtime_context().gcs_address, *[a.pid for a in ps.attachment.spec.addresses], flush=True)
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
    driver.wait(GUARD_SECONDS)
    driver.stdout.close()
    wait_until(lambda: not started_here(), 60, "the end of the driver's processes")
    assert shm_entries() == []
    for pid, command in started_here(shared=True).items():
        if pid not in before and is_agent(command):  # they wait for their raylet, a minute long
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


CREATOR = """
import sys, numpy as np, ray, fastps
ray.init(sys.argv[1], log_to_driver=False)
ps = fastps.ParameterServer(np.zeros(10, np.float32), name="of another program")
print("created", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("ends", ["by itself", "killed"])
def test_a_server_ends_with_the_program_that_created_it_and_its_users_are_told_so(ray_local, one_node, ends):
    program = subprocess.Popen(
        [sys.executable, "-c", CREATOR, one_node.address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert program.stdout.readline() == "created\n"
        ps = fastps.get("of another program")
        ps.push(np.ones(10, np.float32))
        if ends == "killed":
            program.kill()
        program.communicate("", timeout=GUARD_SECONDS)

        def gone():
            try:
                ps.push(np.ones(10, np.float32))
            except fastps.ShardDiedError as error:
                return "with the program that created the server" in str(error)
            except fastps.ClosedError:  # a process that has the time to end in order closes its arenas
                return ends == "by itself"
            return False

        wait_until(gone, 60, "the end of the shard, told as what it is")
        ps.close()
    finally:
        program.kill()
        program.wait()

"""`fastps.get` in a program of its own, as in another terminal: no ray.init, no address."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

import fastps
from tests.support.processes import run
from tests.support.waiting import GUARD_SECONDS

OWNER = """
import sys, numpy as np, ray, fastps
ray.init(address="local", num_cpus=1, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False)
with fastps.ParameterServer(np.zeros(3), name="model") as ps:
    print(ray.get_runtime_context().gcs_address, flush=True)
    sys.stdin.readline()
"""
OTHER = """
import sys, numpy as np, fastps
ps = fastps.get("model")
ps.push(np.ones(3))
print(ps.pull().tolist())
"""
NOBODY = """
import ray, fastps
try:
    fastps.get("model")
except {error} as error:
    print(error)
print(ray.is_initialized())
"""


@pytest.fixture(scope="module")
def terminal():
    """The environment of a terminal in which only the Ray of this test is to be found."""
    folder = tempfile.mkdtemp(prefix="ray-")  # Ray's sockets need a short path
    yield {**{n: v for n, v in os.environ.items() if not n.startswith("RAY_AUTH")}, "RAY_TMPDIR": folder}
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def owner(terminal):
    """A program whose Ray has a server with a name; the address."""
    program = subprocess.Popen(
        [sys.executable, "-c", OWNER], env=terminal, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield program.stdout.readline().strip()
    program.communicate("\n", timeout=GUARD_SECONDS)


def test_another_terminal_finds_the_server_by_the_address_or_by_rays_record(owner, terminal):
    assert run(OTHER, environment={**terminal, "RAY_ADDRESS": owner}) == [str([1.0] * 3)]
    record = Path(terminal["RAY_TMPDIR"]) / "ray" / "ray_current_cluster"
    record.write_text(owner)
    assert run(OTHER, environment=terminal) == [str([2.0] * 3)]
    record.unlink()


def test_a_name_that_nobody_has_is_told_with_those_that_there_are(owner, terminal):
    program = NOBODY.replace("model", "modle").replace("{error}", "fastps.ServerNotFoundError")
    text, connected = run(program, environment={**terminal, "RAY_ADDRESS": owner})
    assert "'modle'" in text
    assert "['model']" in text
    assert connected == "True"


def test_without_a_ray_none_is_started(terminal):
    alone = "import ray; ray._private.services.find_gcs_addresses = frozenset\n" + NOBODY
    text, started = run(alone.replace("{error}", "fastps.RayRequiredError"), environment=terminal)
    assert "RAY_ADDRESS" in text
    assert started == "False"


def test_an_address_at_which_nobody_answers_is_told_at_once(terminal):
    nobody = NOBODY.replace("{error}", "fastps.RayRequiredError")
    text, started = run(nobody, environment={**terminal, "RAY_ADDRESS": "127.0.0.1:9"})
    assert "127.0.0.1:9" in text
    assert started == "False"


def test_a_wrong_token_is_told_with_what_to_set(owner, terminal):
    nobody = NOBODY.replace("{error}", "fastps.RayRequiredError")
    terminal = {**terminal, "RAY_NUM_REDIS_GET_RETRIES": "2"}  # tries of a second each
    wrong = {"RAY_ADDRESS": owner, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "no" * 16}
    text, started = run(nobody, environment={**terminal, **wrong})
    assert "RAY_AUTH_MODE=token" in text
    assert "~/.ray/auth_token" in text
    assert started == "False"


def test_a_stopped_server_is_told_at_the_timeout(ray_local):
    with fastps.ParameterServer(np.zeros(3), name="stopped") as ps:
        shard = ps.attachment.spec.addresses[0].pid
        os.kill(shard, signal.SIGSTOP)
        try:
            with pytest.raises(fastps.WaitTimeoutError, match="process of its first shard is stopped"):
                fastps.get("stopped", timeout=0.5)
        finally:
            os.kill(shard, signal.SIGCONT)
        assert fastps.get("stopped", timeout=GUARD_SECONDS).pull().tolist() == [0] * 3


@pytest.mark.parametrize("timeout", [-1, "soon", float("nan")])
def test_a_timeout_that_is_none_is_refused(timeout):
    with pytest.raises(fastps.OptionError, match="timeout"):
        fastps.get("model", timeout=timeout)

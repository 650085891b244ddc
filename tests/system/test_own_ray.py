"""Programs that join a cluster that somebody names."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from fastps.cluster.program import require_modules
from fastps.errors import PlacementError
from tests.support.waiting import GUARD_SECONDS

ROOT = Path(__file__).parents[2]


def test_nodes_that_lack_a_module_are_named_with_it(cluster3):
    require_modules(["json", "fastps.programs.demo.worker"])
    with pytest.raises(PlacementError) as error:
        require_modules(["json", "no_such_package.worker"])
    for node in ray.nodes():
        place = f"node {node['NodeID'][:8]} at {node['NodeManagerAddress']}"
        assert f"{place} cannot import no_such_package" in str(error.value)


def test_it_is_said_which_cluster_a_program_joins(one_node, tmp_path):
    few = [
        "--sizes",
        "80",
        "--workers",
        "1",
        "--shards",
        "1",
        "--ops",
        "pull",
        "--peers",
        "memcpy",
        "--seconds",
        "0.05",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "bench", "sweep", *few, "--address", one_node.address, "-o", tmp_path / "a.parquet"],
        capture_output=True, text=True, timeout=GUARD_SECONDS, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first = done.stdout.splitlines()[0]
    assert first == (
        f"Joined the Ray cluster at {one_node.address} (--address): 1 node on 1 machine; others may be using it."
    )


def test_an_address_in_the_environment_where_nobody_answers_is_one_line_and_named():
    done = subprocess.run(
        [sys.executable, "-m", "fastps", "demo", "--steps", "1"], capture_output=True, text=True, timeout=GUARD_SECONDS,
        env={**os.environ, "RAY_ADDRESS": "127.0.0.1:1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("fastps demo: RAY_ADDRESS: expected HOST:PORT of a running Ray cluster")
    assert done.stderr.count("\n") == 1

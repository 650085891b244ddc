"""``pytest bench/``, the suite of pytest-benchmark."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support.waiting import GUARD_SECONDS

ROOT = Path(__file__).parents[2]


def suite(*options, cwd=ROOT, address="local"):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(ROOT / "bench"), *map(str, options)]
    environment = {**os.environ, "RAY_ADDRESS": address}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=GUARD_SECONDS, cwd=cwd, env=environment, check=False
    )  # fmt: skip


def test_the_suite_writes_what_pytest_benchmark_compares(tmp_path):
    path = tmp_path / "a.json"
    done = suite("--sizes", "80", "--ops", "push", "--seconds", "0.02", "--benchmark-json", path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(path.read_text())["benchmarks"]
    assert {one["group"] for one in found} == {"push 80 B 1 workers", "push 80 B 2 workers"}
    assert len(found) == 2 * 6
    for one in found:
        extra = one["extra_info"]
        told = [extra[f"p{p:g}"] for p in (50, 90, 99, 99.9, 99.99) if f"p{p:g}" in extra]
        assert told == sorted(told) != []
        assert ("p99" in extra) == (one["stats"]["rounds"] >= 500)
        assert extra["to_reference"] > 0
        assert extra["to_actor"] > 0
        assert one["params"]["subject"] in one["name"]
    compared = subprocess.run(
        [sys.executable, "-m", "pytest_benchmark", "compare", path],
        capture_output=True, text=True, timeout=GUARD_SECONDS, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert compared.returncode == 0, compared.stderr
    assert "test_operation[80-2-push-fastps]" in compared.stdout


def test_the_suite_checks_answers_also_when_it_does_not_measure(one_node):
    few = ["--sizes", "80", "--workers", "1", "--ops", "pull,push", "--seconds", "0.02"]
    done = suite(*few, "--benchmark-disable", address=one_node.address)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_wrong_option_ends_the_suite_before_it_begins():
    done = suite("--sizes", "8X")
    assert done.returncode != 0
    assert "'8X'" in done.stdout + done.stderr

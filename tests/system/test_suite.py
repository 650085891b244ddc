"""``pytest bench/``, the suite of pytest-benchmark."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest_benchmark.cli

from tests.support.extent import short_or_long
from tests.support.waiting import GUARD_SECONDS

ROOT = Path(__file__).parents[2]


def suite(*options, cwd=ROOT, address="local"):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(ROOT / "bench"), *map(str, options)]
    environment = {**os.environ, "RAY_ADDRESS": address}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=GUARD_SECONDS, cwd=cwd, env=environment, check=False
    )  # fmt: skip


def test_the_suite_writes_what_pytest_benchmark_compares(tmp_path, monkeypatch, capsys):
    path, workers = tmp_path / "a.json", short_or_long([2], [1, 2])
    few = ["--sizes", "80", "--workers", ",".join(map(str, workers)), "--ops", "push", "--seconds", "0.02"]
    done = suite(*few, "--benchmark-json", path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(path.read_text())["benchmarks"]
    assert {one["group"] for one in found} == {f"push 80 B {count} workers" for count in workers}
    assert len(found) == len(workers) * 6
    for one in found:
        extra = one["extra_info"]
        told = [extra[f"p{p:g}"] for p in (50, 90, 99, 99.9, 99.99) if f"p{p:g}" in extra]
        assert told == sorted(told) != []
        assert ("p99" in extra) == (one["stats"]["rounds"] >= 500)
        assert extra["to_reference"] > 0
        assert extra["to_actor"] > 0
        assert one["params"]["subject"] in one["name"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pytest-benchmark", "compare", "a.json"])
    pytest_benchmark.cli.main()
    assert "test_operation[80-2-push-fastps]" in capsys.readouterr().out


def test_the_suite_checks_answers_also_when_it_does_not_measure(one_node):
    """In the short form of those subjects whose answers are known."""
    few = ["--sizes", "80", "--workers", "1", "--ops", "pull,push", "--seconds", "0.02"]
    few += short_or_long(["-k", "fastps or shared_array or ray_actor"], [])
    done = suite(*few, "--benchmark-disable", address=one_node.address)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{short_or_long(6, 12)} passed" in done.stdout


def test_a_wrong_option_ends_the_suite_before_it_begins():
    done = suite("--sizes", "8X")
    assert done.returncode != 0
    assert "'8X'" in done.stdout + done.stderr

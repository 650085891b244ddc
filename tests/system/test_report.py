"""`python -m bench report` as a command, on results that are made up."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastps
from bench.sweep import results
from tests.support.waiting import GUARD_SECONDS
from tests.unit.bench.report.sample import sample

ROOT = Path(__file__).parents[2]
WITHOUT_PLOTLY = "import sys; sys.modules['plotly'] = None; from bench.__main__ import command; command()"


def run(*words):
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=GUARD_SECONDS, cwd=ROOT, check=False)


@pytest.fixture
def stored(tmp_path):
    results.save(sample(), tmp_path / "a.parquet")
    return tmp_path / "a.parquet"


def test_a_report_is_one_file_and_its_path_is_told(stored, tmp_path):
    done = run("-m", "bench", "report", stored, "-o", tmp_path / "a.html")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{tmp_path / 'a.html'}\n", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "a.parquet"]
    assert (tmp_path / "a.html").stat().st_size < 5.2e6
    assert (tmp_path / "a.html").read_text().count("plotly.js v") == 1


def test_a_result_without_rows_is_one_line_and_code_2(stored, tmp_path):
    results.save(results.Results([], sample().about), stored)
    fails(run("-m", "bench", "report", stored, "-o", tmp_path / "a.html"), "no row of fastps")


@pytest.mark.parametrize(
    ("result", "output", "said"),
    [
        ("empty.parquet", "a.html", "no Parquet file"),
        ("nothing.parquet", "a.html", "no such file"),
        (ROOT / "csrc", "a.html", "a directory"),
        ("a.parquet", "/nowhere/a.html", "/nowhere"),
        ("a.parquet", ROOT / "csrc", "directory"),
        ("a.parquet", "mine.html", "mine.html is there already; take another name"),
        ("a.parquet", "a.parquet", "ends in .html"),
        ("a.parquet", "a.json", "ends in .html"),
    ],
)
def test_what_cannot_be_read_or_written_is_one_line_and_code_2(stored, tmp_path, result, output, said):
    (tmp_path / "empty.parquet").write_bytes(b"")
    (tmp_path / "mine.html").write_text("mine")
    before = stored.read_bytes()
    fails(run("-m", "bench", "report", tmp_path / result, "-o", tmp_path / output), said)
    assert stored.read_bytes() == before
    assert (tmp_path / "mine.html").read_text() == "mine"


@pytest.mark.parametrize("package", ["click", "rich"])
def test_without_a_package_every_command_says_what_to_install(package):
    hidden = (
        f"import sys; sys.modules[{package!r}] = None; import runpy; runpy.run_module('bench', run_name='__main__')"
    )
    done = run("-c", hidden, "--help")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"bench: needs {package}: {sys.executable} -m pip install {package}\n"


def test_the_version_is_told():
    done = run("-m", "bench", "--version")
    assert (done.returncode, done.stdout) == (0, f"bench of fastps {fastps.__version__}\n")


def test_without_plotly_it_says_what_to_install(stored, tmp_path):
    done = run("-c", WITHOUT_PLOTLY, "report", stored, "-o", tmp_path / "a.html")
    fails(done, f"needs plotly: {sys.executable} -m pip install plotly")


def fails(done, told):
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"bench report: .*\n", done.stderr)
    assert told in done.stderr

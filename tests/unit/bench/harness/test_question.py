"""A question as a command: options, exit codes, what it keeps."""

import importlib
import json

import click
import pytest

from bench.__main__ import command as bench
from bench.__main__ import main
from bench.harness.question import SECONDS, Number, question, sections_of
from bench.questions import QUESTIONS


@question(count=1)
@sections_of(["first", "second"])
@click.option("--count", type=int, default=10)
def example(report, sections, count):
    """Not the help: that is the text at the head of the file."""
    for section in sections:
        report.add(section, 80, "calls", "counted", count, most=5)


def run(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        example.main(list(words), standalone_mode=False)
    return ended.value.code, capsys.readouterr().out


def test_a_missed_bar_is_exit_code_1_and_quick_asks_for_less(capsys):
    code, out = run(capsys)
    assert (code, out.count("MISSED"), out.count("0 of 2 bars met")) == (1, 2, 1)
    code, out = run(capsys, "--quick")
    assert (code, out.count("2 of 2 bars met")) == (0, 1)
    assert run(capsys, "--quick", "--count", "7")[0] == 1


def test_only_the_chosen_sections_are_measured(capsys):
    assert "1 of 1 bars met" in run(capsys, "--quick", "--sections", "second")[1]
    with pytest.raises(click.BadParameter, match="expected some of first, second, separated by commas, got 'third'"):
        example.main(["--sections", "third"], standalone_mode=False)


def test_lines_are_kept_with_the_machine(capsys, tmp_path):
    run(capsys, "--quick", "--json", str(tmp_path / "a.json"))
    kept = json.loads((tmp_path / "a.json").read_text())
    assert [line["section"] for line in kept["lines"]] == ["first", "second"]
    assert {"processor", "versions", "commit"} <= set(kept["machine"])


@pytest.mark.parametrize("name", ["a.txt", "nowhere/a.json"])
def test_where_the_lines_cannot_go_is_said_before_anything_is_measured(tmp_path, name):
    with pytest.raises(click.BadParameter, match=r"ends in \.json in a directory that can be written"):
        example.main(["--json", str(tmp_path / name)], standalone_mode=False)


def test_a_file_that_is_there_is_not_overwritten(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("mine")
    with pytest.raises(click.BadParameter, match=r"a\.json is there already; take another name"):
        example.main(["--json", str(path)], standalone_mode=False)
    assert path.read_text() == "mine"


def test_the_help_says_that_json_takes_a_file(capsys):
    example.main(["--help"], standalone_mode=False)
    assert "--json FILE" in capsys.readouterr().out


@pytest.mark.parametrize("value", ["nan", "-1", "0", "inf", "-inf"])
def test_seconds_are_a_positive_number(value):
    with pytest.raises(click.BadParameter, match=r"range|expected a number from 0\.001 to 600"):
        SECONDS.convert(value, None, None)
    assert SECONDS.convert("0.05", None, None) == 0.05


def commands():
    """Of `python -m bench`, by name."""
    questions = {name: importlib.import_module(f"bench.questions.{name}").command for name in QUESTIONS}
    return main.commands | questions


def test_every_number_on_the_command_line_has_a_range():
    types = {f"{name} {p.opts[0]}": p.type for name, command in commands().items() for p in command.params}
    numbers = {what: type_ for what, type_ in types.items() if type_.name.startswith(("int", "float"))}
    assert {"sweep --seconds", "compare --margin", "tables --rows", "recommend --dim"} <= numbers.keys()
    without = [what for what, type_ in numbers.items() if not isinstance(type_, (Number, click.IntRange))]
    assert without == []


def test_a_quick_value_of_an_option_that_is_not_there_is_refused():
    with pytest.raises(AssertionError):
        question(missing=1)(lambda report: None)


def test_every_question_is_a_command_and_its_help_says_what_would_change_a_decision(capsys):
    assert set(QUESTIONS) < set(main.commands)
    for name in QUESTIONS:
        bench([name, "--help"])
        assert "What would change a decision" in capsys.readouterr().out

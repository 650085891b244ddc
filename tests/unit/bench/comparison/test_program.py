"""What `python -m bench compare` and `history` print."""

import pytest

from bench.__main__ import command
from bench.comparison.program import compare, history
from bench.sweep import results
from tests.unit.bench.report.sample import sample


@pytest.fixture
def directory(tmp_path):
    """Two results whose settings differ in all that has a column."""
    for name in "ab":
        found = sample(shards=(1, 2), ways=("shm", "ray"))
        rows = [{**row, "placement": place} for row in found.rows for place in ("local", "remote")]
        results.save(results.Results(rows, found.about), tmp_path / f"{name}.parquet")
    return tmp_path


def test_no_cell_of_a_wide_table_is_cut(directory, capsys):
    compare(directory / "a.parquet", directory / "b.parquet", 0.05, 0.95)
    history(directory)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) > 80
    assert "placement" in out
    assert "1.000 to 1.000" in out
    assert "…" not in out


def test_a_small_margin_and_a_high_confidence_are_said_as_they_were_given(directory, capsys):
    compare(directory / "a.parquet", directory / "b.parquet", 0.001, 0.9999)
    said = "(a difference of 0.1% is none; all at once with a confidence of 99.99%)"
    assert capsys.readouterr().out.endswith(f"{said}\n")


@pytest.mark.parametrize("option", ["--margin", "--confidence"])
def test_what_is_no_number_is_one_line_and_code_2(directory, option, capsys):
    with pytest.raises(SystemExit) as ended:
        command(["compare", str(directory / "a.parquet"), str(directory / "b.parquet"), option, "nan"])
    out, errors = capsys.readouterr()
    assert (ended.value.code, out, errors.count("\n")) == (2, "", 1)
    assert f"{option}': expected a number from 0." in errors

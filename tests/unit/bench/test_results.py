"""Where rows are kept."""

import pytest

from bench.sweep import results
from bench.sweep.results import Results, ResultsError
from tests.unit.bench.report.sample import sample


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_a_name_is_a_str_or_a_path(tmp_path, kind):
    path = tmp_path / "x.parquet"
    results.save(sample(), kind(path))
    assert results.load(kind(path)).rows == sample().rows
    with pytest.raises(ResultsError, match="no such file"):
        results.load(kind(tmp_path / "nothing.parquet"))


def older(row):
    """A row as the format before had it: peers added whatever the rule, and percentiles were of any number of calls."""
    names = {"to_reference": "to_roof", "to_actor": "to_floor"}
    kept = {
        names.get(name, name): value
        for name, value in row.items()
        if name not in ("work", "turns_ops_second", "p9999_ns")
    }
    subject = "numpy_in_place" if row["subject"] == "in_place" else row["subject"]
    return {**kept, "subject": subject, "to_roof": 1.25, "to_floor": 2.5, "p999_ns": row["max_ns"]}


@pytest.fixture
def load_older(tmp_path, monkeypatch):
    def load(result):
        monkeypatch.setattr(results, "FORMAT", results.OLDER)
        results.save(Results([older(row) for row in result.rows], result.about), tmp_path / "a.parquet")
        monkeypatch.undo()
        return results.load(tmp_path / "a.parquet").rows

    return load


def test_a_result_of_the_format_before_is_read(load_older):
    rows = load_older(sample())
    assert [set(row) for row in rows] == [set(row) for row in sample().rows]
    assert {row["subject"] for row in rows} == {row["subject"] for row in sample().rows}
    assert [row["work"] for row in rows] == [row["work"] for row in sample().rows]
    assert {(row["p999_ns"], row["p9999_ns"]) for row in rows} == {(None, None)}  # of 999 calls
    ours = [row for row in rows if row["subject"] == "fastps"]
    assert {(row["to_reference"], row["to_actor"]) for row in ours} == {(1.25, 2.5)}


def test_peers_of_the_format_before_added_under_every_rule_and_no_ratio_to_them_is_kept(load_older):
    for row in load_older(sample(rule="adam")):
        if row["subject"] == "ray_actor" and row["op"] == "push":
            assert row["work"] == "add"
        if row["subject"] == "fastps":
            assert row["work"] == ("copy" if row["op"] == "pull" else "adam")
            assert (row["to_reference"] is None) == (row["to_actor"] is None) == (row["op"] == "push")


def test_a_file_that_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("before")
    with pytest.raises(KeyError):
        results.save_pytest_benchmark(Results([{}], sample().about), path)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.json", "before")]
    results.save_pytest_benchmark(sample(), path)
    assert results.is_pytest_benchmark(path)

"""Trends of made-up results."""

import pytest

from bench.comparison.trend import Trend, results_in, trends
from bench.sweep import results
from bench.sweep.results import Results, ResultsError
from tests.unit.bench.comparison.test_statistics import MACHINE, row


def result(time, reference=100.0, model="A"):
    about = {**MACHINE, "machine": {"processor": {"model": model, "cores": 2}}}
    return Results([row("pull", "fastps", [time] * 3), row("pull", "memcpy", [reference] * 3)], about)


def test_values_are_beside_the_reference_by_time_and_other_machines_are_left_out():
    (trend,) = trends([result(200.0), result(600.0, 200.0), result(900.0, model="B"), result(450.0)])
    assert trend.values == [2.0, 3.0, 4.5]
    assert trend.to_reference
    assert trend.change == 4.5 / 2.5


def test_a_run_without_the_setting_is_a_gap():
    other = Results([row("push", "fastps", [1.0])], MACHINE)
    (trend,) = trends([result(200.0), other, result(200.0)])
    assert trend.values == [2.0, None, 2.0]
    assert trend.drawn()[1] == " "


def test_bars_follow_the_values_and_small_changes_stay_small():
    assert Trend((), "pull", [1.0, 2.0, 4.0], True).drawn() == "▁▅█"
    assert Trend((), "pull", [100.0, 101.0], True).drawn() in ("▄▅", "▅▅", "▄▄")
    assert Trend((), "pull", [3.0], True).change == 1


def test_a_directory_is_read_by_time(tmp_path):
    for name, begun in (("a", "2026-02-01"), ("b", "2026-01-01")):
        results.save(Results([row("pull", "fastps", [1.0])], {**MACHINE, "begun": begun}), tmp_path / f"{name}.parquet")
    assert [found.about["begun"] for found in results_in(tmp_path)] == ["2026-01-01", "2026-02-01"]
    (tmp_path / "c.parquet").write_text("nothing")
    with pytest.raises(ResultsError, match="c\\.parquet"):
        results_in(tmp_path)


def test_an_empty_directory_is_refused(tmp_path):
    with pytest.raises(ResultsError, match="no Parquet"):
        results_in(tmp_path)

"""Figures against the rows that they are of."""

import numpy as np
import pytest

from bench.report import charts, tables
from bench.report.select import Sweep
from tests.unit.bench.report.sample import sample


def test_percentiles_are_those_of_the_summary_within_a_bin():
    row = sample().rows[0]
    x, y = charts.percentiles(row)
    assert (np.diff(x) > 0).all()
    assert (np.diff(y) >= 0).all()
    for share, name in ((0.5, "median_ns"), (0.9, "p90_ns"), (0.99, "p99_ns")):
        assert np.interp(1 / (1 - share), x, y) == pytest.approx(row[name], rel=0.03)
    assert x[-1] == pytest.approx(2 * row["calls"])
    assert y[-1] == row["max_ns"]


def test_throughput_draws_fastps_the_roof_of_the_operation_the_triad_and_peers():
    figure = charts.throughput(Sweep(sample(ways=("shm", "ray")).rows), "push")
    names = [trace.name for trace in figure.data]
    assert names == ["fastps, shm", "fastps, ray", "numpy in place", "triad of STREAM", "plain Ray actor"]
    assert list(figure.data[0].x) == [80, 80_000]
    assert list(figure.data[0].y) == [80 / 2e-6, 80_000 / 8e-6]


def test_scaling_is_beside_the_fewest_and_the_cores_are_marked():
    figure, choices = charts.scaling(Sweep(sample(workers=(1, 2, 4)).rows), "workers", 2)
    assert choices == ["pull", "push"]
    ideal, *lines = figure.data
    assert list(ideal.y) == [1, 2, 4]
    assert all(list(line.y) == [1, 2, 4] for line in lines)  # as made up
    assert [line.visible for line in lines] == [True, True, False, False]
    assert figure.layout.annotations[0].text == "2 cores"
    assert charts.scaling(Sweep(sample(workers=(1, 2)).rows), "shards", 2) is None


def test_the_map_has_the_ratios_and_a_label_for_what_differs():
    figure = charts.ratios(Sweep(sample().rows))
    (heat,) = figure.data
    assert list(heat.y) == ["pull 1w", "pull 2w", "push 1w", "push 2w"]
    assert list(heat.x) == ["80 B", "80 KB"]
    assert list(heat.text[0]) == ["2.00", "8.00"]
    assert list(heat.text[2]) == ["1.33", "5.33"]


def test_the_table_has_all_rows_and_leaves_out_what_is_the_same_in_all():
    result = sample(workers=(1,))
    text = tables.rows(Sweep(result.rows))
    assert text.count("<tr") == 1 + len(result.rows)
    assert "workers: 1" in text.split("</caption>")[0]
    assert "<button>workers</button>" not in text
    assert text.count('class="ours"') == 4

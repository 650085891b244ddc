"""Figures and tables against the rows that they are of."""

import numpy as np
import pytest

from bench.report import charts, heat, style, tables
from bench.report.select import Sweep
from bench.sweep.results import Results
from tests.unit.bench.report.sample import sample


def swept(**shape):
    return Sweep(sample(**shape).rows)


def test_percentiles_are_those_of_the_summary_within_a_bin():
    row = sample().rows[0]
    x, y = charts.percentiles(row)
    assert (np.diff(x) >= 0).all()
    assert (np.diff(y) >= 0).all()
    for share, name in ((0.5, "median_ns"), (0.9, "p90_ns"), (0.99, "p99_ns"), (0.999, "max_ns")):
        assert y[np.searchsorted(x, 1 / (1 - share), side="right") - 1] == pytest.approx(row[name], rel=0.03)
    assert (x[0], y[0]) == (1, row["min_ns"])
    assert (x[-1], y[-1]) == (row["calls"], row["max_ns"])


def test_calls_that_all_fall_into_one_bin_are_a_line():
    row = {**sample().rows[0], "bins_ns": [990.0], "bin_counts": [40], "min_ns": 1000, "max_ns": 1001}
    x, y = charts.percentiles(row)
    assert (x.tolist(), y.tolist()) == ([1, 40], [1000, 1001])


def test_throughput_draws_fastps_the_reference_of_the_operation_the_triads_speed_and_peers():
    figure = charts.throughput(swept(ways=("shm", "ray")), "push").figure
    drawn = sorted(figure.data, key=lambda trace: trace.legendrank)
    assert [trace.name for trace in drawn] == [
        "fastps, shm", "fastps, ray", "the rule in place", "at the triad's speed", "plain Ray actor"
    ]  # fmt: skip
    assert list(drawn[0].x) == [80, 80_000]
    assert list(drawn[0].y) == [80 / 2e-6, 80_000 / 8e-6]
    # A push reads and writes three arrays, as the triad does in its 2.5 us.
    assert list(drawn[3].y) == pytest.approx([80 / 2.5e-6, 80_000 / 2.5e-6])


def test_peers_that_did_other_work_than_fastps_are_not_drawn_beside_it():
    rows = [
        {**row, "work": "add" if row["work"] == "adam" and row["subject"] != "fastps" else row["work"]}
        for row in sample(rule="adam", ops=("push",)).rows
    ]
    drawn = {trace.name for trace in charts.throughput(Sweep(rows), "push").figure.data}
    assert drawn == {"fastps, shm", "at the triad's speed"}
    assert "plain Ray actor" in {t.name for t in charts.throughput(swept(rule="adam"), "push").figure.data}


def test_a_push_pull_at_the_triads_speed_is_told_by_its_own_four_arrays():
    figure = charts.throughput(swept(ops=("push_pull",)), "push_pull").figure
    (triad,) = (trace for trace in figure.data if trace.legendgroup == "triad")
    assert list(triad.y) == pytest.approx([80 / 2.5e-6 * 6 / 4, 80_000 / 2.5e-6 * 6 / 4])


def test_operations_have_one_scale():
    drawn = [charts.throughput(swept(), op) for op in ("pull", "push")]
    charts.together(drawn)
    first, second = (chart.figure.layout.yaxis.range for chart in drawn)
    assert first == second


def test_an_operation_that_was_not_measured_with_the_fewest_workers_has_no_throughput():
    rows = [row for row in sample().rows if row["op"] == "pull" or row["workers"] == 2]
    assert charts.throughput(Sweep(rows), "push") is None
    assert charts.throughput(Sweep(rows), "pull") is not None


@pytest.mark.parametrize(("low", "high"), [(2.0, 2.0), (30.0, 34.0), (10.0, 100.0), (1.2, 300.0), (1.0, 1e7)])
def test_an_axis_of_powers_has_labels_however_near_its_values_are(low, high):
    axis = style.log_axis(low, high, str)
    first, last = (10.0**end for end in axis["range"]) if "range" in axis else (low, high)
    assert first <= low <= high <= last
    assert 2 <= sum(first * 0.999 <= tick <= last * 1.001 for tick in axis["tickvals"]) <= 12


def test_every_choice_of_latency_has_an_axis_for_its_times():
    chart = charts.latency(swept(sizes=(80, 80_000_000), workers=(1,), peers=()))
    axes = chart.figure.layout.meta["choices"]
    assert tuple(axes) == chart.choices
    for trace in chart.figure.data:
        first, last = (10.0**end for end in axes[trace.meta]["yaxis.range"])
        assert first <= trace.y.min() <= trace.y.max() <= last
        assert axes[trace.meta]["yaxis.ticktext"][axes[trace.meta]["yaxis.tickvals"].index(1e-6)] == "1 µs"


def test_latency_is_of_the_fewest_workers_and_of_the_most():
    chart = charts.latency(swept(sizes=(80,), workers=(1, 2, 4), ops=("pull",)))
    assert chart.choices == ("pull of 80 B, 1 worker", "pull of 80 B, 4 workers")
    assert {trace.meta for trace in chart.figure.data if trace.visible} == {chart.choices[0]}


def test_scaling_is_beside_the_fewest_and_the_cores_are_marked():
    chart = charts.scaling(swept(workers=(1, 2, 4)), "workers", 2)
    assert chart.choices == ("pull", "push")
    ideal, *lines = chart.figure.data
    assert list(ideal.y) == [1, 2, 4]
    assert all(list(line.y) == [1, 2, 4] for line in lines)  # as made up
    assert [line.visible for line in lines] == [True, True, False, False]
    assert chart.figure.layout.annotations[0].text == "2 cores"
    assert charts.scaling(swept(workers=(1, 2)), "shards", 2) is None


def test_shards_scale_first_with_the_most_workers():
    chart = charts.scaling(swept(shards=(1, 2), ops=("push",)), "shards", 2)
    assert chart.choices == ("push, 2 workers", "push, 1 worker")


def test_cores_are_marked_only_among_the_counts():
    assert charts.scaling(swept(workers=(1, 2)), "workers", 64).figure.layout.annotations == ()
    assert charts.scaling(swept(workers=(1, 2)), "workers", None).figure.layout.annotations == ()


def test_the_map_has_the_ratios_and_a_label_for_what_differs():
    (drawn,) = heat.ratios(swept()).figure.data
    assert list(drawn.y) == ["pull 1w", "pull 2w", "push 1w", "push 2w"]
    assert list(drawn.x) == ["80 B", "80 KB"]
    assert list(drawn.text[0]) == ["2.00", "8.00"]
    assert list(drawn.text[2]) == ["1.33", "5.33"]


def test_the_map_of_what_is_all_far_from_the_reference_tells_how_far():
    (drawn,) = heat.ratios(swept(ways=("ray",))).figure.data
    shades = [shade for line in drawn.z for shade in line]
    assert len(set(shades)) == 4
    assert max(shades) < drawn.zmax


def test_a_peer_that_the_report_does_not_know_is_drawn():
    rows = [{**row, "subject": "new_peer"} if row["subject"] == "ray_actor" else row for row in sample().rows]
    assert "new peer" in [trace.name for trace in charts.throughput(Sweep(rows), "pull").figure.data]


def test_the_table_has_all_rows_and_leaves_out_what_is_the_same_in_all():
    result = sample(workers=(1,))
    text = tables.rows(Sweep(result.rows))
    assert text.count("<tr") == 1 + len(result.rows)
    assert "workers: 1" in text.split("</caption>")[0]
    assert "<button>workers</button>" not in text
    assert text.count("class=ours") == 4


def test_nodes_that_the_result_does_not_describe_are_not_told():
    result = sample(nodes="ab")
    assert "<td class=w>b</td>" not in tables.nodes(result, Sweep(result.rows))
    assert tables.nodes(result, Sweep(result.rows)).count("10.0.0.1") == 2
    resumed = Results([{**row, "worker_nodes": ["gone"]} for row in result.rows], result.about)
    assert tables.nodes(resumed, Sweep(resumed.rows)) == ""


def test_facts_of_the_machine_have_their_units():
    result = sample()
    result.about["machine"]["processor"]["caches"] = {"L3": "491520K"}
    result.about["machine"]["system"]["open_files"] = 1 << 20
    result.about["machine"]["memory"]["total"] = 3 << 30
    result.about["machine"]["scheduling"]["steal_share"] = 0.0256
    text = tables.machine(result)
    for name, value in (("caches L3", "480 MiB"), ("open files", "1048576"), ("total", "3 GiB"),
                        ("steal share", "2.6%")):  # fmt: skip
        assert f"<dt>{name}</dt><dd>{value}</dd>" in text

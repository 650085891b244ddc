"""The figures of the report that have lines, from rows. Pure.

A figure that has a choice draws the traces of all its choices; the page shows one at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from bench.harness.units import human_bytes
from bench.peers import MEMORY, REFERENCES, RIVALS
from bench.report import style
from bench.report.ratios import number
from bench.report.select import OURS, PRIVATE, Row, Sweep
from bench.report.style import Chart
from bench.report.words import count, duration, name_of, rate, variant

# One call in this many is slower: the axis of percentiles.
SHARES = {1: "0", 2: "50", 10: "90", 100: "99", 1_000: "99.9", 10_000: "99.99", 100_000: "99.999",
          1_000_000: "99.9999", 10_000_000: "99.99999"}  # fmt: skip
NARROW_SHARES = {x: text for x, text in SHARES.items() if x != 2}


@dataclass(frozen=True)
class Line:
    """Rows by size of one subject, and how it is drawn: `key` is the same for the references of all operations,
    `rank` its place in the legend."""

    key: str
    name: str
    rows: list[Row]
    style: dict[str, Any]
    rank: int

    def legend(self) -> dict[str, Any]:
        return {"name": self.name, "legendgroup": self.key, "legendrank": self.rank}


def lines(sweep: Sweep, op: str, subjects: Sequence[str], setting: dict[str, Any] | None = None) -> list[Line]:
    """Peers, above them fastps, above it the reference of the operation; no other that is unshared."""
    peers = {name: rows for name, rows in sweep.peers(op, setting).items() if name in subjects}
    found = [Line(n, name_of(n), rows, style.line(n), 4) for n, rows in peers.items() if n not in PRIVATE]
    for over, rows in sweep.ways(op, setting).items():
        found.append(Line(OURS + over, f"{OURS}, {over}", rows, {**style.line(over), "width": 3.5}, 1))
    if REFERENCES[op] in peers:
        reference = REFERENCES[op]
        found.append(Line("reference", name_of(reference), peers[reference], style.line(reference, reference=True), 2))
    return found


def throughput(sweep: Sweep, op: str) -> Chart | None:
    """Bytes a second of all workers against size, in the setting of `base`; None where `op` was not measured there.

    The triad's line is where fastps would be if it read and wrote its arrays at the triad's speed: from that of its
    median, `of_bandwidth`.
    """
    drawn = lines(sweep, op, sweep.subjects())
    if not any(line.key.startswith(OURS) for line in drawn):
        return None
    figure = go.Figure()
    for line in drawn:
        figure.add_scatter(
            x=[row["nbytes"] for row in line.rows], y=[row["bytes_second"] for row in line.rows],
            mode="lines+markers", line=line.style, **line.legend(),
            marker={"size": 2 * line.style["width"] + 1, "color": line.style["color"]},
            text=[
                f"{human_bytes(row['nbytes'])}: {rate(row['bytes_second'])}, median {duration(row['median_ns'])}"
                for row in line.rows
            ],
            hovertemplate="%{text}<extra>" + line.name + "</extra>",
        )  # fmt: skip
    rows = [row for row in next(iter(sweep.ways(op).values())) if row["of_bandwidth"]]
    if rows:
        reach = [_at_triad(row) for row in rows]
        figure.add_scatter(
            x=[row["nbytes"] for row in rows], y=reach, name="at the triad's speed", legendgroup=MEMORY,
            legendrank=3, mode="lines+markers", line=style.line(MEMORY), marker={"size": 3, "color": style.GREY},
            text=[f"{human_bytes(row['nbytes'])}: {rate(speed)}" for row, speed in zip(rows, reach, strict=True)],
            hovertemplate="%{text}<extra>at the triad's speed</extra>",
        )  # fmt: skip
    axis, narrow = style.size_axis(sweep.values("nbytes"))
    figure.update_xaxes(**axis)
    style.layout(figure, 330, narrow, title={"text": op, "x": 0.01, "y": 0.98, "font": {"size": 15}})
    chart = Chart(figure, f"Bytes a second against size, {op}")
    together([chart])
    return chart


def _at_triad(row: Row) -> float:
    return float(row["workers"] * row["nbytes"] * 1e9 / (row["median_ns"] * row["of_bandwidth"]))


def together(charts: Sequence[Chart]) -> None:
    """Gives figures of throughput one scale."""
    moved = [value for chart in charts for trace in chart.figure.data for value in trace.y]
    low, high = float(np.log10(min(moved))), float(np.log10(max(moved)))
    axis = {"range": [low - 0.25, high + 0.25], **style.log_axis(min(moved), max(moved), rate)}
    for chart in charts:
        chart.figure.update_yaxes(**axis)


def percentiles(row: Row) -> tuple[np.ndarray, np.ndarray]:
    """(x, ns) from the histogram, by steps: one call in x takes that long or longer; the last is the slowest call."""
    counts = np.array(row["bin_counts"], float)
    slower = counts[::-1].cumsum()[::-1]
    times = np.clip(row["bins_ns"], row["min_ns"], row["max_ns"])
    return np.append(counts.sum() / slower, counts.sum()), np.append(times, row["max_ns"])


def latency(sweep: Sweep) -> Chart:
    """Percentiles of single calls with the fewest workers and the most, of fastps, its rivals and the reference."""
    figure, axes = go.Figure(), {}
    settings = [sweep.base()] + ([sweep.crowd()] if sweep.crowd() != sweep.base() else [])
    shown = [name for name in sweep.subjects() if name in (*REFERENCES.values(), *RIVALS)]
    for op in sweep.values("op"):
        for setting in settings:
            drawn = lines(sweep, op, shown, setting)
            for nbytes in sorted({r["nbytes"] for line in drawn if line.key.startswith(OURS) for r in line.rows}):
                choice = f"{op} of {human_bytes(nbytes)}"
                choice += f", {count('worker', setting['workers'])}" if len(settings) > 1 else ""
                curves = [(line, percentiles(r)) for line in drawn for r in line.rows if r["nbytes"] == nbytes]
                ends = [ns for _, (_, times) in curves for ns in (times[0], times[-1])]
                axes[choice] = style.log_axis(min(ends), max(ends), duration)
                for line, (x, ns) in curves:
                    # In seconds, of which the hover's format makes ns, µs and ms; half as many digits, half the page.
                    figure.add_scatter(
                        x=x.astype(np.float32), y=(ns / 1e9).astype(np.float32), meta=choice, **line.legend(),
                        visible=len(axes) == 1, mode="lines", line={**line.style, "shape": "hv"},
                        hovertemplate="1 call in %{x:,.3~r} takes %{y:.3~s}s or longer<extra>" + line.name + "</extra>",
                    )  # fmt: skip
    for axis in axes.values():  # of ns; the figure is of seconds
        axis["tickvals"] = [tick / 1e9 for tick in axis["tickvals"]]
        if "range" in axis:
            axis["range"] = [end - 9 for end in axis["range"]]
    figure.update_yaxes(**next(iter(axes.values())))
    figure.update_xaxes(type="log", tickvals=list(SHARES), ticktext=list(SHARES.values()),
                        title={"text": "% of calls are faster", "standoff": 8})  # fmt: skip
    narrow = {
        "xaxis.tickvals": list(NARROW_SHARES), "xaxis.ticktext": list(NARROW_SHARES.values()),
        "xaxis.tickfont.size": 10, "margin.r": 24,
    }  # fmt: skip
    meta = {
        "narrow": narrow,
        "choices": {c: {f"yaxis.{name}": value for name, value in axis.items()} for c, axis in axes.items()},
    }  # fmt: skip
    style.layout(figure, 420, margin={"l": 74, "r": 14, "t": 12, "b": 56}, meta=meta)
    return Chart(figure, "Latency of single calls by percentile", tuple(axes))


def scaling(sweep: Sweep, column: str, cores: int | None) -> Chart | None:
    """Throughput beside that of the fewest workers, or shards. None where there is but one count. `cores` is None where
    they are not those of one machine."""
    curves = sweep.curves(column)
    if not curves:
        return None
    figure, sizes, counts = go.Figure(), sweep.values("nbytes"), sweep.values(column)
    colors = dict(zip(sizes, style.ladder(len(sizes)), strict=True))
    varied = sweep.varied(("shards", "workers", "rule", "transport", "placement"))
    choices = tuple(dict.fromkeys(variant(curve.setting, varied) for curve in curves))
    figure.add_scatter(
        x=counts, y=[n / counts[0] for n in counts], name="ideal", legendgroup="ideal", mode="lines", hoverinfo="skip",
        line={"color": style.GREY, "dash": "dash", "width": 2},
    )  # fmt: skip
    what = column.removesuffix("s")
    for curve in curves:
        first, choice, name = curve.rows[0], variant(curve.setting, varied), human_bytes(curve.nbytes)
        figure.add_scatter(
            x=[row[column] for row in curve.rows], y=[r["bytes_second"] / first["bytes_second"] for r in curve.rows],
            name=name, legendgroup=name, meta=choice, visible=choice == choices[0], mode="lines+markers",
            line={"color": colors[curve.nbytes], "width": 2}, marker={"color": colors[curve.nbytes], "size": 6},
            text=[
                f"{count(what, row[column])}: {number(row['bytes_second'] / first['bytes_second'])} times, "
                f"{rate(row['bytes_second'])}"
                for row in curve.rows
            ],
            hovertemplate="%{text}<extra>" + name + "</extra>",
        )  # fmt: skip
    if cores and counts[0] <= cores <= counts[-1]:
        figure.add_vline(
            x=cores, line={"color": style.GREY, "width": 1, "dash": "dot"}, annotation_position="bottom left",
            annotation={"text": count("core", cores), "font": {"size": 12}},
        )  # fmt: skip
    figure.update_xaxes(tickvals=counts, title={"text": column, "standoff": 8})
    figure.update_yaxes(rangemode="tozero", title={"text": f"times that of {count(what, counts[0])}", "standoff": 8})
    style.layout(figure, 360, margin={"l": 56, "r": 14, "t": 12, "b": 56})
    return Chart(figure, f"Throughput over {column}", choices)

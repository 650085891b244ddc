"""The figures of the report, from rows. Pure.

A figure that has a choice draws the traces of all its choices; `meta` of a trace names the one it belongs to, and the
page shows one at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from bench.peers import FLOOR, MEMORY, ROOFS
from bench.report.select import OURS, PRIVATE, Row, Sweep
from bench.report.words import NAMES, pairs, rate
from bench.sweep.grid import OPS
from bench.sweep.loop import BINS_A_DOUBLING
from bench.sweep.results import SETTING
from bench.timing import human_bytes, human_time

# Okabe and Ito's colours, which can be told apart with any kind of sight; grey for the machine's limits.
COLORS = {
    "shm": "#0072b2", "ray": "#56b4e9", "mixed": "#0a8f8f", "shared_array": "#009e73", "ray_actor": "#d55e00",
    "torch_rpc": "#cc79a7", "gloo": "#e69f00", "memcpy": "#555555", "numpy_in_place": "#555555", "triad": "#999999",
}  # fmt: skip
SIZES = ["#440154", "#414487", "#2a788e", "#22a884", "#7ad151", "#c2b000", "#d55e00"]  # from small to large
AXIS = {"gridcolor": "#e6e6e6", "linecolor": "#888", "zeroline": False, "ticks": "outside", "ticklen": 4}
FONT = {"family": "system-ui, sans-serif", "size": 13, "color": "#222"}
SHARES = {1: "0 %", 10: "90 %", 100: "99 %", 1_000: "99.9 %", 10_000: "99.99 %", 100_000: "99.999 %",
          1_000_000: "99.9999 %"}  # fmt: skip


def _layout(figure: go.Figure, height: int, **more: Any) -> go.Figure:
    titled = "xaxis_title" in more
    legend = {"orientation": "h", "yanchor": "top", "y": -0.27 if titled else -0.16, "x": 0, "font": {"size": 12}}
    figure.update_layout(
        template="none", font=FONT, height=height, margin={"l": 72, "r": 12, "t": 34, "b": 60}, legend=legend,
        hoverlabel={"font": {"size": 12}}, paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", **more,
    )  # fmt: skip
    figure.update_xaxes(**AXIS)
    figure.update_yaxes(**AXIS)
    return figure


def _decades(low: float, high: float) -> list[float]:
    return [10.0**exponent for exponent in range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)]


def _size_axis(sizes: Sequence[int]) -> dict[str, Any]:
    ticks = sizes[:: 1 + (len(sizes) - 1) // 4]  # more would touch each other on a phone
    return {"type": "log", "tickvals": ticks, "ticktext": [human_bytes(size) for size in ticks], "tickangle": 0}


def _lines(sweep: Sweep, op: str, subjects: Sequence[str]) -> list[tuple[str, list[Row], dict[str, Any]]]:
    """What is drawn in a figure of one operation: a name, rows by size and a style; of limits only those of `op`."""
    found = [(f"{OURS}, {over}", rows, {"color": COLORS[over], "width": 3}) for over, rows in sweep.ways(op).items()]
    for subject, rows in sweep.peers(op).items():
        if subject in subjects and (subject not in PRIVATE or subject in (ROOFS[op], MEMORY)):
            dash = "dash" if subject == ROOFS[op] else "dot" if subject == MEMORY else "solid"
            style = {"color": COLORS[subject], "width": 2 if subject in PRIVATE else 1.4, "dash": dash}
            found.append((NAMES[subject], rows, style))
    return found


def throughput(sweep: Sweep, op: str) -> go.Figure:
    """Bytes a second of all workers against size, in the smallest setting."""
    figure, moved = go.Figure(), []
    for name, rows, style in _lines(sweep, op, sweep.subjects()):
        moved += [row["bytes_second"] for row in rows]
        figure.add_scatter(
            x=[row["nbytes"] for row in rows], y=[row["bytes_second"] for row in rows], name=name, mode="lines+markers",
            line=style, marker={"size": 2 * style["width"] + 1},
            text=[f"{human_bytes(r['nbytes'])}: {rate(r['bytes_second'])}, median {human_time(r['median_ns'] / 1e9)}"
                  for r in rows],
            hovertemplate="%{text}<extra>" + name + "</extra>",
        )  # fmt: skip
    ticks = _decades(min(moved), max(moved))
    figure.update_yaxes(type="log", tickvals=ticks, ticktext=[rate(tick) for tick in ticks])
    figure.update_xaxes(**_size_axis(sweep.values("nbytes")))
    return _layout(figure, 400, title={"text": op, "x": 0.02, "font": {"size": 15}})


def percentiles(row: Row) -> tuple[np.ndarray, np.ndarray]:
    """(1 / (1 - share), ns): how long calls take, from the histogram; the last point is the slowest call."""
    counts = np.array(row["bin_counts"], float)
    middle = np.array(row["bins_ns"]) * 2 ** (0.5 / BINS_A_DOUBLING)
    share = (np.cumsum(counts) - counts / 2) / counts.sum()
    share[-1] = 1 - 0.5 / counts.sum()
    times = np.minimum(middle, row["max_ns"])
    times[-1] = row["max_ns"]
    return 1 / (1 - share), times


def latency(sweep: Sweep) -> tuple[go.Figure, list[str]]:
    """Percentiles of single calls, and the choices of operation and size."""
    figure, choices = go.Figure(), []
    for op in sweep.values("op"):
        lines = _lines(sweep, op, (ROOFS[op], FLOOR, "shared_array", "torch_rpc"))
        for nbytes in sorted({row["nbytes"] for rows in sweep.ways(op).values() for row in rows}):
            choice = f"{op} of {human_bytes(nbytes)}"
            choices.append(choice)
            for name, rows, style in lines:
                for row in (row for row in rows if row["nbytes"] == nbytes):
                    x, y = percentiles(row)
                    figure.add_scatter(
                        x=x, y=y, name=name, meta=choice, visible=len(choices) == 1, mode="lines",
                        line={**style, "shape": "hv"},
                        text=[f"{100 - 100 / at:.6g} % within {human_time(t / 1e9)}"
                              for at, t in zip(x, y, strict=True)],
                        hovertemplate="%{text}<extra>" + name + "</extra>",
                    )  # fmt: skip
    times = [10.0**e for e in range(1, 11)]
    figure.update_yaxes(type="log", tickvals=times, ticktext=[human_time(t / 1e9) for t in times])
    figure.update_xaxes(
        type="log", tickvals=list(SHARES), ticktext=list(SHARES.values()), tickangle=0, tickfont_size=11
    )
    return _layout(figure, 440, xaxis_title="of calls are at most as long"), choices


def scaling(sweep: Sweep, column: str, cores: int | None) -> tuple[go.Figure, list[str]] | None:
    """Throughput beside that of the fewest workers, or shards; and the choices. None where there is but one count."""
    counts = sweep.values(column)
    if len(counts) < 2:
        return None
    figure, choices, sizes = go.Figure(), [], sweep.values("nbytes")
    figure.add_scatter(
        x=counts, y=[count / counts[0] for count in counts], name="ideal", mode="lines",
        line={"color": "#555", "dash": "dash", "width": 2}, hoverinfo="skip",
    )  # fmt: skip
    colors = [SIZES[round(i * (len(SIZES) - 1) / max(1, len(sizes) - 1))] for i in range(len(sizes))]
    for op in sweep.values("op"):
        grown: dict[int, list[tuple[int, Row, Row]]] = {nbytes: [] for nbytes in sizes}
        for count in counts:
            for few, more in pairs(sweep, column, counts[0], count, op):
                grown[few["nbytes"]].append((count, few, more))
        if all(len(points) < 2 for points in grown.values()):
            continue
        choices.append(op)
        for (nbytes, points), color in zip(grown.items(), colors, strict=True):
            times = [more["bytes_second"] / few["bytes_second"] for _, few, more in points]
            figure.add_scatter(
                x=[count for count, _, _ in points], y=times, name=human_bytes(nbytes), meta=op,
                visible=len(choices) == 1, mode="lines+markers", line={"color": color, "width": 2},
                text=[f"{count} {column}: {number(grew)} times, {rate(more['bytes_second'])}"
                      for (count, _, more), grew in zip(points, times, strict=True)],
                hovertemplate="%{text}<extra>" + human_bytes(nbytes) + "</extra>",
            )  # fmt: skip
    if not choices:
        return None
    if cores and column == "workers" and counts[0] <= cores <= counts[-1]:
        figure.add_vline(x=cores, line={"color": "#aaa", "width": 1, "dash": "dot"},
                         annotation={"text": f"{cores} cores", "font": {"size": 11, "color": "#666"}})  # fmt: skip
    figure.update_xaxes(tickvals=counts)
    figure.update_yaxes(rangemode="tozero", title=f"times the throughput of {counts[0]}")
    return _layout(figure, 420, xaxis_title=column), choices


def ratios(sweep: Sweep) -> go.Figure | None:
    """How many times the roof's time: settings and operations by sizes. None where no roof was measured."""
    rows = [row for row in sweep.rows if row["subject"] == OURS and row["to_roof"] is not None]
    if not rows:
        return None
    others = [name for name in SETTING if name != "nbytes"]
    varied = [name for name in ("op", *others) if len({row[name] for row in rows}) > 1 or name == "op"]
    sizes = sorted({row["nbytes"] for row in rows})
    table: dict[tuple[Any, ...], dict[int, float]] = {}
    for row in rows:
        table.setdefault(tuple(row[name] for name in ("op", *others)), {})[row["nbytes"]] = row["to_roof"]
    names, units = ["op", *others], {"shards": "sh", "workers": "w"}
    keys = sorted(table, key=lambda key: (OPS.index(key[0]), key[names.index("rule")] != "add", key[1:]))
    labels = [" ".join(f"{key[names.index(n)]}{units.get(n, '')}" for n in varied) for key in keys]
    values = [[table[key].get(size) for size in sizes] for key in keys]
    shades = [[None if v is None else min(3.0, max(0.0, float(np.log2(v)))) for v in line] for line in values]
    texts = [["" if v is None else number(v) for v in line] for line in values]
    figure = go.Figure(
        go.Heatmap(
            z=shades, x=[human_bytes(size) for size in sizes], y=labels, text=texts, texttemplate="%{text}",
            colorscale=[[0, "#f3f7f4"], [0.2, "#fde9c4"], [0.55, "#f3a65a"], [1, "#c6501e"]], zmin=0, zmax=3,
            showscale=False, xgap=2, ygap=2, hovertemplate="%{y}, %{x}: %{text} times the roof's time<extra></extra>",
        )
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_xaxes(side="top")
    _layout(figure, 90 + 27 * len(keys))
    figure.update_layout(margin={"t": 48, "b": 12, "l": 10, "r": 8})
    figure.update_yaxes(ticks="", linecolor="rgba(0,0,0,0)", tickfont={"size": 12})
    figure.update_xaxes(ticks="", linecolor="rgba(0,0,0,0)")
    return figure

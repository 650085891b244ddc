"""The map of the ratios to the reference, from rows. Pure."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go

from bench.harness.units import human_bytes
from bench.report import style
from bench.report.ratios import number
from bench.report.select import OURS, Row, Sweep
from bench.report.style import Chart
from bench.sweep.results import SETTING

UNITS = {"shards": "sh", "workers": "w"}
COLORS = [[0, "#7cc7b5"], [0.25, "#f2f3ef"], [0.4, "#fbdca6"], [0.65, "#f0a055"], [1, "#bd4a1b"]]
DOUBLINGS = 3.0  # of the reference's time, up to which colours differ


def ratios(sweep: Sweep) -> Chart | None:
    """How many times the reference's time: settings and operations by sizes. None where no reference was measured."""
    rows = [row for row in sweep.rows if row["subject"] == OURS and row["to_reference"] is not None]
    if not rows:
        return None
    names = ["op", *(name for name in SETTING if name != "nbytes")]
    varied = [name for name in names if name == "op" or len({row[name] for row in rows}) > 1]
    sizes, ops = sorted({row["nbytes"] for row in rows}), sweep.values("op")
    table: dict[tuple[Any, ...], dict[int, float]] = {}
    for row in sorted(rows, key=lambda row: _place(row, ops)):
        table.setdefault(tuple(row[name] for name in varied), {})[row["nbytes"]] = row["to_reference"]
    labels = [" ".join(f"{value}{UNITS.get(n, '')}" for n, value in zip(varied, key, strict=True)) for key in table]
    values = [[found.get(size) for size in sizes] for found in table.values()]
    known = [value for found in values for value in found if value is not None]
    # Where all is far away, colours tell how far. The reference's own time is at a quarter of the scale.
    high = DOUBLINGS if min(known) < 2**DOUBLINGS else float(np.log2(max(known))) * 1.2
    low = -high / 3
    figure = go.Figure(
        go.Heatmap(
            z=[[None if v is None else float(np.clip(np.log2(v), low, high)) for v in found] for found in values],
            x=[human_bytes(size) for size in sizes], y=[escape(label) for label in labels],
            text=[["" if v is None else number(v) for v in found] for found in values], texttemplate="%{text}",
            textfont={"color": "#111"},  # on all of COLORS, on a light page and on a dark one
            colorscale=COLORS, zmin=low, zmax=high, showscale=False, xgap=2, ygap=2, hoverongaps=False,
            hovertemplate="%{y}, %{x}: %{text} times the reference's time<extra></extra>",
        )
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_xaxes(side="top")
    narrow = {
        "xaxis.ticktext": [human_bytes(size).removesuffix("B").replace(" ", "") for size in sizes],
        "xaxis.tickvals": [human_bytes(size) for size in sizes], "font.size": 11,
    }  # fmt: skip
    style.layout(figure, 40 + 27 * len(table), narrow, margin={"t": 28, "b": 8, "l": 8, "r": 8})
    for update in (figure.update_xaxes, figure.update_yaxes):
        update(ticks="", showline=False, showgrid=False, type="category")
    return Chart(figure, "The ratio to the reference")


def _place(row: Row, ops: list[str]) -> tuple[Any, ...]:
    return ops.index(row["op"]), row["rule"] != "add", row["rule"], *(row[name] for name in SETTING[1:])

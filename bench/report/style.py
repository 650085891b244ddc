"""How figures look. The page's script gives them the colours of a light or a dark page, and what a narrow one needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from bench.harness.units import human_bytes
from bench.report.select import PRIVATE

# Okabe and Ito's colours, which can be told apart with any kind of sight; grey for what nobody shares.
COLORS = {
    "shm": "#0072b2", "ray": "#56b4e9", "mixed": "#0a8f8f", "shared_array": "#009e73", "ray_actor": "#d55e00",
    "torch_rpc": "#cc79a7", "gloo": "#e69f00",
}  # fmt: skip
SPARE = "#8f4a9e"  # of peers that have none
GREY = "#858585"  # can be seen on white and on black
# From small to large sizes: all of a lightness that can be seen on white and on black.
LADDER = ["#3f6fc4", "#1fa187", "#c99700", "#d55e00"]


@dataclass(frozen=True)
class Chart:
    """A figure of the page.

    Attributes
    ----------
    figure : of its traces `legendgroup` is what the page's legend switches, `legendrank` where it stands there, and
        `meta`, if any, the choice they belong to; `layout.meta` has what is different on a narrow page ("narrow"), and
        by choice ("choices")
    title : what it is of, for those who do not see it
    choices : of which the page shows one at a time
    """

    figure: go.Figure
    title: str
    choices: tuple[str, ...] = ()


def line(subject: str, reference: bool = False) -> dict[str, Any]:
    """Of a peer, or of the way of fastps."""
    if subject in PRIVATE:
        return {"color": GREY, "width": 2, "dash": "dash" if reference else "dot"}
    return {"color": COLORS.get(subject, SPARE), "width": 1.5}


def ladder(n: int) -> list[str]:
    """Colours for `n` sizes."""
    return list(sample_colorscale(LADDER, list(np.linspace(0, 1, n)) if n > 1 else [0.0]))


def layout(figure: go.Figure, height: int, narrow: dict[str, Any] | None = None, **more: Any) -> go.Figure:
    figure.update_layout(
        template="none", height=height, showlegend=False, font={"family": "system-ui, sans-serif", "size": 13},
        margin={"l": 74, "r": 14, "t": 34, "b": 34}, hoverlabel={"font": {"size": 13}}, meta={"narrow": narrow or {}},
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
    )  # fmt: skip
    figure.update_layout(**more)
    for update in (figure.update_xaxes, figure.update_yaxes):
        update(zeroline=False, ticks="outside", ticklen=4, tickangle=0)
    return figure


def size_axis(sizes: Sequence[int]) -> tuple[dict[str, Any], dict[str, Any]]:
    """An axis of sizes, and what is different on a narrow page: fewer labels, which would touch each other."""

    def ticks(some: Sequence[int]) -> dict[str, Any]:
        return {"tickvals": list(some), "ticktext": [human_bytes(size) for size in some]}

    few = ticks(sizes[:: 1 + (len(sizes) - 1) // 4])
    axis = {"type": "log", **ticks(sizes[:: 1 + (len(sizes) - 1) // 7])}
    if len(sizes) == 1:
        axis["range"] = [float(np.log10(sizes[0])) - 0.5, float(np.log10(sizes[0])) + 0.5]
    return axis, {f"xaxis.{name}": value for name, value in few.items()}


FEW = 300  # times the smallest value: from there on powers of ten are labels enough


def log_axis(low: float, high: float, text: Callable[[float], str]) -> dict[str, Any]:
    """For values from `low` to `high`: labels at powers of ten; where there are few, also at 2 and 5 times as much, and
    a range from one label to another, for values that are near each other may have none between them."""
    exponents = range(int(np.floor(np.log10(low))) - 1, int(np.ceil(np.log10(high))) + 2)
    few = high < FEW * low
    ticks = [digit * 10.0**exponent for exponent in exponents for digit in ((1, 2, 5) if few else (1,))]
    axis = {"type": "log", "tickvals": ticks, "ticktext": [text(tick) for tick in ticks]}
    if few:
        ends = max(tick for tick in ticks if tick < low), min(tick for tick in ticks if tick > high)
        axis["range"] = [float(np.log10(end)) for end in ends]
    return axis

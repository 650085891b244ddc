"""A page with the loss over time of several runs in one chart. It opens without a network: its script is part of it."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path

import plotly.graph_objects as go

from fastps.programs.demo.consistency.curve import Curve

# Okabe and Ito's colours, which are distinct for colour-blind readers too; dashes where curves overlap.
STYLES = [
    {"color": "#0072b2"},
    {"color": "#e69f00"},
    {"color": "#009e73", "dash": "dash"},
    {"color": "#d55e00", "dash": "dot"},
    {"color": "#8f4a9e"},
]

AXIS = {"gridcolor": "#e2e2e2", "linecolor": "#888", "ticks": "outside", "zeroline": False}

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.4 system-ui, sans-serif; color: #222; background: #fff; }}
body {{ max-width: 1100px; height: 100vh; box-sizing: border-box; margin: 0 auto; padding: 1rem; }}
body {{ display: flex; flex-direction: column; }}
h1 {{ font-size: 1.35rem; margin: 0 0 .3rem; }}
p {{ margin: 0 0 .5rem; color: #444; }}
.chart {{ flex: 1 0 420px; min-height: 0; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{text}</p>
<div class="chart">{chart}</div>
</body>
</html>
"""


def write(path: Path, title: str, text: str, curves: Mapping[str, Curve]) -> None:
    """Writes the page.

    Parameters
    ----------
    path : of the file
    title : what is shown
    text : how it was measured
    curves : by their names in the legend

    Raises
    ------
    OSError
        The file cannot be written.
    """
    figure = go.Figure()
    for i, (name, curve) in enumerate(curves.items()):
        figure.add_scatter(
            x=curve.seconds,
            y=curve.losses,
            name=name,
            mode="lines",
            line={"width": 2.5, **STYLES[i % len(STYLES)]},
            hovertemplate="%{y:.4f}",
        )
    ticks = [digit * 10.0**exponent for exponent in range(-6, 4) for digit in (1, 2, 5)]
    figure.update_layout(
        template="none",
        font={"size": 14},
        hovermode="x unified",
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0.0},
        margin={"l": 66, "r": 12, "t": 10, "b": 52},
        xaxis={"title": {"text": "time since the workers began [s]"}, "hoverformat": ".2f", **AXIS},
        yaxis={
            "title": {"text": "training loss (mean cross-entropy) [nat]"},
            "type": "log",
            "tickvals": ticks,
            "ticktext": [f"{tick:g}" for tick in ticks],
            **AXIS,
        },
    )
    chart = figure.to_html(
        full_html=False,
        include_plotlyjs=True,
        default_height="100%",
        # The bar of buttons would cover the legend of a narrow page.
        config={"responsive": True, "displayModeBar": False},
    )
    page = PAGE.format(title=html.escape(title), text=html.escape(text), chart=chart)
    path.write_text(page, encoding="utf-8")

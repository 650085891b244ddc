"""The page: what was found, the figures, all rows, the machine. One file that needs no network."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from bench.report import charts, tables
from bench.report.select import OURS, Sweep
from bench.report.words import findings, setting
from bench.sweep.results import Results, ResultsError
from fastps import doctor

HERE = Path(__file__).parent
CONFIG = {"responsive": True, "displayModeBar": False}


def write(results: Results, path: Path) -> None:
    """Writes the page, whole or not at all. Raises ResultsError for a result without rows of fastps, or OSError."""
    text = page(results)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def page(results: Results) -> str:
    if not any(row["subject"] == OURS for row in results.rows):
        raise ResultsError("the result has no row of fastps; run the sweep to its end")
    sweep = Sweep(results.rows)
    about, processor = results.about, results.about["machine"]["processor"]
    commit = str(about["commit"].get("id", ""))[:10] + (" with changes" if about["commit"].get("dirty") else "")
    line = [
        str(about["begun"])[:16].replace("T", " ") + " UTC", f"commit {commit}" if commit else "",
        f"{processor['model']}, {processor['cores']} cores", f"Python {about['machine']['versions']['python']}",
    ]  # fmt: skip
    parts = [
        f'<header><h1>fastps sweep</h1><p class="about">{escape(" · ".join(filter(None, line)))}</p></header>',
        f'<ul class="found">{"".join(f"<li>{escape(text)}</li>" for text in findings(sweep))}</ul>',
        *_poor(about["machine"]),
        *_sections(results, sweep),
    ]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>fastps sweep</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{(HERE / 'page.css').read_text()}</style><script>{get_plotlyjs()}</script></head>"
        f"<body><main>{''.join(parts)}</main><script>{(HERE / 'page.js').read_text()}</script></body></html>\n"
    )


def _poor(facts: dict[str, Any]) -> Iterator[str]:
    """What the doctor says; nothing when the result is of a version that knew less."""
    try:
        found = [finding for finding in doctor.examine(facts) if finding.verdict == "poor"]
    except KeyError:
        return
    if found:
        items = "".join(f"<li><b>{escape(f.name)}</b>: {escape(f.found)}. {escape(f.why)}.</li>" for f in found)
        names = escape(", ".join(finding.name for finding in found))
        yield f'<details class="poor"><summary>Not at its best here: {names}</summary><ul>{items}</ul></details>'


def _sections(results: Results, sweep: Sweep) -> Iterator[str]:
    base, cores = escape(setting(sweep.base())), results.about["machine"]["processor"]["cores"]
    figures = "".join(_figure(charts.throughput(sweep, op)) for op in sweep.values("op"))
    yield _section(
        "Throughput", f"Bytes of parameters a second against their size; {base}. Dashed: the roof. Dotted: the triad, "
        "which moves three times as many bytes as these.", f'<div class="row">{figures}</div>',
    )  # fmt: skip
    figure, choices = charts.latency(sweep)
    yield _section(
        "Latency",
        f"Single calls; {base}. A call that was held up counts with its whole time.",
        _figure(figure, choices),
    )
    grown = []
    for column in ("workers", "shards"):
        found = charts.scaling(sweep, column, cores)
        if found:
            grown.append(_figure(*found))
    if grown:
        yield _section("Scaling", "Dashed: as many times as there are.", f'<div class="row">{"".join(grown)}</div>')
    else:
        yield _section("Scaling", "Not measured: sweep with several --workers or --shards.", "")
    heat = charts.ratios(sweep)
    if heat is not None:
        yield _section(
            "Ratio to the roof", "The median beside that of the roof in the same setting: memcpy for a pull, numpy in "
            "place for a push, as much longer as the rule touches more memory. w: workers, sh: shards.", _figure(heat),
        )  # fmt: skip
    yield _section(
        "All rows", "Sorted by a touch of a column's head. x roof: its median beside the roof's; floor x: the "
        "median of the plain Ray actor beside its own; of triad: the speed of its traffic beside the triad's.",
        f'<div class="scroll">{tables.rows(sweep)}</div>',
    )  # fmt: skip
    nodes = tables.nodes(results, sweep)
    if nodes:
        yield _section("Nodes", "Who was where, in the largest setting.", f'<div class="scroll">{nodes}</div>')
    yield _section("How it was measured", _method(results, sweep), "")
    yield f"<details><summary>The machine, the versions and the options</summary>{tables.machine(results)}</details>"


def _method(results: Results, sweep: Sweep) -> str:
    row = next(row for row in sweep.rows if row["subject"] == OURS)
    return (
        f"Workers are processes that start together; each call is stamped, at a cost of "
        f"{results.about['overhead_ns']:.0f} ns, and the next begins where it ended. All subjects take "
        f"{len(row['turns_ns'])} turns one after the other, so that what disturbs the machine disturbs all alike. "
        "Every pushed gradient is found in the parameters before a time is told."
    )


def _section(title: str, text: str, content: str) -> str:
    return f"<section><h2>{title}</h2><p>{text}</p>{content}</section>"


def _figure(figure: go.Figure, choices: list[str] | None = None) -> str:
    """A figure that the page's script draws, with a selector where it has choices."""
    select = ""
    if choices and len(choices) > 1:
        options = "".join(f"<option>{escape(choice)}</option>" for choice in choices)
        select = f'<label class="choice">Show <select>{options}</select></label>'
    data = figure.to_json().replace("</", "<\\/")
    config = json.dumps(CONFIG)
    return (
        f'<figure>{select}<div class="chart"></div>'
        f"<script type=\"application/json\" data-config='{config}'>{data}</script></figure>"
    )

"""The page: what was found, the figures, all rows, the machine. One file that needs no network."""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from bench.report import charts, heat, tables
from bench.report.select import OURS, Sweep
from bench.report.style import Chart
from bench.report.words import count, findings, setting, setting_and_way
from bench.sweep.results import Results, ResultsError, replacing
from fastps.machine import doctor

HERE = Path(__file__).parent
UNIT, NO_BREAK = re.compile(r"(?<=\d) (?=[KMG]?B\b|%)"), "\u00a0"


def write(results: Results, path: str | os.PathLike[str]) -> None:
    """Writes the page, whole or not at all. Raises ResultsError for a result without rows of fastps, or OSError."""
    text = page(results)
    with replacing(Path(path)) as partial:
        partial.write_text(text, encoding="utf-8")


def page(results: Results) -> str:
    if not any(row["subject"] == OURS for row in results.rows):
        raise ResultsError("the result has no row of fastps; run the sweep to its end")
    sweep = Sweep(results.rows)
    told = "".join(f"<li>{escape(UNIT.sub(NO_BREAK, text))}</li>" for text in findings(sweep))
    parts = [
        f'<header><h1>fastps sweep</h1><p class="about">{escape(" · ".join(_about(results)))}</p></header>',
        f'<p>{escape(_base(sweep))}</p><ul class="found">{told}</ul>' if told else "",
        *_poor(results.about["machine"]),
        *_figures(results, sweep),
        *_tables(results, sweep),
    ]
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>fastps sweep</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{style}</style><script>{get_plotlyjs()}</script></head>"
        f"<body><main>{''.join(parts)}</main><script>{script}</script></body></html>\n"
    )


def _about(results: Results) -> Iterator[str]:
    """When, of what, where."""
    about, machine = results.about, results.about["machine"]
    processor, python = machine.get("processor", {}), machine.get("versions", {}).get("python")
    begun = datetime.datetime.fromisoformat(about["begun"])
    yield f"{begun:%Y-%m-%d %H:%M} UTC"
    if about["commit"].get("id"):
        yield f"commit {about['commit']['id'][:10]}{' with changes' if about['commit'].get('dirty') else ''}"
    if processor.get("model"):
        yield str(processor["model"])
    if processor.get("cores"):
        yield count("core", processor["cores"])
    if python:
        yield f"Python {python}"
    if len(about["nodes"]) > 1:
        hosts = len({node["host"] for node in about["nodes"]})
        yield f"{len(about['nodes'])} nodes of Ray on {count('host', hosts)}"


def _base(sweep: Sweep) -> str:
    turns = min(len(row["turns_ns"]) for row in sweep.where(subject=OURS))
    return (
        f"Medians, with {setting_and_way(sweep)} unless said otherwise. In brackets the 95 % interval, from "
        f"{turns} turns."
    )


class Known(dict[str, Any]):
    """Facts, perhaps of a version that knew fewer: what is not there is None, which the doctor calls unknown, and is
    noted in `missing`."""

    def __init__(self, facts: dict[str, Any], missing: list[str]) -> None:
        super().__init__(facts)
        self.missing = missing

    def __missing__(self, name: str) -> None:
        self.missing.append(name)


def _poor(facts: dict[str, Any]) -> Iterator[str]:
    """What the doctor finds poor, and which facts the result does not have."""
    missing: list[str] = []
    parts = ("processor", "scheduling", "memory", "system")
    try:
        examined = doctor.examine({part: Known(facts.get(part, {}), missing) for part in parts})
    except TypeError:  # without the facts that every version has known
        examined = []
    found = [finding for finding in examined if finding.verdict == "poor"]
    if missing:
        names = escape(", ".join(dict.fromkeys(missing)).replace("_", " "))
        yield (
            f"<p>Whether all of the machine was at its best is not told: the result is of an older fastps, without "
            f"{names}.</p>"
        )
    if found:
        items = "".join(
            f"<li><b>{escape(f.name)}</b>: {escape(f.found)}; {escape(f.why)}."
            + (f" <code>{escape(f.command)}</code>" if f.command else "")
            + "</li>"
            for f in found
        )
        names = escape(", ".join(finding.name for finding in found))
        yield f'<details class="poor"><summary>Not at its best here: {names}</summary><ul>{items}</ul></details>'


def _figures(results: Results, sweep: Sweep) -> Iterator[str]:
    base = escape(setting_and_way(sweep))
    drawn = [chart for op in sweep.values("op") if (chart := charts.throughput(sweep, op)) is not None]
    charts.together(drawn)
    lines = ""
    if _has(sweep, "to_reference"):
        lines += "Dashed, the reference: memcpy for a pull, the rule in place for a push. "
    if _has(sweep, "of_bandwidth"):
        lines += "Dotted: where fastps would be if it read and wrote its arrays as fast as the triad of STREAM. "
    if "gloo" in sweep.subjects():
        lines += "gloo has no server: its pull copies what the worker itself has. "
    yield _section("Throughput", f"Bytes of parameters a second against their size; {base}. {lines}", _group(drawn))
    chart = charts.latency(sweep)
    yield _section(
        "Latency", f"Single calls of all workers; {_settings(sweep)}. A call that was held up counts with its whole "
        "time. Each line ends with its slowest call.", _group([chart]),
    )  # fmt: skip
    yield _scaling(results, sweep)
    chart = heat.ratios(sweep)
    if chart is not None:
        yield _section(
            "Ratio to the reference", "The median beside that of the reference in the same setting: the same work on "
            "memory of the worker's own, memcpy for a pull, the rule in place for a push. Less than 1: faster than the "
            "reference. w: workers, sh: shards.", _group([chart], legend=False),
        )  # fmt: skip


def _has(sweep: Sweep, column: str) -> bool:
    return any(row[column] is not None for row in sweep.rows if row["subject"] == OURS)


def _settings(sweep: Sweep) -> str:
    """Those of the figure of latency."""
    base, crowd = sweep.base(), sweep.crowd()
    return escape(setting(base) + ("" if base == crowd else f", or {count('worker', crowd['workers'])}"))


def _scaling(results: Results, sweep: Sweep) -> str:
    hosts = {node["host"] for node in results.about["nodes"]}
    cores = results.about["machine"].get("processor", {}).get("cores") if len(hosts) == 1 else None
    found = {column: charts.scaling(sweep, column, cores) for column in ("workers", "shards")}
    drawn = [chart for chart in found.values() if chart is not None]
    text = ["Bytes a second of all workers together. Dashed: as many times as there are."] if drawn else []
    if found["shards"] is not None:
        text.append(
            "In shared memory a worker goes through the shards by itself, one after the other: more shards are for "
            "several workers."
        )
    text += [f"Over {name}: not measured; sweep with several --{name}." for name, chart in found.items() if not chart]
    return _section("Scaling", " ".join(text), _group(drawn) if drawn else "")


def _tables(results: Results, sweep: Sweep) -> Iterator[str]:
    words = "fastps " + sweep.values("op")[0]
    yield _section(
        "All rows", "A column's head sorts. / reference: its median by that of the reference. actor /: the plain "
        "Ray actor's median by its own. work: what it does to memory. Percentiles need enough calls. "
        "of triad: the speed of its reads and writes beside the triad's. waited: for locks, in all calls.",
        f'<label class="filter">Show rows with <input type="search" placeholder="{escape(words)}"><output></output>'
        f'</label><div class="scroll" tabindex="0">{tables.rows(sweep)}</div>',
    )  # fmt: skip
    nodes = tables.nodes(results, sweep)
    if nodes:
        yield _section(
            "Nodes", "Which shards and workers were on which, in the largest setting.",
            f'<div class="scroll" tabindex="0">{nodes}</div>',
        )  # fmt: skip
    yield _section("How it was measured", escape(_method(results, sweep)), "")
    yield f"<details><summary>The machine, the versions and the options</summary>{tables.machine(results)}</details>"


def _method(results: Results, sweep: Sweep) -> str:
    row, about = next(row for row in sweep.rows if row["subject"] == OURS), results.about
    seconds = about["options"].get("seconds")
    each = f", {seconds:g} s each in all" if isinstance(seconds, int | float) else ""
    return (
        f"Workers are processes that start together. Each call is stamped when it ends, at a cost of "
        f"{about['overhead_ns']:.0f} ns that is a part of its time, and the next begins there. Operations of all "
        f"subjects go one after the other in {len(row['turns_ns'])} turns{each}, so that what disturbs the machine "
        "disturbs all alike. Before times are reported, what workers pull in the end is compared with what was pushed. "
        "Times of single calls are kept in bins 2 % wide. "
        f"Begun {_when(about['begun'])}, ended {_when(about['ended'])}."
    )


def _when(text: str) -> str:
    return f"{datetime.datetime.fromisoformat(text):%Y-%m-%d %H:%M:%S} UTC"


def _section(title: str, text: str, content: str) -> str:
    return f"<section><h2>{title}</h2><p>{text}</p>{content}</section>"


def _group(drawn: Sequence[Chart], legend: bool = True) -> str:
    """Figures with one legend."""
    figures = "".join(map(_figure, drawn))
    return f'<div class="group">{"<div class=legend></div>" if legend else ""}<div class="row">{figures}</div></div>'


def _figure(chart: Chart) -> str:
    """A figure that the page's script draws, with a selector where it has choices."""
    select = ""
    if len(chart.choices) > 1:
        options = "".join(f"<option>{escape(choice)}</option>" for choice in chart.choices)
        select = f'<label class="choice">Show <select>{options}</select></label>'
    data = chart.figure.to_json().replace("<", "\\u003c")
    return (
        f'<figure>{select}<div class="chart" role="img" aria-label="{escape(chart.title)}"></div>'
        f'<script type="application/json">{data}</script></figure>'
    )

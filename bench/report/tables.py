"""The tables of the report: all rows, and the machine. HTML; everything from a result is escaped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from bench.report.select import Row, Sweep, way
from bench.report.words import number, rate
from bench.sweep.results import Results
from bench.timing import human_bytes, human_time

COLUMNS = {
    "nbytes": "size", "shards": "shards", "workers": "workers", "rule": "rule", "transport": "asked",
    "placement": "placed", "op": "op", "subject": "subject", "way": "way", "median_ns": "median", "p99_ns": "p99",
    "p999_ns": "p99.9", "max_ns": "max", "ops_second": "ops/s", "bytes_second": "bytes/s", "to_roof": "x roof",
    "to_floor": "floor x",
    "of_bandwidth": "of triad", "cpu_seconds": "CPU s", "lock_waits": "lock waits", "read_retries": "read retries",
    "crossed_bytes": "crossed",
}  # fmt: skip
WORDS = ("rule", "transport", "placement", "op", "subject", "way")
HEAD = {"nbytes", "op", "subject", "way", "median_ns"}  # shown though all rows have the same


def rows(sweep: Sweep) -> str:
    """All rows; columns in which all are alike are left out, and said in the caption."""
    found = [{**row, "way": way(row)} for row in sweep.rows]
    shown = [name for name in COLUMNS if name in HEAD or len({row[name] for row in found}) > 1]
    same = [f"{COLUMNS[n]}: {_cell(n, found[0])}" for n in COLUMNS if n not in shown and found[0][n] is not None]
    head = "".join(
        f'<th scope="col" class="{"w" if name in WORDS else "n"}"><button>{COLUMNS[name]}</button></th>'
        for name in shown
    )
    body = "".join(
        f'<tr class="{"ours" if row["subject"] == "fastps" else ""}">'
        + "".join(
            f'<td class="{"w" if name in WORDS else "n"}" data-v="{escape(_key(name, row))}">{_cell(name, row)}</td>'
            for name in shown
        )
        + "</tr>"
        for row in found
    )
    caption = f"<caption>In all rows: {', '.join(same)}.</caption>" if same else ""
    return f'<table class="rows">{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _key(name: str, row: Row) -> str:
    value = row[name]
    return "" if value is None else str(value)


def _cell(name: str, row: Row) -> str:
    value = row[name]
    if value is None:
        return ""
    if name == "nbytes" or name == "crossed_bytes":
        return human_bytes(value)
    if name.endswith("_ns"):
        return human_time(value / 1e9)
    if name == "bytes_second":
        return rate(value)
    return number(value) if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else escape(str(value))


def machine(results: Results) -> str:
    """Facts, the commit and the options, as nested lists of definitions."""
    about = results.about
    facts = {**about["machine"], "commit": about["commit"], "options": about["options"]}
    return "".join(
        f"<section><h3>{escape(name)}</h3><dl>{''.join(_definitions(part))}</dl></section>"
        for name, part in facts.items()
        if part
    )


def _definitions(part: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in part.items():
        if isinstance(value, Mapping):
            yield from _definitions(value, f"{prefix}{name} ")
        elif value is not None:
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            if isinstance(value, int) and not isinstance(value, bool) and value >= 1 << 20:
                text = f"{value / 2**30:.1f} GiB"
            yield f"<div><dt>{escape(prefix + name).replace('_', ' ')}</dt><dd>{escape(text)}</dd></div>"


def nodes(results: Results, sweep: Sweep) -> str:
    """Which workers and shards were on which node, in the largest setting; "" for one node."""
    names = {node["id"]: f"{i} ({node['host']})" for i, node in enumerate(results.about["nodes"])}
    if len(names) < 2:
        return ""
    row = max((row for row in sweep.rows if row["subject"] == "fastps"), key=lambda r: (r["workers"], r["shards"]))
    lines = []
    for node, name in names.items():
        here = {
            what: [str(i) for i, at in enumerate(row[f"{what}_nodes"]) if at == node] for what in ("shard", "worker")
        }
        cells = "".join(f"<td>{', '.join(here[what]) or 'none'}</td>" for what in ("shard", "worker"))
        lines.append(f"<tr><td>{escape(name)}</td>{cells}</tr>")
    head = "<tr><th>node</th><th>shards</th><th>workers</th></tr>"
    return f"<table><thead>{head}</thead><tbody>{''.join(lines)}</tbody></table>"

"""The tables of the report: all rows, the nodes and the machine. HTML; everything from a result is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from bench.harness.units import human_bytes
from bench.report.ratios import number
from bench.report.select import OURS, Row, Sweep, way
from bench.report.words import duration, rate
from bench.sweep.results import Results
from fastps.messages import binary

COLUMNS = {
    "nbytes": "size", "shards": "shards", "workers": "workers", "rule": "rule", "transport": "asked",
    "placement": "placed", "op": "op", "subject": "subject", "work": "work", "way": "way", "median_ns": "median",
    "p99_ns": "p99", "p999_ns": "p99.9", "p9999_ns": "p99.99", "max_ns": "max", "calls": "calls", "ops_second": "ops/s",
    "bytes_second": "bytes/s", "to_reference": "/ reference", "to_actor": "actor /", "of_bandwidth": "of triad",
    "cpu_seconds": "CPU s", "lock_waits": "lock waits", "lock_wait_ns": "waited", "read_retries": "read retries",
    "crossed_bytes": "crossed",
}  # fmt: skip
WORDS = ("rule", "transport", "placement", "op", "subject", "work", "way")
HEAD = {"nbytes", "op", "subject", "way", "median_ns"}  # shown though all rows have the same


def rows(sweep: Sweep) -> str:
    """All rows; columns that have one value are left out, and named in the caption."""
    found = [{**row, "way": way(row)} for row in sweep.rows]
    shown = [name for name in COLUMNS if name in HEAD or len({row[name] for row in found}) > 1]
    same = [f"{COLUMNS[n]}: {_cell(n, found[0])}" for n in COLUMNS if n not in shown and found[0][n] is not None]
    head = "".join(f'<th scope="col"{_class(name)}><button>{COLUMNS[name]}</button></th>' for name in shown)
    body = "".join(
        f"<tr{' class=ours' if row['subject'] == OURS else ''}>{''.join(_td(name, row) for name in shown)}</tr>"
        for row in found
    )
    caption = f"<caption><span>In all rows: {', '.join(same)}.</span></caption>" if same else ""
    return f'<table class="rows">{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _class(name: str) -> str:
    return " class=w" if name in WORDS else ""


def _td(name: str, row: Row) -> str:
    """A cell, with what it is sorted by where its text has units."""
    text, value = _cell(name, row), row[name]
    key = "" if name in WORDS or value is None or text == str(value) else f" data-v={value:.6g}"
    return f"<td{_class(name)}{key}>{text}</td>"


def _cell(name: str, row: Row) -> str:
    value = row[name]
    if value is None:
        return ""
    if name == "nbytes":
        return human_bytes(value)
    if name == "crossed_bytes":
        return human_bytes(float(f"{value:.3g}"))
    if name.endswith("_ns"):
        return duration(value)
    if name == "bytes_second":
        return rate(value)
    return number(value) if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else escape(str(value))


def machine(results: Results) -> str:
    """Facts, the commit and the options, as lists of definitions."""
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
            label = escape(prefix + name).replace("_", " ")
            yield f"<div><dt>{label}</dt><dd>{escape(_fact(name, value))}</dd></div>"


MEMORY = ("total", "available", "limit", "swap_total", "swap_free", "shm_size", "shm_free", "huge_page_bytes")


def _fact(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if name in MEMORY and isinstance(value, int):
        return binary(value)
    if name.endswith("_share"):
        return f"{value:.1%}"
    kibibytes = re.fullmatch(r"(\d+)K", str(value)) if name.startswith("L") else None  # of a cache
    return binary(int(kibibytes[1]) << 10) if kibibytes else str(value)


def nodes(results: Results, sweep: Sweep) -> str:
    """Which workers and shards were on which node, in the largest setting; "" for one node, and for rows of a cluster
    that the result does not describe, because it was resumed on another."""
    known = {node["id"]: node for node in results.about["nodes"]}
    there = [
        row for row in sweep.rows
        if row["subject"] == OURS and {*row["shard_nodes"], *row["worker_nodes"]} <= set(known)
    ]  # fmt: skip
    if len(known) < 2 or not there:
        return ""
    row = max(there, key=lambda row: (row["workers"], row["shards"]))
    lines = []
    for i, (key, node) in enumerate(known.items()):
        here = [
            ", ".join(str(n) for n, at in enumerate(row[f"{what}_nodes"]) if at == key) or "none"
            for what in ("shard", "worker")
        ]
        cells = "".join(f"<td class=w>{escape(text)}</td>" for text in (node["host"], binary(node["memory"]), *here))
        lines.append(f"<tr><td class=w>{i}</td>{cells}</tr>")
    head = "".join(f'<th scope="col" class=w>{text}</th>' for text in ("node", "host", "memory", "shards", "workers"))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"

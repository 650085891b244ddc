"""Writes bench/results/*.md from bench/results/*.json, and the README's chart and tables from those and from the sweep
in bench/results/sweep.parquet."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from bench.harness.machine import processor
from bench.harness.units import human_bytes, human_time
from bench.peers import ACTOR, PEERS, REFERENCES, RIVALS
from bench.questions import QUESTIONS
from bench.report.chart import draw
from bench.report.ratios import in_turns
from bench.report.select import OURS, Sweep
from bench.report.words import name_of
from bench.sweep.results import Results, load

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results"


def table(lines: list[dict[str, Any]]) -> str:
    rows = ["| size | ratio | measured | value | bar | |", "|---|---|---|---|---|---|"]
    for line in lines:
        sign = "at most" if line["at_most"] else "at least"
        verdict = "met" if line["met"] else "**missed**"
        bar = f"{sign} {line['bar']:.3g} | {verdict}" if line["bar"] else " | "
        rows.append(
            f"| {human_bytes(line['size_bytes'])} | {line['what']} | {line['measured']} | {line['ratio']:.2f} | {bar} |"
        )
    return "\n".join(rows)


def report(name: str, result: dict[str, Any]) -> str:
    """A page on the results of a question."""
    question = QUESTIONS[name]
    parts = [f"# {question.title}", f"Written by `make readme` from a run of `make bench-{name}`."]
    parts.append("\n".join(f"- {name}: {value}" for name, value in result["machine"].items()))
    for section, what in question.sections.items():
        lines = [line for line in result["lines"] if line["section"] == section]
        if lines:
            parts += [f"## {what}", table(lines)]
    return "\n\n".join(parts) + "\n"


def summary(results: Results) -> str:
    """The README's table: what a call costs, and how it stands to the strongest of what one would use instead, to the
    plain Ray actor, and to the same work on memory that nobody shares."""
    sweep = Sweep(results.rows)
    base = sweep.base() | {"transport": "auto"}
    rows = [
        "| size | | fastps | the strongest rival takes | a plain Ray actor takes | the reference takes |",
        "|---|---|---|---|---|---|",
    ]
    cases = [(size, op) for size in sweep.values("nbytes") for op in ("pull", "push")]
    ours = [sweep.where(**base, nbytes=size, op=op, subject=OURS)[0] for size, op in cases]
    strongest = [rival for row in ours if (rival := sweep.rival(row)) is not None]
    names = list(dict.fromkeys(name_of(rival["subject"]) for rival in strongest))
    for row, rival in zip(ours, strongest, strict=True):
        peers = {other["subject"]: other for other in sweep.where(**base, nbytes=row["nbytes"], op=row["op"])}
        beside = [str(in_turns(peers[name], row)) for name in (rival["subject"], ACTOR, REFERENCES[row["op"]])]
        if len(names) > 1:
            beside[0] += f", {name_of(rival['subject'])}"
        cells = [human_bytes(row["nbytes"]), row["op"], human_time(row["median_ns"] / 1e9), *beside]
        rows.append(f"| {' | '.join(cells)} |")
    lacks = {name_of(rival["subject"]): PEERS[rival["subject"]].lacks for rival in strongest}
    machine = results.about["machine"]
    versions, where = machine["versions"], processor(machine)
    setting = (
        f"Measured on {where} (Python {versions['python']}, numpy {versions['numpy']}, Ray {versions['ray']}): one "
        f"worker, one shard, rule {base['rule']}; medians. The three columns on the right are multiples of fastps's "
        f"time, so less than 1 is faster than fastps; in brackets the 95 % interval, from {len(ours[0]['turns_ns'])} "
        f"repetitions. The strongest rival is the quickest of these: {', '.join(map(name_of, RIVALS))}"
        f"{f'; in every row it is the {names[0]}' if len(names) == 1 else ''}. The reference is the same work by one "
        "process on memory that nobody shares: memcpy for a pull, numpy's addition in place for a push."
    )
    picture = "![bytes a second against size](bench/results/throughput.svg)"
    lacking = [f"What the {name} lacks: {lack}." for name, lack in lacks.items()]
    return "\n".join([picture, "", setting, "", *rows, "", *lacking])


def table_summary(tables: dict[str, Any], recommend: dict[str, Any], sweep: Results) -> str:
    """The README's sentences about tables."""
    rows = {line["what"]: line for line in tables["lines"] if line["section"] == "rows"}
    cells = ["| | uniform | Zipf |", "|---|---|---|"]
    for m in ("4,096", "65,536"):
        for what, other in (("pull / np.take", "np.take"), ("push SGD / index_add_", "torch's index_add_")):
            pair = [rows[f"{kind} {m}: {what}"] for kind in ("uniform", "zipf")]
            both = [f"{line['measured'].split(',')[0]}, {line['ratio']:.2f} of {other}'s time" for line in pair]
            cells.append(f"| {what.split()[0]} of {m} rows | {both[0]} | {both[1]} |")
    errors = [line for line in recommend["lines"] if line["section"] == "error"]
    times = [line for line in recommend["lines"] if line["section"] == "time" and "best" in line["what"]]
    found = [re.match(r"([\d.]+), SVD ([\d.]+)", line["measured"]) for line in errors]
    ours, theirs = (sum(float(m[i]) for m in found if m) / len(found) for i in (1, 2))
    ratio = sorted(line["ratio"] for line in times)[len(times) // 2]
    setting = (
        f"Measured on {_machine(tables)}{_elsewhere(tables, sweep)}: a million rows of 64 floats, one thread, fresh "
        "keys in every batch; medians. np.take and index_add_ are given row numbers, so they look up no keys."
    )
    recommended = (
        f"On {_machine(recommend)}: on test ratings the recommender has an RMSE of {ours:.4f} and the best of seven "
        f"SVDs of scikit-surprise one of {theirs:.4f} (means over {len(found)} splits, of the worst of five runs); "
        f"training takes {ratio:.2f} of the SVD's time."
    )
    return "\n".join([setting, "", *cells, "", recommended])


def _elsewhere(result: dict[str, Any], sweep: Results) -> str:
    """A warning where a result is of another machine than the figures above it."""
    same = result["machine"]["processor"] == processor(sweep.about["machine"])
    return "" if same else ", another machine than that of the figures above, with which these do not compare"


def _machine(result: dict[str, Any]) -> str:
    return f"{result['machine']['processor']} ({result['machine']['versions']})"


def write() -> None:
    results = {name: json.loads((RESULTS / f"{name}.json").read_text()) for name in QUESTIONS}
    for name, result in results.items():
        (RESULTS / f"{name}.md").write_text(report(name, result))
    sweep = load(RESULTS / "sweep.parquet")
    base = Sweep(sweep.rows).base() | {"transport": "auto"}
    draw(Sweep(sweep.rows).where(**base), RESULTS / "throughput.svg")
    fill("figures", summary(sweep))
    fill("tables", table_summary(results["tables"], results["recommend"], sweep))


def fill(name: str, text: str) -> None:
    """Puts a text between two marks of the README."""
    readme = ROOT / "README.md"
    pattern = re.compile(rf"(<!-- {name}: .*? -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    readme.write_text(pattern.sub(lambda m: m[1] + text + "\n" + m[2], readme.read_text()))

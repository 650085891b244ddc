"""Writes bench/results/*.md from bench/results/*.json, and the README's chart and tables from those and from the sweep
in bench/results/sweep.parquet."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from bench.harness.times import human_bytes, human_time
from bench.peers import ACTOR, PEERS, REFERENCES, RIVALS
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


DENSE = {
    "single": "One process, one shard, beside memcpy and numpy in place",
    "actor": "Beside a plain Ray actor on the same node",
    "scaling": "Workers that push and pull by turns on one shard",
    "attach": "A fresh process: from a handle's bytes to its first pull",
    "remote": "A worker on another raylet, beside the plain actor there",
}
RULES = {
    "rules": "A push of every rule, float32, one process and thread",
    "attach": "A fresh process: from a handle's bytes to its first push with Adam",
}
CONSISTENCY = {
    "rounds": "A round of two workers: a gradient of each, one update; beside an actor used synchronously",
    "view": "A view of a round's version",
    "straggler": "Rounds a second with one worker ten times slower, each step computing for 3 ms",
    "ssp": "Bounded staleness by the checker, three workers of different speed on one node",
    "remote": "The same on three raylets of one machine, a worker and a shard on each",
}
TABLES = {
    "rows": "1,000,000 rows of 64, fresh keys in every batch; numpy and torch know the numbers of the rows",
    "large": "10,000,000 rows of 64",
    "dims": "By the length of a row",
    "births": "Births",
    "dict": "Beside a Python dict of arrays",
    "growth": "Growth with two workers that push all the while",
}
RECOMMEND = {
    "error": "Test RMSE beside the best SVD of scikit-surprise, the worst of five runs",
    "time": "Training time beside it, and beside the quickest SVD whose error is near",
    "tasks": "With the start of its tasks",
}


def report(title: str, verb: str, sections: dict[str, str], result: dict[str, Any]) -> str:
    parts = [f"# {title}", f"Written by `make readme` from a run of `make {verb}`."]
    parts.append("\n".join(f"- {name}: {value}" for name, value in result["machine"].items()))
    for section, what in sections.items():
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
    versions, processor = machine["versions"], machine["processor"]
    where = f"{processor['model']}, {processor['cores']} cores"
    setting = (
        f"Measured on {where} (Python {versions['python']}, numpy {versions['numpy']}, Ray {versions['ray']}): one "
        f"worker, one shard, rule {base['rule']}; medians. The three columns on the right are multiples of fastps's "
        f"time, so less than 1 is faster than fastps; in brackets the 95 % interval, from {len(ours[0]['turns_ns'])} "
        f"turns. The strongest rival is the quickest of these: {', '.join(map(name_of, RIVALS))}"
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
        "keys in every batch; medians, of which the result keeps no intervals. np.take and index_add_ know the numbers "
        "of the rows."
    )
    recommended = (
        f"On {_machine(recommend)}: the recommender's error on the test ratings is {ours:.4f} (RMSE, the worst of five "
        f"runs, the mean of {len(found)} splits), that of the best of seven SVDs of scikit-surprise {theirs:.4f}; its "
        f"training takes {ratio:.2f} of the time."
    )
    return "\n".join([setting, "", *cells, "", recommended])


def _elsewhere(result: dict[str, Any], sweep: Results) -> str:
    """A warning where a result is of another machine than the figures above it."""
    processor = sweep.about["machine"]["processor"]
    same = result["machine"]["processor"] == f"{processor['model']}, {processor['cores']} cores"
    return "" if same else ", another machine than that of the figures above, with which these do not compare"


def _machine(result: dict[str, Any]) -> str:
    return f"{result['machine']['processor']} ({result['machine']['versions']})"


def main() -> None:
    result = json.loads((RESULTS / "dense.json").read_text())
    (RESULTS / "dense.md").write_text(report("Dense operations", "bench-dense", DENSE, result))
    rules = json.loads((RESULTS / "rules.json").read_text())
    (RESULTS / "rules.md").write_text(report("Update rules", "bench-rules", RULES, rules))
    consistency = json.loads((RESULTS / "consistency.json").read_text())
    (RESULTS / "consistency.md").write_text(report("Consistency", "bench-consistency", CONSISTENCY, consistency))
    tables = json.loads((RESULTS / "tables.json").read_text())
    (RESULTS / "tables.md").write_text(report("Tables", "bench-tables", TABLES, tables))
    recommend = json.loads((RESULTS / "recommend.json").read_text())
    (RESULTS / "recommend.md").write_text(report("Recommender", "bench-recommend", RECOMMEND, recommend))
    sweep = load(RESULTS / "sweep.parquet")
    base = Sweep(sweep.rows).base() | {"transport": "auto"}
    draw(Sweep(sweep.rows).where(**base), RESULTS / "throughput.svg")
    fill("figures", summary(sweep))
    fill("tables", table_summary(tables, recommend, sweep))


def fill(name: str, text: str) -> None:
    """Puts a text between two marks of the README."""
    readme = ROOT / "README.md"
    pattern = re.compile(rf"(<!-- {name}: .*? -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    readme.write_text(pattern.sub(lambda m: m[1] + text + "\n" + m[2], readme.read_text()))


if __name__ == "__main__":
    main()

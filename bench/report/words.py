"""The findings of a sweep as sentences, which follow from its rows; numbers with their units. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.comparison.statistics import median_interval
from bench.harness.units import human_bytes, human_time
from bench.peers import ACTOR, MEMORY, PEERS, REFERENCES
from bench.report.ratios import Ratio, apart, in_turns, number
from bench.report.select import OURS, Curve, Row, Sweep, runs, way

NAMES = {
    "memcpy": "memcpy", "in_place": "the rule in place", "triad": "triad of STREAM",
    "shared_array": "shared array with a lock", "ray_actor": "plain Ray actor", "torch_rpc": "torch.distributed.rpc",
    "gloo": "gloo all-reduce", OURS: OURS,
}  # fmt: skip
PLURALS = {"pull": "pulls", "push": "pushes", "push_pull": "push_pulls"}
WAYS = {"shm": "in shared memory", "ray": "carried by Ray", "mixed": "partly carried by Ray"}
NEAR = 1.1  # times the reference's time, which counts as being there
GROWTH = 1.05  # times the throughput, which counts as more
BEYOND_CACHES = 1_000_000  # bytes, from which on the triad says something


def duration(ns: float) -> str:
    return human_time(ns / 1e9).replace("us", "µs")


def rate(count: float) -> str:
    """Bytes a second."""
    for unit, factor in (("GB/s", 1e9), ("MB/s", 1e6), ("KB/s", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.3g} B/s"


def count(what: str, n: int) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def name_of(subject: str) -> str:
    return NAMES.get(subject, subject.replace("_", " "))


def setting(base: dict[str, Any]) -> str:
    """In words: "1 worker, 1 shard, add"."""
    words = [count("worker", base["workers"]), count("shard", base["shards"]), base["rule"]]
    return ", ".join(words + ([] if base["placement"] == "local" else [base["placement"]]))


def setting_and_way(sweep: Sweep) -> str:
    """That of `base`, and how its workers reach their shards where that is the same in all."""
    ways = {over for op in sweep.values("op") for over in sweep.ways(op)}
    return setting(sweep.base()) + (f", {WAYS[ways.pop()]}" if len(ways) == 1 else "")


def variant(columns: dict[str, Any], varied: Sequence[str]) -> str:
    """What tells a setting from the others of a sweep: "push, 2 shards, adam"."""
    words = [columns["op"]]
    for name in varied:
        if name in columns and name != "op":
            value = columns[name]
            words.append(count(name.removesuffix("s"), value) if name in ("workers", "shards") else str(value))
    return ", ".join(words)


def findings(sweep: Sweep) -> list[str]:
    """The most important first: how fastps compares with the strongest alternative."""
    told = [*_alone(sweep), *_rivals(sweep), *_actor(sweep), *_reference(sweep), *_ways(sweep)]
    return [*told, *_scaling(sweep), *_bandwidth(sweep)]


def _at(nbytes: int) -> str:
    return human_bytes(nbytes)


def _ranges(sizes: Sequence[int], chosen: Sequence[int]) -> str:
    """ "80 B and 80 KB to 8 MB"."""
    parts = [_at(low) if low == high else f"{_at(low)} to {_at(high)}" for low, high in runs(sizes, chosen)]
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _alone(sweep: Sweep) -> Iterator[str]:
    """How long it takes, where no peer says more."""
    for op in sweep.values("op"):
        ways = sweep.ways(op)
        for over, rows in ways.items():
            if not any(row["nbytes"] in _references(sweep, op) or sweep.rival(row) for row in rows):
                first, *others = (f"{_duration(row)} ({_at(row['nbytes'])})" for row in rows)
                to = f" to {others[-1]}" if others else ""
                beside = f" {WAYS.get(over, over)}" if len(ways) > 1 else ""
                yield f"A {op}{beside} takes {first}{to}."


def _references(sweep: Sweep, op: str) -> dict[int, Row]:
    return {row["nbytes"]: row for row in sweep.peers(op).get(REFERENCES[op], [])}


def _duration(row: Row) -> str:
    _, low, high = median_interval(row["turns_ns"])
    return duration(row["median_ns"]) + (f" [{duration(low)}, {duration(high)}]" if 0 < low <= high < math.inf else "")


def _rivals(sweep: Sweep) -> Iterator[str]:
    """How it compares with the strongest rival, and what that one lacks."""
    named: dict[str, None] = {}
    for op in sweep.values("op"):
        ways = sweep.ways(op)
        for over, rows in ways.items():
            found: dict[str, dict[int, Ratio]] = {}
            for row in rows:
                rival = sweep.rival(row)
                if rival is not None:
                    found.setdefault(rival["subject"], {})[row["nbytes"]] = in_turns(rival, row)
            sizes = sorted(size for ratios in found.values() for size in ratios)
            for name, ratios in found.items():
                named[name] = None
                where = f" at {_ranges(sizes, list(ratios))}" if len(found) > 1 else ""
                beside = f"; fastps {WAYS[over]}" if len(ways) > 1 else ""
                yield (
                    f"The strongest rival of a {op}{where} is the {NAMES[name]}, which takes {_ends_of(ratios)} times "
                    f"as long{beside}."
                )
    for name in named:
        yield f"What the {NAMES[name]} lacks: {PEERS[name].lacks}."


def _ends_of(ratios: Mapping[int, Ratio]) -> str:
    """The least and the largest, with their sizes: "0.77 [0.76, 0.78] (800 KB) to 1.66 [1.61, 1.70] (80 MB)"."""
    ends = sorted(ratios, key=lambda size: ratios[size].value)
    return " to ".join(f"{ratios[size]} ({_at(size)})" for size in dict.fromkeys((ends[0], ends[-1])))


def _actor(sweep: Sweep) -> Iterator[str]:
    """How it compares with what it replaces, where that is not the strongest rival anyway: at the smallest size, and at
    the largest."""
    several = any(len(sweep.ways(op)) > 1 for op in sweep.values("op"))
    for over in WAYS:
        parts: list[str] = []
        before: list[int] = []
        for op in sweep.values("op"):
            actors = {row["nbytes"]: row for row in sweep.peers(op).get(ACTOR, [])}
            rows = [row for row in sweep.ways(op).get(over, []) if row["nbytes"] in actors]
            if all((sweep.rival(row) or {}).get("subject") == ACTOR for row in rows):
                continue
            ends = [row["nbytes"] for row in rows]
            ratios = [str(in_turns(actors[row["nbytes"]], row)) for row in rows]
            if ends == before:
                parts.append(f"for a {op} {' and '.join(ratios[:1] + ratios[1:][-1:])} times")
            else:
                last = f", {ratios[-1]} times for one of {_at(ends[-1])}" if len(rows) > 1 else ""
                parts.append(f"{ratios[0]} times as long for a {op} of {_at(ends[0])}{last}")
            before = ends
        if parts:
            beside = f"; fastps {WAYS[over]}" if several else ""
            yield f"The plain Ray actor takes {'; '.join(parts)}{beside}."


def _reference(sweep: Sweep) -> Iterator[str]:
    """How it compares with the same work on memory that is not shared, by the fastest transport."""
    for op in sweep.values("op"):
        references = _references(sweep, op)
        for rows in list(sweep.ways(op).values())[:1]:
            ratios = {
                row["nbytes"]: in_turns(row, references[row["nbytes"]]) for row in rows if row["nbytes"] in references
            }
            if not ratios:
                continue
            name, sizes = NAMES[REFERENCES[op]], list(ratios)
            near = {size: ratio for size, ratio in ratios.items() if ratio.value <= NEAR}
            worst = max(sizes, key=lambda size: ratios[size].value)
            if near and len(near) < len(sizes):
                most = max(near.values(), key=lambda ratio: ratio.value)
                yield (
                    f"A {op} takes at most {most} times as long as {name} at {_ranges(sizes, list(near))}, "
                    f"elsewhere up to {ratios[worst]} times ({_at(worst)})."
                )
            elif near and len(sizes) > 1:
                yield f"A {op} takes at most {ratios[worst]} times as long as {name}, at every size."
            else:
                yield f"A {op} takes {_ends_of(ratios)} times as long as {name}."


def _ways(sweep: Sweep) -> Iterator[str]:
    for op in sweep.values("op"):
        ways = sweep.ways(op)
        if {"shm", "ray"} <= set(ways):
            shm = {row["nbytes"]: row for row in ways["shm"]}
            ratios = {
                row["nbytes"]: apart(row["turns_ns"], shm[row["nbytes"]]["turns_ns"])
                for row in ways["ray"] if row["nbytes"] in shm
            }  # fmt: skip
            if ratios:
                yield f"Carried by Ray, a {op} takes {_ends_of(ratios)} times as long as in shared memory."


def _scaling(sweep: Sweep) -> Iterator[str]:
    """Over workers with the fewest shards, over shards with the most workers."""
    told = False
    for column, what, base in (("workers", "worker", sweep.base()), ("shards", "shard", sweep.crowd())):
        fixed = {name: value for name, value in base.items() if name != column}
        fixed["transport"] = sweep.values("transport")[0]
        curves = [curve for curve in sweep.curves(column) if fixed.items() <= curve.setting.items()]
        if not curves:
            continue
        told = True
        ends = max((curve.rows[-1][column], -curve.rows[0][column]) for curve in curves)
        whole = [curve for curve in curves if (curve.rows[-1][column], -curve.rows[0][column]) == ends]
        best, worst = max(whole, key=Curve.gain), min(whole, key=Curve.gain)
        most, few = count(what, ends[0]), count(what, -ends[1])
        crowd = f"With {count('worker', base['workers'])}, " if column == "shards" else ""
        text = f"{crowd}{most} have {_gain(best)} times the throughput of {few}"
        text += f"{' at best' if worst is not best else ''} ({best.setting['op']} of {_at(best.nbytes)})"
        if worst is not best:
            text += f", {_gain(worst)} times at worst ({worst.setting['op']} of {_at(worst.nbytes)})"
        yield f"{text}. {_ends(curves, column, what)}".strip()
    if told and not all(row["turns_ops_second"] for row in sweep.where(subject=OURS)):
        yield "Throughputs have no intervals: the result is of an older fastps, which did not keep the rates of turns."


def _gain(curve: Curve) -> str:
    """With its interval, where the rates of turns are known."""
    first, last = curve.rows[0], curve.rows[-1]
    if not (first["turns_ops_second"] and last["turns_ops_second"]):
        return number(curve.gain())
    return str(apart(last["turns_ops_second"], first["turns_ops_second"]))


def _ends(curves: Sequence[Curve], column: str, what: str) -> str:
    """From where on more of them do not help."""
    found: dict[int, dict[str, list[int]]] = {}
    for curve in curves:
        reached = [row["bytes_second"] for row in curve.rows]
        end = next(i for i, here in enumerate(reached) if max(reached[i:]) < GROWTH * here)
        if end + 1 < len(reached):
            found.setdefault(curve.rows[end][column], {}).setdefault(curve.setting["op"], []).append(curve.nbytes)
    sizes = sorted({curve.nbytes for curve in curves})
    sentences = []
    for n, ops in sorted(found.items()):
        everywhere = sum(map(len, ops.values())) == len(curves)
        told = ", ".join(f"{PLURALS.get(op, op)} of {_ranges(sizes, chosen)}" for op, chosen in ops.items())
        sentences.append(
            f"Beyond {count(what, n)}, more add less than {100 * (GROWTH - 1):.0f} % "
            f"{'anywhere' if everywhere else f'to {told}'}."
        )
    return " ".join(sentences)


def _bandwidth(sweep: Sweep) -> Iterator[str]:
    base = {**sweep.base(), "subject": OURS, "nbytes": sweep.values("nbytes")[-1]}
    rows: list[Row] = [r for r in sweep.where(**base) if r["of_bandwidth"] is not None and way(r) == "shm"]
    if rows and base["nbytes"] >= BEYOND_CACHES:
        first, *others = (f"a {row['op']}|{_of_triad(sweep, row)}" for row in rows)
        told = first.replace("|", " moves its bytes at ") + " of the speed of the triad of STREAM"
        told += "".join(f", {other.replace('|', ' at ')}" for other in others)
        yield f"With {_at(base['nbytes'])}, each array read or written once, {told}."


def _of_triad(sweep: Sweep, row: Row) -> Ratio:
    triad = next(other for other in sweep.peers(row["op"])[MEMORY] if other["nbytes"] == row["nbytes"])
    moved = row["of_bandwidth"] * row["median_ns"] / triad["median_ns"]  # the bytes of both, beside each other
    return in_turns(triad, row).times(moved)

"""What a sweep says, in sentences that follow from its rows; numbers with their units. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bench.peers import ROOFS
from bench.report.select import OURS, Curve, Row, Sweep, runs, way
from bench.timing import human_bytes, human_time

NAMES = {
    "memcpy": "memcpy", "numpy_in_place": "numpy in place", "triad": "triad of STREAM",
    "shared_array": "shared array with a lock", "ray_actor": "plain Ray actor", "torch_rpc": "torch.distributed.rpc",
    "gloo": "gloo all-reduce", OURS: OURS,
}  # fmt: skip
PLURALS = {"pull": "pulls", "push": "pushes", "push_pull": "push_pulls"}
WAYS = {"shm": "in shared memory", "ray": "carried by Ray", "mixed": "partly carried by Ray"}
NEAR = 1.1  # times the roof's time, which counts as being there
GROWTH = 1.05  # times the throughput, which counts as more
BEYOND_CACHES = 1_000_000  # bytes, from which on the triad says something


def number(value: float) -> str:
    """With as many digits as tell something."""
    if value >= 10:
        return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.1 or value == 0 else f"{value:.2g}"


def span(values: Sequence[float]) -> str:
    low, high = (number(value) for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


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
    """What is to be known first."""
    return [*_alone(sweep), *_roof(sweep), *_floor(sweep), *_ways(sweep), *_scaling(sweep), *_bandwidth(sweep)]


def _at(nbytes: int) -> str:
    return human_bytes(nbytes)


def _ranges(sizes: Sequence[int], chosen: Sequence[int]) -> str:
    """ "80 B and 80 KB to 8 MB"."""
    parts = [_at(low) if low == high else f"{_at(low)} to {_at(high)}" for low, high in runs(sizes, chosen)]
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _alone(sweep: Sweep) -> Iterator[str]:
    """How long it takes, where neither roof nor floor says more."""
    for op in sweep.values("op"):
        ways = sweep.ways(op)
        for over, rows in ways.items():
            if all(row["to_roof"] is None and row["to_floor"] is None for row in rows):
                first, *others = (f"{duration(row['median_ns'])} ({_at(row['nbytes'])})" for row in rows)
                to = f" to {others[-1]}" if others else ""
                beside = f" {WAYS.get(over, over)}" if len(ways) > 1 else ""
                yield f"A {op}{beside} takes {first}{to}."


def _roof(sweep: Sweep) -> Iterator[str]:
    """How near to the machine's limit, by the best way that there is."""
    rule = sweep.base()["rule"]
    for op in sweep.values("op"):
        for rows in list(sweep.ways(op).values())[:1]:
            ratios = {row["nbytes"]: row["to_roof"] for row in rows if row["to_roof"] is not None}
            if not ratios:
                continue
            longer = f" (as much longer as {rule} touches more memory)" if rule == "adam" and op != "pull" else ""
            roof, sizes = f"{NAMES[ROOFS[op]]}{longer}", list(ratios)
            near = [size for size in sizes if ratios[size] <= NEAR]
            worst, best = max(sizes, key=ratios.__getitem__), min(sizes, key=ratios.__getitem__)
            if len(sizes) == 1:
                yield f"A {op} of {_at(worst)} takes {number(ratios[worst])} times as long as {roof}."
            elif len(near) == len(sizes):
                yield f"A {op} takes at most {number(ratios[worst])} times as long as {roof}, at every size."
            elif near:
                most = max(ratios[size] for size in near)
                yield (
                    f"A {op} takes at most {number(most)} times as long as {roof} at {_ranges(sizes, near)}, "
                    f"elsewhere up to {number(ratios[worst])} times ({_at(worst)})."
                )
            else:
                yield (
                    f"A {op} takes {number(ratios[best])} ({_at(best)}) to {number(ratios[worst])} ({_at(worst)}) "
                    f"times as long as {roof}."
                )


def _floor(sweep: Sweep) -> Iterator[str]:
    """How far from what one would otherwise write: at the smallest size, and at the largest."""
    several = any(len(sweep.ways(op)) > 1 for op in sweep.values("op"))
    for over in WAYS:
        parts: list[str] = []
        before: list[int] = []
        for op in sweep.values("op"):
            rows = [row for row in sweep.ways(op).get(over, []) if row["to_floor"] is not None]
            ends, ratios = [row["nbytes"] for row in rows], [number(row["to_floor"]) for row in rows]
            if not rows:
                continue
            if ends == before:
                parts.append(f"for a {op} {' and '.join(ratios[:1] + ratios[1:][-1:])} times")
            else:
                last = f", {ratios[-1]} times for one of {_at(ends[-1])}" if len(rows) > 1 else ""
                parts.append(f"{ratios[0]} times as long for a {op} of {_at(ends[0])}{last}")
            before = ends
        if parts:
            beside = f"; fastps {WAYS[over]}" if several else ""
            yield f"The plain Ray actor takes {'; '.join(parts)}{beside}."


def _ways(sweep: Sweep) -> Iterator[str]:
    for op in sweep.values("op"):
        ways = sweep.ways(op)
        if {"shm", "ray"} <= set(ways):
            shm = {row["nbytes"]: row["median_ns"] for row in ways["shm"]}
            ratios = [row["median_ns"] / shm[row["nbytes"]] for row in ways["ray"] if row["nbytes"] in shm]
            if ratios:
                yield f"Carried by Ray, a {op} takes {span(ratios)} times as long as in shared memory."


def _scaling(sweep: Sweep) -> Iterator[str]:
    """Over workers with the fewest shards, over shards with the most workers."""
    for column, what, base in (("workers", "worker", sweep.base()), ("shards", "shard", sweep.crowd())):
        fixed = {name: value for name, value in base.items() if name != column}
        fixed["transport"] = sweep.values("transport")[0]
        curves = [curve for curve in sweep.curves(column) if fixed.items() <= curve.setting.items()]
        if not curves:
            continue
        ends = max((curve.rows[-1][column], -curve.rows[0][column]) for curve in curves)
        whole = [curve for curve in curves if (curve.rows[-1][column], -curve.rows[0][column]) == ends]
        best, worst = max(whole, key=Curve.gain), min(whole, key=Curve.gain)
        most, few = count(what, ends[0]), count(what, -ends[1])
        crowd = f"With {count('worker', base['workers'])}, " if column == "shards" else ""
        text = f"{crowd}{most} have {number(best.gain())} times the throughput of {few}"
        text += f"{' at best' if worst is not best else ''} ({best.setting['op']} of {_at(best.nbytes)})"
        if worst is not best:
            text += f", {number(worst.gain())} times at worst ({worst.setting['op']} of {_at(worst.nbytes)})"
        yield f"{text}. {_ends(curves, column, what)}".strip()


def _ends(curves: Sequence[Curve], column: str, what: str) -> str:
    """From where on more of them bring nothing."""
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
        first, *others = (f"a {row['op']}|{number(row['of_bandwidth'])}" for row in rows)
        told = first.replace("|", " moves its bytes at ") + " of the speed of the triad of STREAM"
        told += "".join(f", {other.replace('|', ' at ')}" for other in others)
        yield f"With {_at(base['nbytes'])}, each array read or written once, {told}."

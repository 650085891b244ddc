"""What a sweep says, in sentences that follow from its rows. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bench.peers import ROOFS
from bench.report.select import OURS, Row, Sweep, way
from bench.timing import human_bytes

NAMES = {
    "memcpy": "memcpy", "numpy_in_place": "numpy in place", "triad": "triad of STREAM",
    "shared_array": "shared array with a lock", "ray_actor": "plain Ray actor", "torch_rpc": "torch.distributed.rpc",
    "gloo": "gloo all-reduce", OURS: OURS,
}  # fmt: skip
OPS = {"pull": "A pull", "push": "A push", "push_pull": "A push_pull"}


def number(value: float) -> str:
    """With as many digits as tell something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def span(values: Sequence[float]) -> str:
    low, high = (number(value) for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def rate(count: float) -> str:
    """Bytes a second."""
    for unit, factor in (("GB/s", 1e9), ("MB/s", 1e6), ("KB/s", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.3g} B/s"


def count(what: str, n: int) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def setting(base: dict[str, Any]) -> str:
    """In words: "1 worker, 1 shard, add"."""
    words = [count("worker", base["workers"]), count("shard", base["shards"]), base["rule"]]
    return ", ".join(words + ([] if base["placement"] == "local" else [base["placement"]]))


def findings(sweep: Sweep) -> list[str]:
    """What is to be known first."""
    return [*_limits(sweep), *_ways(sweep), *_scaling(sweep), *_bandwidth(sweep)]


def _sizes(rows: Sequence[Row]) -> str:
    low, high = human_bytes(rows[0]["nbytes"]), human_bytes(rows[-1]["nbytes"])
    return f"at {low}" if low == high else f"from {low} to {high}"


def _limits(sweep: Sweep) -> Iterator[str]:
    base = sweep.base()
    for op in sweep.values("op"):
        for over, rows in sweep.ways(op).items():
            roofs = [row["to_roof"] for row in rows if row["to_roof"] is not None]
            floors = [row["to_floor"] for row in rows if row["to_floor"] is not None]
            where = f"{_sizes(rows)} ({setting(base)}, {over})"
            beside = f", a plain Ray actor {span(floors)} times as long as that" if floors else ""
            if roofs:
                yield f"{OPS[op]} takes {span(roofs)} times as long as {NAMES[ROOFS[op]]}{beside}, {where}."
            elif floors:
                yield f"A plain Ray actor takes {span(floors)} times as long as {OPS[op].lower()}, {where}."


def _ways(sweep: Sweep) -> Iterator[str]:
    for op in sweep.values("op"):
        ways = sweep.ways(op)
        if {"shm", "ray"} <= set(ways):
            shm = {row["nbytes"]: row["median_ns"] for row in ways["shm"]}
            ratios = [row["median_ns"] / shm[row["nbytes"]] for row in ways["ray"] if row["nbytes"] in shm]
            yield f"Carried by Ray, {OPS[op].lower()} takes {span(ratios)} times as long as in shared memory."


def _scaling(sweep: Sweep) -> Iterator[str]:
    for column, what in (("workers", "worker"), ("shards", "shard")):
        values = sweep.values(column)
        one, most = values[0], values[-1]
        if one == most:
            continue
        ratios = [
            (more["bytes_second"] / few["bytes_second"], f"{op} of {human_bytes(few['nbytes'])}")
            for op in sweep.values("op")
            for few, more in pairs(sweep, column, one, most, op)
        ]
        if ratios:
            (worst, at_worst), (best, at_best) = min(ratios), max(ratios)
            yield (
                f"{count(what, most)} have {number(worst)} ({at_worst}) to {number(best)} ({at_best}) times the "
                f"throughput of {count(what, one)}."
            )


def pairs(sweep: Sweep, column: str, one: Any, other: Any, op: str) -> list[tuple[Row, Row]]:
    """Rows of fastps that differ in a column only, where the other columns are those of `base`, by size."""
    base = {**sweep.base(), "op": op, "subject": OURS, "transport": sweep.values("transport")[0]}
    found = {row["nbytes"]: row for row in sweep.where(**{**base, column: other})}
    return [(row, found[row["nbytes"]]) for row in sweep.where(**{**base, column: one}) if row["nbytes"] in found]


def _bandwidth(sweep: Sweep) -> Iterator[str]:
    base = {**sweep.base(), "subject": OURS, "nbytes": sweep.values("nbytes")[-1]}
    shares = [r["of_bandwidth"] for r in sweep.where(**base) if r["of_bandwidth"] is not None and way(r) == "shm"]
    if shares:
        yield (
            f"Operations on {human_bytes(base['nbytes'])} move their bytes at {span(shares)} of the speed at which the "
            "triad of STREAM moves its own."
        )

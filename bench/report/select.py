"""Selects rows of a sweep. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bench.peers import MEMORY, PEERS, RIVALS, comparable
from bench.sweep.grid import OPS
from bench.sweep.results import SETTING

Row = dict[str, Any]
OURS = "fastps"
PRIVATE = tuple(name for name, peer in PEERS.items() if peer.private)  # without synchronisation


@dataclass(frozen=True)
class Curve:
    """Rows of one operation and one size that differ in one column only, by it.

    Attributes
    ----------
    setting : of the other columns, and `op`, without the size
    nbytes : the size
    rows : two or more
    """

    setting: dict[str, Any]
    nbytes: int
    rows: list[Row]

    def gain(self) -> float:
        """Throughput at the end beside that of the beginning."""
        return float(self.rows[-1]["bytes_second"] / self.rows[0]["bytes_second"])


@dataclass(frozen=True)
class Sweep:
    """The rows of a result.

    Attributes
    ----------
    rows : as `bench.sweep.results` loads them; at least one of fastps
    """

    rows: Sequence[Row]

    def values(self, column: str) -> list[Any]:
        """What occurs in a column of fastps's rows: in order, operations in theirs."""
        found = {row[column] for row in self.rows if row["subject"] == OURS}
        known = [op for op in OPS if op in found] if column == "op" else []
        return known + sorted(found - set(known))

    def subjects(self) -> list[str]:
        return list(dict.fromkeys(row["subject"] for row in self.rows))

    def where(self, **columns: Any) -> list[Row]:
        """Rows that have these values, by size."""
        found = [row for row in self.rows if all(row[name] == value for name, value in columns.items())]
        return sorted(found, key=lambda row: row["nbytes"])

    def base(self) -> dict[str, Any]:
        """The setting with the fewest workers, then shards, without its size and its transport."""
        names = [name for name in SETTING if name not in ("nbytes", "transport")]
        rows = [row for row in self.rows if row["subject"] == OURS]
        first = min(rows, key=lambda row: (row["workers"], row["shards"], row["rule"] != "add"))
        return {name: first[name] for name in names}

    def crowd(self) -> dict[str, Any]:
        """The same with the most workers that were measured so."""
        base = self.base()
        others = {name: value for name, value in base.items() if name != "workers"}
        return {**base, "workers": max(row["workers"] for row in self.where(**others, subject=OURS))}

    def ways(self, op: str, setting: dict[str, Any] | None = None) -> dict[str, list[Row]]:
        """Rows of fastps in a setting (that of `base`), by size, by the way that workers reach the shards: of two
        transports that come to the same, those of the first."""
        found: dict[str, list[Row]] = {}
        for transport in self.values("transport"):
            rows = self.where(**(setting or self.base()), op=op, subject=OURS, transport=transport)
            if rows:
                found.setdefault(way(rows[0]), rows)
        return found

    def peers(self, op: str, setting: dict[str, Any] | None = None) -> dict[str, list[Row]]:
        """Rows of the others there that are of the same work, and of the triad, by size; they are measured beside each
        transport, and once is enough."""
        found: dict[str, dict[int, Row]] = {}
        for transport in self.values("transport"):
            for row in self.where(**(setting or self.base()), op=op, transport=transport):
                if row["subject"] != OURS and (comparable(row) or row["subject"] == MEMORY):
                    found.setdefault(row["subject"], {}).setdefault(row["nbytes"], row)
        return {name: [rows[size] for size in sorted(rows)] for name, rows in found.items()}

    def rival(self, row: Row) -> Row | None:
        """Of a row of fastps the strongest rival: of what one would use instead, the row of the least median that was
        measured in the same turns and does the same work."""
        setting = {name: row[name] for name in (*SETTING, "op")}
        rivals = [other for other in self.where(**setting) if other["subject"] in RIVALS and comparable(other)]
        return min(rivals, key=lambda other: other["median_ns"], default=None)

    def curves(self, column: str) -> list[Curve]:
        """Of fastps, over a column, in all settings that were measured with more than one value of it: operations in
        their order, and of each the most workers and the fewest shards first."""
        others = [name for name in (*SETTING, "op") if name not in ("nbytes", column)]
        groups: dict[tuple[Any, ...], dict[Any, Row]] = {}
        for row in self.where(subject=OURS):
            groups.setdefault((row["nbytes"], *(row[name] for name in others)), {})[row[column]] = row
        curves = [
            Curve(dict(zip(others, key[1:], strict=True)), key[0], [rows[value] for value in sorted(rows)])
            for key, rows in groups.items()
            if len(rows) > 1
        ]
        ops = self.values("op")
        return sorted(curves, key=lambda curve: _place(curve, ops))

    def varied(self, names: Sequence[str]) -> list[str]:
        """Those of these columns in which fastps has more than one value."""
        return [name for name in names if len(self.values(name)) > 1]


def _place(curve: Curve, ops: list[str]) -> tuple[Any, ...]:
    at = curve.setting
    return (
        ops.index(at["op"]), at["rule"] != "add", at["rule"], at["transport"], at["placement"],
        -at.get("workers", 0), at.get("shards", 0), curve.nbytes,
    )  # fmt: skip


def way(row: Row) -> str:
    """How a row's workers reach their shards, in a word; "" for peers."""
    ways = set(row["transports"])
    return ways.pop() if len(ways) == 1 else "mixed" if ways else ""


def runs(sizes: Sequence[int], chosen: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First and last of the chosen sizes that are neighbours among all."""
    first: int | None = None
    for i, size in enumerate(sizes):
        if size in chosen and first is None:
            first = size
        if first is not None and (i + 1 == len(sizes) or sizes[i + 1] not in chosen):
            yield first, size
            first = None

"""Rows of a sweep by what they are about. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.sweep.grid import OPS
from bench.sweep.results import SETTING

Row = dict[str, Any]
OURS = "fastps"
PRIVATE = ("memcpy", "numpy_in_place", "triad")  # limits of the machine, which nobody waits for


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
        return [op for op in OPS if op in found] if column == "op" else sorted(found)

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

    def ways(self, op: str) -> dict[str, list[Row]]:
        """Rows of fastps in the setting of `base`, by size, by the way that workers reach the shards: of two transports
        that come to the same, those of the first."""
        found: dict[str, list[Row]] = {}
        for transport in self.values("transport"):
            rows = self.where(**self.base(), op=op, subject=OURS, transport=transport)
            if rows:
                found.setdefault(way(rows[0]), rows)
        return found

    def peers(self, op: str) -> dict[str, list[Row]]:
        """Rows of the others there, by size; they are measured beside each transport, and once is enough."""
        first = self.values("transport")[0]
        names = [name for name in self.subjects() if name != OURS]
        rows = {name: self.where(**self.base(), op=op, subject=name, transport=first) for name in names}
        return {name: found for name, found in rows.items() if found}


def way(row: Row) -> str:
    """How a row's workers reach their shards, in a word; "" for peers."""
    ways = set(row["transports"])
    return ways.pop() if len(ways) == 1 else "mixed" if ways else ""

"""The rules and tables of a manifest as values that need none of the code: enough to read rows and to name what was
saved, where `described` makes what a new server needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastps.arrays.types import DTYPES, HALVES
from fastps.checkpoint.described import INITIALIZERS
from fastps.checkpoint.untrusted import refusing
from fastps.spec.keys import KINDS
from fastps.spec.rule import RuleInfo
from fastps.spec.table import MAX_DIM, ROUNDINGS, TableInfo


@refusing("rules")
def recorded_rules(described: Any) -> list[RuleInfo]:
    """The rules of the arrays. Raises CheckpointError."""
    return [_rule(one) for one in described]


@refusing("tables")
def recorded_tables(described: Any) -> list[TableInfo]:
    """All tables, those of sightings included, in the order of their numbers. Raises CheckpointError."""
    return [_table(one) for one in described]


def _rule(described: Mapping[str, Any]) -> RuleInfo:
    slots, row_slots, hyper = described["slots"], described["row_slots"], described["hyper"]
    texts = [described["pattern"], described["rule"], *slots, *hyper, described["source"] or ""]
    if type(slots) is not list or not set(row_slots) <= set(slots) or any(type(text) is not str for text in texts):
        raise ValueError("a rule")
    if any(value is not None and type(value) not in (int, float) for value in hyper.values()):
        raise ValueError("a hyper-parameter")
    scheduled = frozenset(name for name, value in hyper.items() if value is None)
    return RuleInfo(
        described["pattern"], described["rule"], tuple(hyper), scheduled, tuple(slots), (0.0,) * len(slots), False,
        tuple(slot in row_slots for slot in slots), described["source"],
    )  # fmt: skip


def _table(described: Mapping[str, Any]) -> TableInfo:
    path, dim, dtype, keys = (described[name] for name in ("path", "dim", "dtype", "keys"))
    if type(dim) is not int or not 1 <= dim <= MAX_DIM or dtype not in DTYPES or keys not in KINDS:
        raise ValueError("a table")
    if described["stored"] not in (None, *HALVES) or described["rounding"] not in ROUNDINGS:
        raise ValueError("how a table stores its rows")
    if type(path) is not list or any(type(name) is not str for name in path):
        raise ValueError("the path of a table")
    kind, first, second = described["initial"]
    if kind not in INITIALIZERS or not isinstance(first, (int, float)) or not isinstance(second, (int, float)):
        raise ValueError("an initializer")
    receiver = described["on_evict"]
    return TableInfo(
        tuple(path), dim, dtype, keys, _rule(described["rule"]), (kind, first, second), described["seed"], None,
        described["admit"], described["evict"], described["track"], counts_for=described["counts_for"],
        limits=(described["capacity"], described["max_bytes"]), ttl=described["ttl"], stored=described["stored"],
        rounding=described["rounding"], inherits=described["inherits"],
        on_evict=None if receiver is None else tuple(receiver),
    )  # fmt: skip

"""``fastps checkpoint show``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastps.cli.columns import columns, moment, printable, span
from fastps.cli.options import as_json, path
from fastps.messages import binary

if TYPE_CHECKING:
    from fastps.checkpoint.summary import SavedTable, Summary
    from fastps.spec.rule import RuleInfo


@click.command("show", short_help="Show what a checkpoint consists of.")
@click.argument("path", type=path)
@as_json
def command(path: Path, as_json: bool) -> None:
    """Arrays with types, shapes, update counts and slots; rules with their hyper-parameters; consistency; tables with
    their settings; files. Reads the manifest alone.
    """
    from fastps.checkpoint.series import checkpoint_at
    from fastps.checkpoint.summary import summary

    path = checkpoint_at(path)
    found = summary(path)
    if as_json:
        print(json.dumps({"path": str(path), **_json(found)}, indent=1))
        return
    shards = len(found.versions)
    general: list[tuple[str, object]] = [
        ("path", str(path)),
        ("created", moment(found.created)),
        ("updates", span(found.updates)),
        ("shards", str(shards)),
        ("size", binary(found.nbytes)),
        ("consistency", repr(found.consistency)),
        ("gradients", ", ".join(f"{name} {value}" for name, value in asdict(found.gradients).items())),
    ]
    if found.classes:
        general.append(("classes", f"{', '.join(found.classes)} (import their modules before restore)"))
    for line in columns(general):
        print(line)
    _section("arrays", ["NAME", "TYPE", "STORED", "SHAPE", "STEPS", "SLOTS"], [
        (" = ".join(one.names), one.dtype, one.stored, list(one.shape), one.step, ", ".join(one.slots) or None)
        for one in found.arrays
    ])  # fmt: skip
    _section("rules of the arrays", ["PATTERN", "RULE", "HYPER-PARAMETERS"], [
        (rule.pattern, _rule(rule), _numbers(hyper)) for rule, hyper in zip(found.rules, found.hyper, strict=True)
    ])  # fmt: skip
    _section("tables", ["NAME", "DIM", "TYPE", "KEYS", "ROWS", "CHANGES", "STEPS", "RULE", "HYPER-PARAMETERS"], [
        (one.info.name, one.info.dim, one.info.dtype, one.info.keys, one.rows, one.changes,
         span(sorted(one.steps) or [0]), _rule(one.info.rule), _numbers(one.hyper))
        for one in found.tables
    ])  # fmt: skip
    for table in found.tables:
        settings = ", ".join(f"{name} {value}" for name, value in _settings(table).items() if value is not None)
        print(f"  {printable(table.info.name)}: {printable(settings)}")
    _section("files", ["NAME", "SIZE", "PROBLEM"], [
        (file.name, binary(file.nbytes), file.problem) for file in found.files
    ])  # fmt: skip


def _section(title: str, head: list[str], rows: list[tuple[Any, ...]]) -> None:
    if rows:
        print(f"\n{title}")
        for line in columns([head, *rows], "  "):
            print(line)


def _rule(rule: RuleInfo) -> str:
    return rule.label if rule.source is None else f"{rule.label} (of the user)"


def _numbers(hyper: dict[str, float | None]) -> str | None:
    """None where there are none."""
    found = (f"{name} {'by its schedule' if value is None else f'{value:g}'}" for name, value in hyper.items())
    return ", ".join(found) or None


def _settings(table: SavedTable) -> dict[str, Any]:
    info = table.info
    capacity, max_bytes = info.limits
    return {
        "init": _initial(info.initial),
        "seed": info.seed,
        "capacity": capacity,
        "max_bytes": max_bytes,
        "admit": info.admit,
        "ttl": info.ttl,
        "evict": info.evict,
        "track": info.tracked,
        "on_evict": None if info.on_evict is None else " ".join(map(str, info.on_evict)),
    }


def _initial(initial: tuple[Any, ...]) -> str:
    from fastps.checkpoint.described import INITIALIZERS

    kind, first, second = initial
    return repr(INITIALIZERS[kind](first, second))


def _json(found: Summary) -> dict[str, Any]:
    return {
        "created": found.created,
        "versions": list(found.versions),
        "bytes": found.nbytes,
        "consistency": {"policy": type(found.consistency).__name__, **asdict(found.consistency)},
        "gradients": {name: _finite(value) for name, value in asdict(found.gradients).items()},
        "classes": list(found.classes),
        "arrays": [asdict(one) for one in found.arrays],
        "rules": [_rule_json(rule, hyper) for rule, hyper in zip(found.rules, found.hyper, strict=True)],
        "tables": [_table_json(table) for table in found.tables],
        "files": [{"name": file.name, "bytes": file.nbytes, "problem": file.problem} for file in found.files],
    }


def _rule_json(rule: RuleInfo, hyper: dict[str, float | None]) -> dict[str, Any]:
    return {
        "pattern": rule.pattern, "rule": rule.label, "of_library": rule.source is None, "hyper": hyper,
        "slots": list(rule.slots),
    }  # fmt: skip


def _table_json(table: SavedTable) -> dict[str, Any]:
    info = table.info
    return {
        "name": info.name, "dim": info.dim, "dtype": info.dtype, "keys": info.keys, "rows": table.rows,
        "changes": table.changes, "steps": list(table.steps), "rule": _rule_json(info.rule, table.hyper),
        "inherits": info.inherits, **_settings(table),
    }  # fmt: skip


def _finite(value: Any) -> Any:
    return None if value == float("inf") else value

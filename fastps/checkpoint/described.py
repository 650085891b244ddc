"""What a server is, as JSON, and back: its structure, tables, rules, consistency and treatment of gradients.

Nothing is pickled, and nothing that a description names is called but containers of parameters, the rules, schedules
and initializers of the library, and policies. Infinities are written as null.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from fastps import consistency, rules, schedules
from fastps.checkpoint.structures import structure_to
from fastps.checkpoint.untrusted import DEEPEST, refusing
from fastps.consistency import Consistency
from fastps.errors import CheckpointError, OptionError, RuleError
from fastps.init import CONSTANT, NORMAL, UNIFORM, Constant, Normal, Uniform
from fastps.messages import brief
from fastps.rules import Rule
from fastps.rules.assignment import Assignment
from fastps.spec.gradients import GradientPolicy
from fastps.spec.rule import RuleInfo, infos
from fastps.spec.server import ServerSpec
from fastps.spec.table import Table, TableInfo, name_of
from fastps.spec.tree import Path

RULES = frozenset(rules.__all__) - {"Rule", "RuleFamily", "rule"}
SCHEDULES = ("constant", "step_decay", "cosine", "warmup")
INITIALIZERS = {CONSTANT: lambda value, _: Constant(value), UNIFORM: Uniform, NORMAL: Normal}


def server_to(
    spec: ServerSpec, hyper: Sequence[Sequence[float]], of_tables: Sequence[Sequence[float]]
) -> dict[str, Any]:
    """A server, with the hyper-parameters of each rule and of each table as they are now."""
    return {
        "structure": structure_to(spec.structure),
        "tables": [table_to(info, values) for info, values in zip(spec.tables, of_tables, strict=True)],
        "rules": [rule_to(rule, values) for rule, values in zip(spec.rules, hyper, strict=True)],
        "consistency": consistency_to(spec.consistency),
        "gradients": {name: _finite(value) for name, value in asdict(spec.gradients).items()},
    }


def rule_to(rule: RuleInfo, hyper: Sequence[float]) -> dict[str, Any]:
    return {
        "pattern": rule.pattern,
        "rule": rule.label,
        "source": rule.source,
        "slots": list(rule.slots),
        "row_slots": [slot for slot, one in zip(rule.slots, rule.row_slots, strict=True) if one],
        "hyper": rule.named(hyper),
    }


def table_to(info: TableInfo, hyper: Sequence[float]) -> dict[str, Any]:
    capacity, max_bytes = info.limits
    return {
        "path": list(info.path),
        "counts_for": info.counts_for,
        "dim": info.dim,
        "dtype": info.dtype,
        "stored": info.stored,
        "rounding": info.rounding,
        "keys": info.keys,
        "rule": rule_to(info.rule, hyper),
        "inherits": info.inherits,
        "initial": list(info.initial),
        "seed": info.seed,
        "capacity": capacity,
        "max_bytes": max_bytes,
        "admit": info.admit,
        "ttl": info.ttl,
        "evict": info.evict,
        "track": info.tracked,
        "on_evict": None if info.on_evict is None else list(info.on_evict),
    }


@refusing("tables")
def tables_from(described: Any, passed: Mapping[str, Table], has_rule: bool) -> dict[Path, Table]:
    """The tables that were saved, or those of the same name in `passed`. With `has_rule`, those that had the server's
    rule have none here. Raises RuleError and OptionError for code that was not saved."""
    saved = {tuple(one["path"]): one for one in described if one["counts_for"] is None}
    known = [name_of(path) for path in saved]
    unknown = [name for name in passed if name not in known]
    if unknown:
        raise OptionError(f"restore: tables= has {unknown}; the tables that were saved are {known}")
    return {path: passed.get(name_of(path)) or _table_from(one, path, has_rule) for path, one in saved.items()}


def _table_from(described: Any, path: Path, has_rule: bool) -> Table:
    name, (kind, first, second) = name_of(path), described["initial"]
    hint = f"tables={{{name!r}: fastps.Table({described['dim']}, ...)}} with all of its settings"
    receiver, where = described["on_evict"] or (None, None)
    if receiver == "function":
        raise OptionError(f"restore: the table {name!r} had on_evict={where}, and code is not saved; pass {hint}")
    inherits = described["inherits"]
    rule = None if has_rule and inherits else _rule_from(described["rule"], name, "rule=" if inherits else hint)
    table = Table(
        described["dim"], init=INITIALIZERS[kind](first, second), dtype=described["dtype"],
        stored=described["stored"], rounding=described["rounding"], keys=described["keys"],
        capacity=described["capacity"], max_bytes=described["max_bytes"], seed=described["seed"],
        admit=described["admit"], ttl=described["ttl"], evict=described["evict"],
        on_evict=None if where is None else str(where), track=described["track"],
    )  # fmt: skip
    return table if rule is None else table.with_rule(rule, inherits=bool(inherits))


@refusing("tables")
def require_same_tables(described: Any, passed: Sequence[TableInfo]) -> None:
    """Raises OptionError or RuleError unless the rows that were saved fit these tables."""
    known = {info.name: info for info in passed}
    for one in described:
        info = known.get(name_of(tuple(one["path"])))
        if info is None:  # of sightings, and now there is none
            continue
        for what, now in (("dim", info.dim), ("dtype", info.dtype), ("keys", info.keys)):
            if one[what] != now:
                raise OptionError(
                    f"restore: the table {info.name!r} has {what}={now!r}, and had {what}={one[what]!r} when it was "
                    f"saved; pass the same"
                )
        _require_same_rule(one["rule"], info.rule, f"the table {info.name!r}")


@refusing("tables")
def names_of_tables(described: Any) -> list[str]:
    """Those of sightings included."""
    return [name_of(tuple(one["path"])) for one in described]


@refusing("tables")
def hyper_of_tables(described: Any) -> dict[str, dict[str, float]]:
    """By name of the table, the hyper-parameters that no schedule gives."""
    return {name_of(tuple(one["path"])): _hyper_of(one["rule"]) for one in described if one["counts_for"] is None}


@refusing("rules")
def rules_from(described: Any) -> dict[str, Rule]:
    """Those that were saved, by pattern. Raises RuleError where a rule or a schedule is the user's."""
    return {one["pattern"]: _rule_from(one, one["pattern"], "rule=") for one in described}


def _rule_from(described: Any, of: str, hint: str) -> Rule:
    label = described["rule"]
    if described["source"] is None:
        try:
            rule = _evaluated(ast.parse(label, mode="eval").body, 0)
        except (ValueError, SyntaxError):
            rule = None
        if isinstance(rule, Rule):
            return rule
    raise RuleError(
        f"restore: the rule {label!r} of {of!r} is not one of fastps alone, and code is not saved; pass {hint}"
    )


def _evaluated(node: ast.AST, depth: int) -> Any:
    """A call of a rule or a schedule of the library, as its repr writes it. Raises ValueError for anything else."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and depth < DEEPEST:
        name = node.func.id
        known = getattr(schedules, name) if name in SCHEDULES else getattr(rules, name, None) if name in RULES else None
        if known is not None:
            if any(keyword.arg is None for keyword in node.keywords):
                raise ValueError(name)
            positional = [_evaluated(argument, depth + 1) for argument in node.args]
            named = {str(keyword.arg): _evaluated(keyword.value, depth + 1) for keyword in node.keywords}
            return known(*positional, **named)
    return ast.literal_eval(node)


@refusing("rules")
def hyper_from(described: Any) -> dict[str, dict[str, float]]:
    """By pattern, the hyper-parameters that no schedule gives."""
    return {one["pattern"]: _hyper_of(one) for one in described}


def _hyper_of(described: Any) -> dict[str, float]:
    return {name: float(value) for name, value in described["hyper"].items() if value is not None}


@refusing("rules")
def require_same_rules(described: Any, assignment: Assignment) -> None:
    """Raises RuleError unless these are the rules that were saved, up to the values of their hyper-parameters."""
    saved = {one["pattern"]: one for one in described}
    passed = {rule.pattern: rule for rule in infos(assignment)}
    if list(saved) != list(passed):
        raise RuleError(
            f"restore: expected rules for the patterns {list(saved)}, as they were saved, got {list(passed)}"
        )
    for pattern, rule in passed.items():
        _require_same_rule(saved[pattern], rule, repr(pattern))


def _require_same_rule(described: Any, rule: RuleInfo, of: str) -> None:
    label, slots = described["rule"], described["slots"]
    row_slots = [slot for slot, one in zip(rule.slots, rule.row_slots, strict=True) if one]
    if (list(rule.slots), row_slots, sorted(rule.hyper)) != (slots, described["row_slots"], sorted(described["hyper"])):
        raise RuleError(
            f"restore: the rule of {of} was {label!r} with slots {slots}, got {rule.label} with {list(rule.slots)}; "
            f"pass the same rule"
        )
    if rule.source != described["source"]:
        raise RuleError(
            f"restore: the code of the rule {rule.label} of {of} is not that of {label!r} when it was saved; pass that "
            f"one"
        )


def consistency_to(policy: Consistency) -> dict[str, Any]:
    return {"policy": type(policy).__name__, **{name: _finite(value) for name, value in asdict(policy).items()}}


@refusing("consistency")
def consistency_from(described: Any) -> Consistency:
    settings = dict(described)
    cls = getattr(consistency, settings.pop("policy"))
    if not isinstance(cls, type) or not issubclass(cls, Consistency):
        raise CheckpointError(f"consistency: {brief(described)} is no policy")
    return cls(**settings)


@refusing("gradients")
def gradients_from(described: Any) -> GradientPolicy:
    limits = {
        name: math.inf if described[name] is None else float(described[name]) for name in ("clip_norm", "clip_value")
    }
    return GradientPolicy(str(described["nonfinite"]), **limits)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""What a server is, as JSON, and back: its arrays and containers, rules, consistency and treatment of gradients.

Nothing is pickled, and nothing that a description names is called but containers of parameters, the rules and
schedules of the library, and policies. Infinities are written as null.
"""

from __future__ import annotations

import ast
import math
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import wraps
from typing import Any, TypeVar

import numpy as np

from fastps import consistency, rules, schedules
from fastps.arrays.types import DTYPES, numpy_dtype
from fastps.consistency import Consistency
from fastps.errors import CheckpointError, FastPSError, RuleError
from fastps.messages import brief
from fastps.rules import Rule
from fastps.rules.assignment import Assignment
from fastps.spec.arrays import CARRIED, Leaf, Structure
from fastps.spec.gradients import GradientPolicy
from fastps.spec.rule import RuleInfo, infos
from fastps.spec.server import ServerSpec
from fastps.spec.tree import Container, is_record

F = TypeVar("F", bound=Callable[..., Any])
PLAIN = {"dict": dict, "OrderedDict": OrderedDict, "list": list, "tuple": tuple}
DEEPEST, MOST_LEAVES = 64, 2**24
RULES = frozenset(rules.__all__) - {"Rule", "RuleFamily", "rule"}
SCHEDULES = ("constant", "step_decay", "cosine", "warmup")


def refusing(what: str) -> Callable[[F], F]:
    """A decorator of functions that read a description: whatever is wrong with it is a CheckpointError."""

    def decorate(function: F) -> F:
        @wraps(function)
        def read(described: Any, *more: Any) -> Any:
            try:
                return function(described, *more)
            except FastPSError:
                raise
            except Exception as error:
                raise CheckpointError(
                    f"{what}: the manifest says what cannot be: {type(error).__name__} {brief(error)}"
                ) from error

        return read  # type: ignore[return-value]

    return decorate


def server_to(spec: ServerSpec, hyper: Sequence[Sequence[float]]) -> dict[str, Any]:
    """A server, with the hyper-parameters of each rule as they are now."""
    return {
        "structure": structure_to(spec.structure),
        "rules": [rule_to(rule, values) for rule, values in zip(spec.rules, hyper, strict=True)],
        "consistency": consistency_to(spec.consistency),
        "gradients": {name: _finite(value) for name, value in asdict(spec.gradients).items()},
    }


def structure_to(structure: Structure) -> dict[str, Any]:
    return {
        "leaves": [
            {
                "path": list(leaf.path),
                "shape": list(leaf.shape),
                "stored": leaf.dtype,
                "dtype": leaf.given.name if leaf.given.name in ("bfloat16", "float16") else _descr(leaf.given),
            }
            for leaf in structure.leaves
        ],
        "tree": None if structure.tree is None else _container_to(structure.tree),
        "constants": [_constant_to(value) for value in structure.constants],
    }


def _descr(dtype: np.dtype[Any]) -> Any:
    return np.lib.format.dtype_to_descr(dtype)


def _container_to(container: Container) -> dict[str, Any]:
    plain = next((name for name, cls in PLAIN.items() if cls is container.made_by), None)
    children = [_container_to(child) if isinstance(child, Container) else child for child in container.children]
    made_by = plain or [container.made_by.__module__, container.made_by.__qualname__]
    return {"made_by": made_by, "names": list(container.names), "children": children}


def _constant_to(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, complex):
        return {"complex": [repr(value.real), repr(value.imag)]}
    return value


@refusing("structure")
def structure_from(described: Any) -> Structure:
    """Raises CheckpointError, also where a class of a container cannot be found."""
    if len(described["leaves"]) > MOST_LEAVES:
        raise CheckpointError(f"structure: {len(described['leaves']):,} arrays")
    leaves = tuple(_leaf_from(leaf) for leaf in described["leaves"])
    constants = tuple(_constant_from(value) for value in described["constants"])
    tree = None if described["tree"] is None else _container_from(described["tree"], len(leaves) + len(constants), 0)
    return Structure(leaves, tree, constants)


def _leaf_from(described: Any) -> Leaf:
    path, shape, stored, given = (described[name] for name in ("path", "shape", "stored", "dtype"))
    dtype = numpy_dtype(given) if given in ("bfloat16", "float16") else np.dtype(_as_descr(given))
    sound = all(type(name) is str for name in path) and all(type(n) is int and 0 <= n < 2**48 for n in shape)
    if not sound or stored not in (*DTYPES, CARRIED) or dtype.hasobject or math.prod(shape) * dtype.itemsize >= 2**60:
        raise CheckpointError(f"structure: {brief(described)} is no array")
    return Leaf(tuple(path), tuple(shape), stored, dtype)


def _as_descr(value: Any) -> Any:
    """JSON has no tuples, of which the fields of a structured type are."""
    if not isinstance(value, list):
        return value
    return [tuple(tuple(part) if i == 2 else _as_descr(part) for i, part in enumerate(field)) for field in value]


def _container_from(described: Any, known: int, depth: int) -> Container:
    if depth > DEEPEST:
        raise CheckpointError(f"structure: containers in more than {DEEPEST} others")
    names, children = (
        described["names"],
        [_container_from(child, known, depth + 1) if type(child) is dict else child for child in described["children"]],
    )
    if len(names) != len(children) or not all(type(name) is str for name in names):
        raise CheckpointError(f"structure: {brief(described)} is no container")
    if any(type(child) is int and not 0 <= child < known for child in children):
        raise CheckpointError("structure: a container has arrays that are not there")
    return Container(_class_from(described["made_by"]), tuple(names), tuple(children))


def _class_from(described: Any) -> type:
    if type(described) is str:
        return PLAIN[described]
    module, name = described
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type) or not is_record(found):
        raise CheckpointError(
            f"structure: the parameters were in containers of {module}.{name}, which this process does not know; "
            f"import {module} before restore()"
        )
    return found


def _constant_from(described: Any) -> Any:
    if type(described) is dict:
        if "bytes" in described:
            return bytes.fromhex(described["bytes"])
        return complex(*map(float, described["complex"]))
    if described is not None and type(described) not in (bool, int, str):
        raise CheckpointError(f"structure: {brief(described)} is no constant")
    return described


def rule_to(rule: RuleInfo, hyper: Sequence[float]) -> dict[str, Any]:
    return {
        "pattern": rule.pattern,
        "rule": rule.label,
        "source": rule.source,
        "slots": list(rule.slots),
        "hyper": rule.named(hyper),
    }


@refusing("rules")
def rules_from(described: Any) -> dict[str, Rule]:
    """Those that were saved, by pattern. Raises RuleError where a rule or a schedule is the user's."""
    return {one["pattern"]: _rule_from(one) for one in described}


def _rule_from(described: Any) -> Rule:
    label, pattern = described["rule"], described["pattern"]
    if described["source"] is None:
        try:
            rule = _evaluated(ast.parse(label, mode="eval").body, 0)
        except (ValueError, SyntaxError):
            rule = None
        if isinstance(rule, Rule):
            return rule
    raise RuleError(
        f"restore: the rule {label!r} of {pattern!r} is not one of fastps alone, and code is not saved; pass rule="
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
    return {one["pattern"]: {name: float(v) for name, v in one["hyper"].items() if v is not None} for one in described}


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
        one = saved[pattern]
        if list(rule.slots) != one["slots"] or sorted(rule.hyper) != sorted(one["hyper"]):
            raise RuleError(
                f"restore: the rule of {pattern!r} was {one['rule']!r} with slots {one['slots']}, got {rule.label} "
                f"with {list(rule.slots)}; pass the same rule"
            )
        if rule.source != one["source"]:
            raise RuleError(
                f"restore: the code of the rule {rule.label} of {pattern!r} is not that of {one['rule']!r} when it was "
                f"saved; pass that one"
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

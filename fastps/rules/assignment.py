"""Which rule each array, and each table without one, gets. Pure."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from fastps.errors import OptionError, RuleError
from fastps.messages import brief, few
from fastps.rules.add import Add
from fastps.rules.base import Rule, RuleFamily

MAX_RULES = 16  # rows of an arena's table of hyper-parameters
MAX_SLOT_NAMES = 63  # bits of a message that says which slots it is about


@dataclass(frozen=True)
class Assignment:
    """The rules of a server.

    Attributes
    ----------
    patterns : what each rule was given for; ("*",) for a single rule
    rules : the distinct rules, one per pattern
    of_leaf : for each array of the parameters, which of `rules` it gets
    """

    patterns: tuple[str, ...]
    rules: tuple[Rule, ...]
    of_leaf: tuple[int, ...]

    @property
    def n_slots(self) -> int:
        """The number of slots for which every parameter has memory."""
        return max(len(rule.slots) for rule in self.rules)

    def __str__(self) -> str:
        if self.patterns == ("*",):
            return repr(self.rules[0])
        return "{" + ", ".join(f"{p!r}: {r!r}" for p, r in zip(self.patterns, self.rules, strict=True)) + "}"


def assign(rule: Any, arrays: list[str], tables: list[str]) -> tuple[Assignment, list[Rule]]:
    """Gives each array, and each table without a rule of its own, the one rule, or that of the first pattern that
    matches its name (``*``, ``?``, ``[a-z]``).

    Raises RuleError when a name matches no pattern, or a pattern no name; OptionError for a rule that cannot be used
    there.
    """
    rules = rule if isinstance(rule, Mapping) else {"*": rule}
    if not 1 <= len(rules) <= MAX_RULES:
        raise RuleError(f"rule: expected a mapping of 1 to {MAX_RULES} patterns to rules, got {len(rules)}")
    if not all(isinstance(pattern, str) for pattern in rules):
        raise RuleError(f"rule: expected patterns to be str, got {few(list(rules))}")
    names = [*arrays, *tables]
    pattern_of = [_pattern_for(name, rules) for name in names]
    for pattern in rules if isinstance(rule, Mapping) else ():
        if pattern not in pattern_of:
            raise RuleError(
                f"rule: {pattern!r} fits none of {few(names)} that an earlier pattern has not taken; remove it"
            )
    whats = {p: f"rule of {p!r}" if isinstance(rule, Mapping) else "rule" for p in rules}
    chosen = {pattern: as_rule(value, whats[pattern]) for pattern, value in rules.items()}
    of_tables = [_of_tables(chosen[p], name) for p, name in zip(pattern_of[len(arrays) :], tables, strict=True)]
    used = [pattern for pattern in rules if pattern in pattern_of[: len(arrays)]]
    if not used:  # there are no arrays: no push will ask for it
        return Assignment(("*",), (Add(),), ()), of_tables
    of_arrays = tuple(_of_arrays(chosen[pattern], whats[pattern]) for pattern in used)
    slots = {slot for rule in of_arrays for slot in rule.slots}
    if len(slots) > MAX_SLOT_NAMES:
        raise RuleError(
            f"rule: expected at most {MAX_SLOT_NAMES} names of slots, got {len(slots)}; give slots of different rules "
            f"the same names"
        )
    return Assignment(tuple(used), of_arrays, tuple(used.index(p) for p in pattern_of[: len(arrays)])), of_tables


def _pattern_for(name: str, rules: Mapping[str, Any]) -> str:
    for pattern in rules:
        if fnmatchcase(name, pattern):
            return pattern
    raise RuleError(f"rule: no pattern of {few(list(rules))} fits `{name}`; end with '*': ... for all others")


def _of_arrays(rule: Rule, what: str) -> Rule:
    if rule.family.for_rows:
        raise OptionError(
            f"{what}: {rule.family.label} depends on a row as a whole; use it in a fastps.Table, or another rule"
        )
    return rule


def _of_tables(rule: Rule, name: str) -> Rule:
    if rule.family.uses_pulled:
        raise OptionError(
            f"rule: {rule!r} needs the parameters that the worker had, which a push to a table does not know; give the "
            f"table `{name}` a rule of its own: Table(..., rule=...)"
        )
    return rule


def as_rule(value: Any, what: str) -> Rule:
    if isinstance(value, Rule):
        return value
    if isinstance(value, RuleFamily):
        return value()  # all of its hyper-parameters have defaults, or it says which are missing
    got = f"{type(value).__name__} {brief(value)}"
    if inspect.isfunction(value):
        got = f"the function {value.__name__}; {_rule_of(value)}"
    raise OptionError(f"{what}: expected a fastps rule such as fastps.SGD(0.1), got {got}")


def _rule_of(function: Any) -> str:
    """How a function becomes a rule: one of fastps, such as SGD, returns one when called; others are decorated."""
    if str(function.__module__).split(".")[0] != "fastps":
        return "make a rule of it with @fastps.rule"
    needed = [name for name, one in inspect.signature(function).parameters.items() if one.default is one.empty]
    return f"call it: fastps.{function.__name__}({', '.join(needed)})"

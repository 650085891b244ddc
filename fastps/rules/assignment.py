"""Which rule each array of the parameters gets. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from fastps.errors import OptionError, RuleError
from fastps.rules.base import Rule, RuleFamily

MAX_RULES = 16  # rows of an arena's table of hyper-parameters


@dataclass(frozen=True)
class Assignment:
    """The rules of a server.

    Attributes
    ----------
    patterns : what each rule was given for; ("*",) for a single rule
    rules : the distinct rules, one a pattern
    of_leaf : for each array of the parameters, which of `rules` it gets
    """

    patterns: tuple[str, ...]
    rules: tuple[Rule, ...]
    of_leaf: tuple[int, ...]

    @property
    def n_slots(self) -> int:
        """Slots that every parameter has room for."""
        return max(len(rule.slots) for rule in self.rules)

    def __str__(self) -> str:
        if self.patterns == ("*",):
            return repr(self.rules[0])
        return "{" + ", ".join(f"{p!r}: {r!r}" for p, r in zip(self.patterns, self.rules, strict=True)) + "}"


def assign(rule: Any, names: list[str]) -> Assignment:
    """Gives each name a rule: the one rule, or that of the first pattern which fits (``*``, ``?``, ``[a-z]``).

    Raises RuleError when a name fits no pattern, or a pattern no name.
    """
    if not isinstance(rule, Mapping):
        return Assignment(("*",), (_of_arrays(rule, "rule"),), (0,) * len(names))
    patterns = tuple(rule)
    if not patterns or len(patterns) > MAX_RULES:
        raise RuleError(f"rule: expected a mapping of 1 to {MAX_RULES} patterns to rules, got {len(patterns)}")
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise RuleError(f"rule: expected patterns to be str, got {list(patterns)}")
    rules = tuple(_of_arrays(rule[pattern], f"rule of {pattern!r}") for pattern in patterns)
    of_leaf = []
    for name in names:
        fits = [i for i, pattern in enumerate(patterns) if fnmatchcase(name, pattern)]
        if not fits:
            raise RuleError(f"rule: no pattern of {list(patterns)} fits `{name}`; end with '*': ... for all others")
        of_leaf.append(fits[0])
    for i, pattern in enumerate(patterns):
        if i not in of_leaf:
            raise RuleError(f"rule: {pattern!r} fits none of {names} that an earlier pattern has not taken; remove it")
    return Assignment(patterns, rules, tuple(of_leaf))


def _of_arrays(value: Any, what: str) -> Rule:
    rule = as_rule(value, what)
    if rule.family.for_rows:
        raise OptionError(f"{what}: {rule.name} looks at a row as a whole; use it in a fastps.Table, or another rule")
    return rule


def as_rule(value: Any, what: str) -> Rule:
    if isinstance(value, Rule):
        return value
    if isinstance(value, RuleFamily):
        return value()  # all of its hyper-parameters have defaults, or it says which are missing
    raise OptionError(f"{what}: expected a fastps rule such as fastps.SGD(0.1), got {type(value).__name__}")

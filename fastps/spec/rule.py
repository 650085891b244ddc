"""What a handle carries of a rule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastps.errors import OptionError
from fastps.rules.assignment import Assignment
from fastps.rules.base import Rule
from fastps.rules.source import hash_of_source
from fastps.scalars import finite


@dataclass(frozen=True)
class RuleInfo:
    """What a worker knows of a rule: not its code, which may need modules that the worker lacks.

    Attributes
    ----------
    pattern : the pattern of names that it was given for
    label : its repr
    hyper : the names of its hyper-parameters, in the order of the arena's table
    scheduled : those that follow a schedule
    slots : the names of its slots, in the order of the arena's streams
    initial : the initial value of each
    uses_pulled : whether it needs the parameters that the worker pulled
    row_slots : for each slot, whether it has one value per row of a table
    source : a hash of its source; None of the library's rules
    """

    pattern: str
    label: str
    hyper: tuple[str, ...]
    scheduled: frozenset[str]
    slots: tuple[str, ...]
    initial: tuple[float, ...]
    uses_pulled: bool
    row_slots: tuple[bool, ...]
    source: str | None = None

    @classmethod
    def of(cls, pattern: str, rule: Rule) -> RuleInfo:
        uses_pulled = rule.family.uses_pulled
        slots = rule.slots
        return cls(
            pattern, repr(rule), tuple(rule.hyper), frozenset(rule.schedules), tuple(slots), tuple(slots.values()),
            uses_pulled, tuple(slot in rule.family.row_slots for slot in slots),
            None if rule.family.of_library else hash_of_source(rule.family.function),
        )  # fmt: skip

    def numbers(self, values: Mapping[str, Any], verb: str) -> dict[int, float]:
        """New values of hyper-parameters by their index; NaN restores a schedule. Raises OptionError."""
        for name in values:
            if name not in self.hyper:
                raise OptionError(f"{verb}: unknown hyper-parameter `{name}`; {self.label} has {list(self.hyper)}")
        return {self.hyper.index(name): self._number(name, value, verb) for name, value in values.items()}

    def _number(self, name: str, value: Any, verb: str) -> float:
        if value is None and name in self.scheduled:
            return math.nan
        schedule = ", or None for its schedule" if name in self.scheduled else ""
        return finite(f"{verb} {name}", value, f"a finite number{schedule}")

    def named(self, values: Sequence[float]) -> dict[str, float | None]:
        """Hyper-parameters by name; None stands for a schedule."""
        return {name: None if math.isnan(value) else value for name, value in zip(self.hyper, values, strict=True)}


def infos(assignment: Assignment) -> tuple[RuleInfo, ...]:
    pairs = zip(assignment.patterns, assignment.rules, strict=True)
    return tuple(RuleInfo.of(pattern, rule) for pattern, rule in pairs)

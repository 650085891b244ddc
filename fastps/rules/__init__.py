"""Update rules, one a file."""

from fastps.rules.add import Add
from fastps.rules.base import Rule
from fastps.rules.sgd import SGD

__all__ = ["SGD", "Add", "Rule"]

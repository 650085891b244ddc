"""Lists of names in messages: a few of them, and how many there are."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import islice
from typing import Any

MOST = 8


def few(names: Collection[Any], most: int = MOST) -> str:
    """``['a', 'b']``; of more than `most` the first, and how many there are in all."""
    if len(names) <= most:
        return str(list(names))
    return f"[{', '.join(map(repr, islice(names, most)))}, ...] ({len(names):,} in all)"


def few_of(parts: Iterable[str], n: int, most: int = MOST) -> str:
    """The first of n parts of a description, joined by commas, and how many more there are."""
    text = ", ".join(islice(parts, most))
    return text if n <= most else f"{text}, and {n - most:,} more"

"""How messages say lists, values and amounts."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import islice
from typing import Any

MOST = 8
LONGEST = 80  # characters


def few(names: Collection[Any], most: int = MOST) -> str:
    """``['a', 'b']``; of more than `most` the first, and how many there are in all."""
    if len(names) <= most:
        return f"[{', '.join(map(brief, names))}]"
    return f"[{', '.join(map(brief, islice(names, most)))}, ...] ({len(names):,} in all)"


def few_of(parts: Iterable[str], n: int, most: int = MOST) -> str:
    """The first of n parts of a description, joined by commas, and how many more there are."""
    text = ", ".join(islice(parts, most))
    return text if n <= most else f"{text}, and {n - most:,} more"


def brief(value: Any) -> str:
    """The repr of a user's value, or its beginning."""
    try:
        text = repr(value)
    except Exception:  # of a user's class, and of Python itself for ints of thousands of digits
        text = object.__repr__(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def binary(count: float) -> str:
    """Three figures in the largest unit that fits: "8 MiB", "1.46 GiB"."""
    for unit, bits in (("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >= 1 << bits:
            return f"{count / (1 << bits):.4g} {unit}" if count >= 1000 << bits else f"{count / (1 << bits):.3g} {unit}"
    return f"{count:.0f} B"

"""Text in columns, as commands print it, and text of others, which may hold what moves a terminal's cursor."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence


def printable(text: str) -> str:
    """In one line: what cannot be printed as its escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def columns(rows: Iterable[Sequence[object]], indent: str = "") -> list[str]:
    """A line for each row. Numbers are on the right of their columns; the last column is as wide as it is."""
    table = [list(row) for row in rows]
    texts = [["-" if cell is None else f"{cell:,}" if _is_number(cell) else printable(str(cell)) for cell in row]
             for row in table]  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    right = [any(map(_is_number, column)) for column in zip(*table, strict=True)]
    return [
        indent
        + "  ".join(
            f"{text:>{width}}" if numbers else f"{text:<{width}}"
            for text, width, numbers in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in texts
    ]


def _is_number(cell: object) -> bool:
    return isinstance(cell, int) and not isinstance(cell, bool)


def moment(seconds: float) -> str:
    """A time since 1970 in the local time zone."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):  # more than the calendar has
        return f"{seconds:g}"


def span(counts: Sequence[int]) -> str:
    """The least and the largest of sorted numbers, or the one."""
    return f"{counts[0]:,}" if counts[0] == counts[-1] else f"{counts[0]:,} to {counts[-1]:,}"

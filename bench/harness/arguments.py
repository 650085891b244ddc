"""What a user writes on a command line: sizes, counts, names, separated by commas. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
UNITS = {"": 1, "B": 1, "K": 10**3, "KB": 10**3, "M": 10**6, "MB": 10**6, "G": 10**9, "GB": 10**9}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40, "T": 10**12, "TB": 10**12}
ITEM_BYTES = 4  # float32
LARGEST = 1 << 40


class ArgumentError(ValueError):
    """What was asked for cannot be measured: one line that says what and why."""


def size(text: str) -> int:
    """Bytes, a multiple of four: "80", "8K", "1.5M", "2GiB". K, M and G are powers of ten."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None:
        raise ArgumentError(f"size: expected a number of bytes such as 80, 8K, 1M or 2GiB, got {text!r}")
    nbytes = round(float(match[1]) * unit) // ITEM_BYTES * ITEM_BYTES
    if not ITEM_BYTES <= nbytes <= LARGEST:
        raise ArgumentError(f"size: expected {ITEM_BYTES} bytes to 1 TiB, got {text!r}")
    return nbytes


def sizes(text: str) -> list[int]:
    return _distinct([size(part) for part in text.split(",")])


def counts(text: str, what: str, most: int) -> list[int]:
    found = []
    for part in text.split(","):
        if not re.fullmatch(r"\s*\d+\s*", part) or not 1 <= int(part) <= most:
            raise ArgumentError(f"{what}: expected whole numbers from 1 to {most}, separated by commas, got {part!r}")
        found.append(int(part))
    return _distinct(found)


def names(text: str, what: str, known: Sequence[str]) -> list[str]:
    found = [part.strip() for part in text.split(",")]
    for name in found:
        if name not in known:
            raise ArgumentError(f"{what}: expected some of {', '.join(known)}, separated by commas, got {name!r}")
    return _distinct(found)


def _distinct(values: Sequence[T]) -> list[T]:
    return list(dict.fromkeys(values))

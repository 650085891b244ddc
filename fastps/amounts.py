"""Amounts of memory in words."""

from __future__ import annotations


def binary(count: float) -> str:
    """Three figures in the largest unit that fits: "8 MiB", "1.46 GiB"."""
    for unit, bits in (("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >= 1 << bits:
            return f"{count / (1 << bits):.4g} {unit}" if count >= 1000 << bits else f"{count / (1 << bits):.3g} {unit}"
    return f"{count:.0f} B"

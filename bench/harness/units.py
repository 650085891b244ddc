"""Times and sizes in words."""

from __future__ import annotations

from fastps.messages import binary


def human_time(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def human_bytes(count: float) -> str:
    """In the units that somebody wrote it in: 2 GiB is that, and 64 MB are."""
    if count >= 1024 and count % 1024 == 0 and count % 1000 != 0:
        return binary(count)
    for unit, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if count >= factor:
            return f"{count / factor:g} {unit}"
    return f"{count:g} B"

"""Update rules for tables as a user writes them, in a module that workers can import."""

from __future__ import annotations

import fastps


@fastps.rule(slots={"drift": 0.0, "seen": 0.5}, row_slots=["seen"])
def drifting(p, g, drift, seen, mean_square, *, step, lr, cap=2.0):
    """A clipped momentum, divided by what the whole row has seen: a slot of each kind, and the push's number."""
    seen = seen + mean_square
    drift = 0.5 * drift + min(max(g, -cap), cap)
    return p - lr / (1 + 0.25 * step) * drift / (1.0 + seen), drift, seen


@fastps.rule(slots={"last": 0.0})
def counting(p, g, last, *, step, lr):
    """Of additions and multiplications alone, so that a kernel computes it bit for bit as numpy does."""
    return p - lr * (g - 0.5 * last) + step, g

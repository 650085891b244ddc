"""An update rule as a user writes one, in a module that workers can import."""

from __future__ import annotations

import fastps


@fastps.rule
def clipped(p, g, *, lr, limit):
    """Gradient descent with every element of the gradient clipped."""
    return p - lr * min(max(g, -limit), limit)

"""`params += grad`."""

from __future__ import annotations

from fastps.rules.base import rule


@rule
def Add(p, g):
    """Adds the gradient: ``p + g``.

    The rule for updates that are already scaled by a learning rate, for counters and for sums. No
    hyper-parameters.

    Slots: none.

    Examples
    --------
    >>> Add.function(2.0, 0.5)
    2.5
    """
    return p + g

"""Adagrad with one accumulator per row."""

from __future__ import annotations

from math import sqrt

from fastps.rules.base import rule


@rule(slots={"sum": "initial_accumulator_value"}, row_slots=["sum"])
def RowAdagrad(p, g, sum, mean_square, *, lr=1e-2, initial_accumulator_value=0.0, eps=1e-10):
    """Row-wise Adagrad: one learning rate for a whole row of a table, so a row's state is one number.

    ::

        sum = sum + mean(g**2 over the row)
        p = p - lr * g / (sqrt(sum) + eps)

    Parameters
    ----------
    lr : float
        Learning rate.
    initial_accumulator_value : float
        Initial value of `sum`; not a schedule.
    eps : float
        Added to the denominator.

    Slots: `sum`, one value per row. Only for tables.

    Examples
    --------
    >>> RowAdagrad.function(1.0, 3.0, 16.0, 9.0, lr=0.5, eps=0.0)
    (0.7, 25.0)

    References
    ----------
    Naumov et al., Deep Learning Recommendation Model for Personalization and Recommendation Systems, 2019; the
    optimizer that torchrec and FBGEMM call row-wise Adagrad.
    """
    sum = sum + mean_square
    return p - lr * g / (sqrt(sum) + eps), sum

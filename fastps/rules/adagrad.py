"""Adagrad."""

from __future__ import annotations

from math import sqrt

from fastps.rules.base import rule


@rule(slots={"sum": "initial_accumulator_value"})
def Adagrad(p, g, sum, *, step, lr=1e-2, lr_decay=0.0, weight_decay=0.0, initial_accumulator_value=0.0, eps=1e-10):
    """Adagrad: a learning rate per parameter that falls with the gradients it has seen.

    ::

        g = g + weight_decay * p
        sum = sum + g**2
        p = p - lr / (1 + (step - 1) * lr_decay) * g / (sqrt(sum) + eps)

    Parameters
    ----------
    lr : float
        Learning rate.
    lr_decay : float
        How fast the learning rate falls with the number of pushes.
    weight_decay : float
        Factor of an L2 penalty, which is added to the gradient.
    initial_accumulator_value : float
        Initial value of `sum`; not a schedule.
    eps : float
        Added to the denominator.

    Slots: `sum`, of the squared gradients.

    Examples
    --------
    >>> Adagrad.function(1.0, 3.0, 16.0, step=1, lr=0.5, eps=0.0)
    (0.7, 25.0)

    References
    ----------
    Duchi, Hazan and Singer, Adaptive Subgradient Methods for Online Learning and Stochastic Optimization, JMLR 12,
    2011.

    Notes
    -----
    As torch.optim.Adagrad. optax.adagrad has `eps` under the root and starts `sum` at 0.1.
    """
    g = g + weight_decay * p
    sum = sum + g * g
    return p - lr / (1 + (step - 1) * lr_decay) * g / (sqrt(sum) + eps), sum

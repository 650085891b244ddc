"""Adam."""

from __future__ import annotations

from math import sqrt

from fastps.rules.base import rule


@rule(slots={"m": 0.0, "v": 0.0})
def Adam(p, g, m, v, *, step, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0):
    """Adam: a running mean of the gradient over the root of a running mean of its square, both without bias.

    ::

        g = g + weight_decay * p
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        p = p - lr * (m / (1 - beta1**step)) / (sqrt(v / (1 - beta2**step)) + eps)

    Parameters
    ----------
    lr : float
        Learning rate.
    beta1, beta2 : float
        Decay factors of the two running means, per push.
    eps : float
        Added to the denominator.
    weight_decay : float
        Factor of an L2 penalty, which is added to the gradient. `AdamW` keeps it out of the means.

    Slots: `m` and `v`, the running means, torch's `exp_avg` and `exp_avg_sq`.

    Examples
    --------
    >>> Adam(3e-4)
    Adam(0.0003)
    >>> Adam.function(1.0, 2.0, 0.0, 0.0, step=1, lr=0.25, beta1=0.5, beta2=0.75, eps=0.0)
    (0.75, 1.0, 1.0)

    References
    ----------
    Kingma and Ba, Adam: A Method for Stochastic Optimization, arXiv 1412.6980.

    Notes
    -----
    As torch.optim.Adam, whose `betas` are two arguments here. optax.adam has no weight decay and is otherwise the same.
    """
    g = g + weight_decay * p
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    return p - lr / (1 - beta1**step) * m / (sqrt(v / (1 - beta2**step)) + eps), m, v

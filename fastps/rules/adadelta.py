"""Adadelta."""

from __future__ import annotations

from math import sqrt

from fastps.rules.base import rule


@rule(slots={"v": 0.0, "d": 0.0})
def Adadelta(p, g, v, d, *, lr=1.0, rho=0.9, eps=1e-6, weight_decay=0.0):
    """Adadelta: scales the gradient by how far the parameter has moved lately.

    ::

        g = g + weight_decay * p
        v = rho * v + (1 - rho) * g**2
        delta = sqrt((d + eps) / (v + eps)) * g
        d = rho * d + (1 - rho) * delta**2
        p = p - lr * delta

    Parameters
    ----------
    lr : float
        Factor of the step; the paper has none, which is 1.
    rho : float
        Decay factor of the running means, per push.
    eps : float
        Added under both roots; determines the size of the first steps.
    weight_decay : float
        Factor of an L2 penalty, which is added to the gradient.

    Slots: `v` and `d`, the running means of the squared gradient and of the squared step, torch's `square_avg` and
    `acc_delta`.

    Examples
    --------
    >>> Adadelta.function(1.0, 2.0, 4.0, 1.0, eps=0.0)
    (0.0, 4.0, 1.0)

    References
    ----------
    Zeiler, ADADELTA: An Adaptive Learning Rate Method, arXiv 1212.5701.

    Notes
    -----
    As torch.optim.Adadelta and optax.adadelta, which has no default for `lr`. One root of a quotient instead of a
    quotient of roots: the same value, for half the time in the divider.
    """
    g = g + weight_decay * p
    v = rho * v + (1 - rho) * g * g
    delta = sqrt((d + eps) / (v + eps)) * g
    d = rho * d + (1 - rho) * delta * delta
    return p - lr * delta, v, d

"""FTRL-Proximal."""

from __future__ import annotations

from math import sqrt

import numpy as np

from fastps.rules.base import rule
from fastps.rules.proximal_sgd import soft_threshold


@rule(slots={"z": 0.0, "n": 0.0})
def FTRL(p, g, z, n, *, lr, beta=1.0, l1=0.0, l2=0.0):
    """FTRL-Proximal: Adagrad-like learning rates and, with `l1`, exact zeros; for sparse linear models.

    ::

        sigma = (sqrt(n + g**2) - sqrt(n)) / lr
        z = z + g - sigma * p
        n = n + g**2
        p = -soft_threshold(z, l1) / ((beta + sqrt(n)) / lr + l2)

    The last line does not use p, which follows from `z`. The paper begins with p = z = 0. A parameter with another
    initial value gets, with its first gradient, the `z` for which the last line gives this parameter: training
    continues from there, and until then it does not change. From p = 0 that is the paper, line by line.

    Parameters
    ----------
    lr : float
        The paper's alpha.
    beta : float
        Damps the first steps; the paper finds 1 good enough.
    l1, l2 : float, at least 0
        Factors of the penalties. The sum of gradients is compared with `l1`, not their mean.

    Slots: `z`, of the paper, and `n`, the sum of squared gradients.

    Examples
    --------
    >>> [float(x) for x in FTRL.function(0.0, 2.0, 0.0, 0.0, lr=1.0, beta=2.0)]
    [-0.5, 2.0, 4.0]
    >>> [float(x) for x in FTRL.function(0.0, 2.0, 0.0, 0.0, lr=1.0, beta=2.0, l1=1.5)]
    [-0.125, 2.0, 4.0]
    >>> [float(x) for x in FTRL.function(5.0, 2.0, 0.0, 0.0, lr=1.0, beta=2.0)]
    [4.5, -18.0, 4.0]

    References
    ----------
    McMahan et al., Ad Click Prediction: a View from the Trenches, KDD 2013, algorithm 1.

    Notes
    -----
    torch and optax have no such rule. Keras' Ftrl begins with n = 0.1 and beta = 0, and ignores a parameter's initial
    value.
    """
    if n == 0:
        z = -p * (beta / lr + l2) - np.sign(p) * l1
    total = n + g * g
    root = sqrt(total)
    z = z + g - (root - sqrt(n)) / lr * p
    new = -soft_threshold(z, l1) / ((beta + root) / lr + l2)
    if total == 0:
        new = p
    return new, z, total

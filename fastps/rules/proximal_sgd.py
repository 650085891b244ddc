"""Stochastic gradient descent with a proximal step for L1 and L2 penalties."""

from __future__ import annotations

from fastps.rules.base import rule


def soft_threshold(x, threshold):
    """`x` moved towards 0 by `threshold`; 0 if it is closer than that. NaN stays NaN.

    >>> [soft_threshold(x, 1.0) for x in (-3.0, -0.5, 0.5, 3.0)]
    [-2.0, 0.0, 0.0, 2.0]
    """
    return max(x - threshold, 0.0) + min(x + threshold, 0.0)


@rule
def ProximalSGD(p, g, *, lr, l1=0.0, l2=0.0):
    """A gradient step followed by the proximal operator of the penalties, which gives exact zeros.

    ::

        p = argmin over w of  (w - (p - lr * g))**2 / 2 + lr * (l1 * abs(w) + l2 * w**2 / 2)
          = soft_threshold(p - lr * g, lr * l1) / (1 + lr * l2)

    Parameters
    ----------
    lr : float
        Learning rate.
    l1, l2 : float, at least 0
        Factors of the penalties. `l2` is what `weight_decay` is to `SGD`, taken implicitly.

    Slots: none.

    Examples
    --------
    >>> ProximalSGD.function(1.0, 1.0, lr=0.5, l1=0.5)
    0.25
    >>> ProximalSGD.function(0.125, 0.0, lr=0.5, l1=0.5)
    0.0

    References
    ----------
    Duchi and Singer, Efficient Online and Batch Learning Using Forward Backward Splitting, JMLR 10, 2009.

    Notes
    -----
    torch and optax have no such rule. TensorFlow's ProximalGradientDescentOptimizer is the same.
    """
    p = soft_threshold(p - lr * g, lr * l1)
    # Not p / (1 + lr * l2): so close to 1, a divisor has few digits of the penalty left in float32.
    return p - lr * l2 / (1 + lr * l2) * p

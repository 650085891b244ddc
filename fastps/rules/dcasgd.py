"""Delay-compensated asynchronous stochastic gradient descent."""

from __future__ import annotations

from fastps.rules.base import rule


@rule
def DCASGD(p, g, pulled, *, lr, lam=0.04):
    """SGD for stale gradients: corrects them for what other workers have changed since.

    ::

        p = p - lr * (g + lam * g**2 * (p - pulled))

    The gradient was computed at `pulled`; its first-order expansion at p needs the Hessian, for which ``lam * g**2``
    stands in.

    Parameters
    ----------
    lr : float
        Learning rate.
    lam : float
        Strength of the correction; 0 is `SGD`.

    Slots: none. `pulled` is the parameter that the worker computed its gradient with, and passes to `push`.

    Examples
    --------
    >>> DCASGD.function(2.0, 1.0, 1.0, lr=0.5, lam=0.5)
    1.25
    >>> DCASGD.function(2.0, 1.0, 2.0, lr=0.5, lam=0.5)
    1.5

    References
    ----------
    Zheng et al., Asynchronous Stochastic Gradient Descent with Delay Compensation, arXiv 1609.08326: DC-ASGD with a
    constant lambda (DC-ASGD-c), which is `lam` here, a keyword in Python. 0.04 is the paper's for CIFAR-10.

    Notes
    -----
    torch and optax have no such rule.
    """
    return p - lr * (g + lam * g * g * (p - pulled))

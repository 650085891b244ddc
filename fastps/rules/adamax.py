"""Adamax."""

from __future__ import annotations

from fastps.rules.base import rule


@rule(slots={"m": 0.0, "u": 0.0})
def Adamax(p, g, m, u, *, step, lr=2e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0):
    """Adam with the infinity norm of past gradients in place of their root mean square.

    ::

        g = g + weight_decay * p
        m = beta1 * m + (1 - beta1) * g
        u = max(beta2 * u, abs(g) + eps)
        p = p - lr * (m / (1 - beta1**step)) / u

    Parameters
    ----------
    lr : float
        Learning rate.
    beta1, beta2 : float
        Decay factors of mean and norm, per push.
    eps : float
        Added to the gradient's absolute value.
    weight_decay : float
        Factor of an L2 penalty, which is added to the gradient.

    Slots: `m`, the running mean, and `u`, the norm; torch's `exp_avg` and `exp_inf`.

    Examples
    --------
    >>> Adamax.function(1.0, 2.0, 0.0, 8.0, step=1, lr=0.5, beta1=0.5, beta2=0.5)
    (0.75, 1.0, 4.0)

    References
    ----------
    Kingma and Ba, Adam: A Method for Stochastic Optimization, arXiv 1412.6980, section 7.1.

    Notes
    -----
    As torch.optim.Adamax and optax.adamax (which has no weight decay). The paper has no `eps`: a parameter whose
    gradients are all 0 would be 0 / 0.
    """
    g = g + weight_decay * p
    m = beta1 * m + (1 - beta1) * g
    u = max(beta2 * u, abs(g) + eps)
    return p - lr / (1 - beta1**step) * m / u, m, u

"""AMSGrad."""

from __future__ import annotations

from math import sqrt

from fastps.rules.base import rule


@rule(slots={"m": 0.0, "v": 0.0, "v_max": 0.0})
def AMSGrad(p, g, m, v, v_max, *, step, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0):
    """Adam with a denominator that does not fall again.

    ::

        g = g + weight_decay * p
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        v_max = max(v_max, v)
        p = p - lr * (m / (1 - beta1**step)) / (sqrt(v_max / (1 - beta2**step)) + eps)

    Parameters
    ----------
    lr : float
        Learning rate.
    beta1, beta2 : float
        Decay factors of the two running means, per push.
    eps : float
        Added to the denominator.
    weight_decay : float
        Factor of an L2 penalty, which is added to the gradient.

    Slots: `m` and `v`, the running means, and `v_max`, the largest `v` so far; torch's `exp_avg`, `exp_avg_sq` and
    `max_exp_avg_sq`.

    Examples
    --------
    >>> AMSGrad.function(1.0, 2.0, 0.0, 0.0, 4.0, step=1, lr=0.5, beta1=0.5, beta2=0.75, eps=0.0)
    (0.75, 1.0, 1.0, 4.0)

    References
    ----------
    Reddi, Kale and Kumar, On the Convergence of Adam and Beyond, arXiv 1904.09237.

    Notes
    -----
    As torch.optim.Adam(amsgrad=True). The paper does not correct the bias; optax.amsgrad corrects that of `v` before it
    takes the maximum.
    """
    g = g + weight_decay * p
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    v_max = max(v_max, v)
    return p - lr / (1 - beta1**step) * m / (sqrt(v_max / (1 - beta2**step)) + eps), m, v, v_max

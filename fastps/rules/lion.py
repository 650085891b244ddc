"""Lion."""

from __future__ import annotations

import numpy as np

from fastps.rules.base import rule


@rule(slots={"m": 0.0})
def Lion(p, g, m, *, lr=1e-4, beta1=0.9, beta2=0.99, weight_decay=0.0):
    """Lion: steps of one size, in the direction of an average of gradient and momentum.

    ::

        p = p - lr * (sign(beta1 * m + (1 - beta1) * g) + weight_decay * p)
        m = beta2 * m + (1 - beta2) * g

    Parameters
    ----------
    lr : float
        Learning rate: the size of a step. The paper advises a third to a tenth of AdamW's.
    beta1 : float
        The momentum's part in the direction.
    beta2 : float
        Decay factor of the momentum, per push.
    weight_decay : float
        Each push subtracts `lr * weight_decay` times the parameter. The paper advises three to ten times AdamW's.

    Slots: `m`, the momentum.

    Examples
    --------
    >>> [float(x) for x in Lion.function(1.0, 3.0, -1.0, lr=0.25, beta1=0.5, beta2=0.75)]
    [0.75, 0.0]

    References
    ----------
    Chen et al., Symbolic Discovery of Optimization Algorithms, arXiv 2302.06675, algorithm 2. Defaults are those of the
    authors' program.

    Notes
    -----
    torch has no Lion. optax.lion is the same with a weight decay of 1e-3 and no default for `lr`.
    """
    direction = np.sign(beta1 * m + (1 - beta1) * g)
    return p - lr * (direction + weight_decay * p), beta2 * m + (1 - beta2) * g

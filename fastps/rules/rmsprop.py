"""RMSprop: plain, centered, with momentum, and both."""

from __future__ import annotations

from math import sqrt
from typing import Any

from fastps.rules.base import Rule, rule
from fastps.scalars import flag


def RMSprop(
    lr: Any = 1e-2,
    alpha: Any = 0.99,
    eps: Any = 1e-8,
    weight_decay: Any = 0.0,
    momentum: Any = 0.0,
    centered: Any = False,
) -> Rule:
    """RMSprop: `PlainRMSprop`, `CenteredRMSprop`, `MomentumRMSprop` or `CenteredMomentumRMSprop`.

    A function that chooses the rule with the fewest slots.

    Parameters
    ----------
    lr, alpha, eps, weight_decay, momentum : numbers or schedules
    centered : bool
        Divides by the standard deviation of the gradients instead of their root mean square. All six as in
        torch.optim.RMSprop.

    Raises
    ------
    OptionError
        A hyper-parameter is not a finite number.

    Examples
    --------
    >>> RMSprop(1e-3)
    RMSprop(0.001)
    >>> list(RMSprop(1e-3, momentum=0.9, centered=True).slots)
    ['v', 'm', 'velocity']
    """
    centered = flag("RMSprop centered", centered)
    hyper = MomentumRMSprop(lr, alpha, eps, weight_decay, momentum).values
    if hyper[-1] == 0:
        return CenteredRMSprop(*hyper[:-1]) if centered else PlainRMSprop(*hyper[:-1])
    return CenteredMomentumRMSprop(*hyper) if centered else MomentumRMSprop(*hyper)


@rule(slots={"v": 0.0})
def PlainRMSprop(p, g, v, *, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0.0):
    """RMSprop: divides the gradient by its running root mean square.

    ::

        g = g + weight_decay * p
        v = alpha * v + (1 - alpha) * g**2
        p = p - lr * g / (sqrt(v) + eps)

    Parameters
    ----------
    lr : float
        Learning rate.
    alpha : float
        Decay factor of the running mean, per push.
    eps : float
        Added to the denominator.
    weight_decay : float
        Factor of an L2 penalty, which is added to the gradient.

    Slots: `v`, the running mean of the squared gradient, torch's `square_avg`.

    Examples
    --------
    >>> PlainRMSprop.function(1.0, 2.0, 4.0, lr=0.5, eps=0.0)
    (0.5, 4.0)

    References
    ----------
    Hinton, Srivastava and Swersky, Neural Networks for Machine Learning, lecture 6e, 2012.

    Notes
    -----
    As torch.optim.RMSprop. optax.rmsprop has `eps` under the root unless `eps_in_sqrt=False`, calls `alpha` `decay` and
    sets it to 0.9.
    """
    g = g + weight_decay * p
    v = alpha * v + (1 - alpha) * g * g
    return p - lr * g / (sqrt(v) + eps), v


@rule(slots={"v": 0.0, "velocity": 0.0})
def MomentumRMSprop(p, g, v, velocity, *, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum):
    """RMSprop with momentum.

    ::

        g = g + weight_decay * p
        v = alpha * v + (1 - alpha) * g**2
        velocity = momentum * velocity + g / (sqrt(v) + eps)
        p = p - lr * velocity

    Parameters
    ----------
    lr, alpha, eps, weight_decay : float
        As in `PlainRMSprop`.
    momentum : float
        Decay factor of the velocity, per push.

    Slots: `v`, the running mean of the squared gradient; `velocity`, torch's `momentum_buffer`.

    Examples
    --------
    >>> MomentumRMSprop.function(1.0, 2.0, 4.0, 1.0, lr=0.5, momentum=0.5, eps=0.0)
    (0.25, 4.0, 1.5)

    References
    ----------
    Graves, Generating Sequences With Recurrent Neural Networks, arXiv 1308.0850, equations 38 to 45, without the mean.

    Notes
    -----
    As torch.optim.RMSprop. The paper and optax.rmsprop have `lr` inside the velocity, which matters when it follows a
    schedule.
    """
    g = g + weight_decay * p
    v = alpha * v + (1 - alpha) * g * g
    velocity = momentum * velocity + g / (sqrt(v) + eps)
    return p - lr * velocity, v, velocity


@rule(slots={"v": 0.0, "m": 0.0})
def CenteredRMSprop(p, g, v, m, *, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0.0):
    """RMSprop that divides the gradient by its running standard deviation.

    ::

        g = g + weight_decay * p
        v = alpha * v + (1 - alpha) * g**2
        m = alpha * m + (1 - alpha) * g
        p = p - lr * g / (sqrt(max(v - m**2, 0)) + eps)

    Parameters
    ----------
    lr, alpha, eps, weight_decay : float
        As in `PlainRMSprop`.

    Slots: `v` and `m`, the running means of the squared gradient and the gradient, torch's `square_avg` and `grad_avg`.

    Examples
    --------
    >>> CenteredRMSprop.function(1.0, 2.0, 4.0, 0.0, lr=0.5, alpha=1.0, eps=0.0)
    (0.5, 4.0, 0.0)

    References
    ----------
    Graves, Generating Sequences With Recurrent Neural Networks, arXiv 1308.0850, equations 38 to 45.

    Notes
    -----
    As torch.optim.RMSprop(centered=True), but for a variance that rounding makes negative, as with a gradient that
    stays the same: here it is 0, torch's root of it is NaN. The paper and optax.rmsprop have `eps` under the root.
    """
    g = g + weight_decay * p
    v = alpha * v + (1 - alpha) * g * g
    m = alpha * m + (1 - alpha) * g
    return p - lr * g / (sqrt(max(v - m * m, 0.0)) + eps), v, m


@rule(slots={"v": 0.0, "m": 0.0, "velocity": 0.0})
def CenteredMomentumRMSprop(p, g, v, m, velocity, *, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum):
    """RMSprop, centered and with momentum.

    ::

        g = g + weight_decay * p
        v = alpha * v + (1 - alpha) * g**2
        m = alpha * m + (1 - alpha) * g
        velocity = momentum * velocity + g / (sqrt(max(v - m**2, 0)) + eps)
        p = p - lr * velocity

    Parameters
    ----------
    lr, alpha, eps, weight_decay : float
        As in `PlainRMSprop`.
    momentum : float
        Decay factor of the velocity, per push.

    Slots: `v` and `m` as in `CenteredRMSprop`; `velocity`, torch's `momentum_buffer`.

    Examples
    --------
    >>> CenteredMomentumRMSprop.function(1.0, 2.0, 4.0, 0.0, 1.0, lr=0.5, alpha=1.0, momentum=0.5, eps=0.0)
    (0.25, 4.0, 0.0, 1.5)

    References
    ----------
    Graves, Generating Sequences With Recurrent Neural Networks, arXiv 1308.0850, equations 38 to 45.

    Notes
    -----
    What differs from torch and optax is what differs in `CenteredRMSprop` and `MomentumRMSprop`.
    """
    g = g + weight_decay * p
    v = alpha * v + (1 - alpha) * g * g
    m = alpha * m + (1 - alpha) * g
    velocity = momentum * velocity + g / (sqrt(max(v - m * m, 0.0)) + eps)
    return p - lr * velocity, v, m, velocity


for family in (PlainRMSprop, MomentumRMSprop, CenteredRMSprop, CenteredMomentumRMSprop):
    family.label = "RMSprop"  # what users call
CenteredRMSprop.fixed = CenteredMomentumRMSprop.fixed = "centered=True"

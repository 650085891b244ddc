"""Stochastic gradient descent, with and without momentum."""

from __future__ import annotations

from typing import Any

from fastps.errors import OptionError
from fastps.rules.base import Rule, rule
from fastps.schedules import Schedule


def SGD(
    lr: Any,
    momentum: Any = 0.0,
    dampening: Any = 0.0,
    weight_decay: Any = 0.0,
    nesterov: Any = False,
) -> Rule:
    """Stochastic gradient descent: `PlainSGD`, or `MomentumSGD` if there is momentum.

    A function that chooses a rule: without momentum there is no slot, and a push reads and writes half as much.

    Parameters
    ----------
    lr, momentum, dampening, weight_decay : numbers or schedules
    nesterov : bool
        Needs a momentum above 0 and no dampening. All five as in torch.optim.SGD, but `lr` has no default.

    Raises
    ------
    OptionError
        A hyper-parameter is not a finite number, or does not go with `nesterov`.

    Examples
    --------
    >>> SGD(0.1)
    SGD(0.1)
    >>> SGD(0.1, momentum=0.9, nesterov=True)
    SGD(0.1, momentum=0.9, nesterov=True)
    """
    chosen = MomentumSGD(lr, momentum, dampening, weight_decay, nesterov)
    momentum, dampening = chosen.hyper["momentum"], chosen.hyper["dampening"]
    some_momentum = isinstance(momentum, Schedule) or momentum > 0
    if chosen.hyper["nesterov"] != 0 and (not some_momentum or dampening != 0):
        raise OptionError(
            "SGD: nesterov=True needs momentum above 0 and no dampening, "
            f"got momentum={momentum!r}, dampening={dampening!r}"
        )
    return PlainSGD(lr, weight_decay) if momentum == 0 else chosen


@rule
def PlainSGD(p, g, *, lr, weight_decay=0.0):
    """Stochastic gradient descent: ``p - lr * (g + weight_decay * p)``.

    Parameters
    ----------
    lr : float
        Learning rate.
    weight_decay : float
        Factor of an L2 penalty, which is added to the gradient.

    Slots: none.

    Examples
    --------
    >>> PlainSGD.function(1.0, 0.5, lr=0.1)
    0.95

    Notes
    -----
    As torch.optim.SGD. optax.sgd has no weight decay; it is optax.add_decayed_weights before it.
    """
    return p - lr * (g + weight_decay * p)


@rule(slots={"velocity": 0.0})
def MomentumSGD(p, g, velocity, *, step, lr, momentum, dampening=0.0, weight_decay=0.0, nesterov=False):
    """Stochastic gradient descent with momentum.

    ::

        g = g + weight_decay * p
        velocity = g                                         at the first push
        velocity = momentum * velocity + (1 - dampening) * g     from then on
        p = p - lr * velocity                    or, with nesterov,    p - lr * (g + momentum * velocity)

    Parameters
    ----------
    lr : float
        Learning rate.
    momentum : float
        Decay factor of the velocity, per push.
    dampening : float
        The fraction of the gradient that is not added to the velocity.
    weight_decay : float
        Factor of an L2 penalty, which is added to the gradient.
    nesterov : bool
        Nesterov's momentum: looks one push ahead.

    Slots: `velocity`, torch's `momentum_buffer`.

    Examples
    --------
    >>> MomentumSGD.function(1.0, 0.5, 1.0, step=2, lr=0.5, momentum=0.5)
    (0.5, 1.0)

    References
    ----------
    Sutskever, Martens, Dahl and Hinton, On the importance of initialization and momentum in deep learning, ICML 2013.

    Notes
    -----
    As torch.optim.SGD: `lr` is outside of the velocity, which matters when it follows a schedule, and the first
    gradient is not dampened. The paper has `lr` inside. optax.sgd has no dampening and is otherwise the same.
    """
    g = g + weight_decay * p
    velocity = momentum * velocity + (1 - dampening * (step > 1)) * g
    if nesterov:
        return p - lr * (g + momentum * velocity), velocity
    return p - lr * velocity, velocity


PlainSGD.label = MomentumSGD.label = "SGD"  # what users call

"""NAdam."""

from __future__ import annotations

from math import exp, expm1, log, sqrt

from fastps.rules.base import rule

TERMS = 52  # the next one would be below 2**-53 of the first


def momentum_product(step, beta1, momentum_decay):
    """The product of ``beta1 * (1 - 0.5 * 0.96**(i * momentum_decay))`` over i = 1, ..., `step`.

    torch keeps it beside its step count. With q = 0.96**momentum_decay, its logarithm is

        step * log(beta1) + sum over i of log(1 - 0.5 * q**i)
        = step * log(beta1) - sum over k of 0.5**k / k * (sum over i of q**(i * k))

    and the inner sum is a geometric one, so that the cost does not grow with `step`. 1 - q**k and 1 - q**(k * step)
    come by recurrence over k: no digits are lost where q is close to 1. Compiled, this takes a fifth of a microsecond a
    push; a slot for the product would be read and written with every element.

    >>> product = 1.0
    >>> for i in range(1, 31):
    ...     product *= 0.9 * (1 - 0.5 * 0.96 ** (i * 0.004))
    >>> abs(momentum_product(30, 0.9, 0.004) / product - 1) < 1e-14
    True
    """
    if momentum_decay == 0:
        return (0.5 * beta1) ** step
    log_q = momentum_decay * log(0.96)
    gap, gap_end = -expm1(log_q), -expm1(log_q * step)  # 1 - q, 1 - q**step
    q_k, one_less, one_less_end, half_k, total = 1.0, 0.0, 0.0, 1.0, 0.0
    q_end = 1.0
    for k in range(1, TERMS + 1):
        one_less, one_less_end = one_less + q_k * gap, one_less_end + q_end * gap_end  # 1 - q**k, 1 - q**(k * step)
        q_k, q_end, half_k = q_k * (1 - gap), q_end * (1 - gap_end), 0.5 * half_k
        total += half_k / k * q_k * one_less_end / one_less
    return beta1**step * exp(-total)


@rule(slots={"m": 0.0, "v": 0.0})
def NAdam(
    p, g, m, v, *, step, lr=2e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, momentum_decay=4e-3,
    decoupled_weight_decay=False,
):  # fmt: skip
    """Adam with Nesterov's momentum, which rises from half of `beta1` to `beta1`.

    ::

        mu(t) = beta1 * (1 - 0.5 * 0.96**(t * momentum_decay))
        product(t) = mu(1) * ... * mu(t)
        g = g + weight_decay * p                      or, decoupled,    p = p * (1 - lr * weight_decay)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat = mu(step + 1) * m / (1 - product(step + 1)) + (1 - mu(step)) * g / (1 - product(step))
        p = p - lr * m_hat / (sqrt(v / (1 - beta2**step)) + eps)

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
    momentum_decay : float, at least 0
        How fast the momentum rises.
    decoupled_weight_decay : bool
        Decays the parameters directly, as `AdamW` does.

    Slots: `m` and `v`, the running means, torch's `exp_avg` and `exp_avg_sq`.

    Examples
    --------
    >>> NAdam.function(1.0, 2.0, 0.0, 0.0, step=1, lr=0.25, beta1=0.5, beta2=0.75, eps=0.0, momentum_decay=0.0)
    (0.7166666666666667, 1.0, 1.0)

    References
    ----------
    Dozat, Incorporating Nesterov Momentum into Adam, ICLR workshop 2016.

    Notes
    -----
    As torch.optim.NAdam, but for schedules of `beta1` and `momentum_decay`: torch multiplies what they were, here
    `product` is that of their present values. optax.nadam has no schedule of the momentum: mu is `beta1`.
    """
    decay = lr * weight_decay * p
    if not decoupled_weight_decay:
        g = g + weight_decay * p
        decay = 0.0
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    mu = beta1 * (1 - 0.5 * 0.96 ** (step * momentum_decay))
    mu_next = beta1 * (1 - 0.5 * 0.96 ** ((step + 1) * momentum_decay))
    product = momentum_product(step, beta1, momentum_decay)
    m_hat = mu_next / (1 - product * mu_next) * m + (1 - mu) / (1 - product) * g
    return p - (lr * m_hat / (sqrt(v / (1 - beta2**step)) + eps) + decay), m, v
